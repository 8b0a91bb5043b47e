#include "control/cluster_block/sqlite_schema.h"

#include <chrono>
#include <thread>

#include "base/file.h"
#include "base/status.h"

namespace sluice::cluster_block {
namespace {

constexpr int64_t kApplicationId = 0x534c5543;  // "SLUC"
constexpr int64_t kFormat = 1;

// kv: the entries. erased: keys that are gone, for watches, the oldest forgotten first; meta.floor
// is the newest forgotten one.
constexpr char kTables[] = R"(
CREATE TABLE kv(key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL);
CREATE INDEX kv_revision ON kv(revision);
CREATE INDEX kv_lease ON kv(lease) WHERE lease <> 0;
CREATE TABLE erased(key BLOB PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX erased_revision ON erased(revision);
CREATE TABLE leases(id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL, deadline_ns INTEGER NOT NULL);
CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one = 1), revision INTEGER NOT NULL, floor INTEGER NOT NULL,
                  next_lease INTEGER NOT NULL, boot BLOB NOT NULL);
INSERT INTO meta VALUES(1, 0, 0, 1, x'');
PRAGMA application_id = 1397511491;
PRAGMA user_version = 1;
)";
static_assert(kApplicationId == 1397511491);

enum class Content { kEmpty, kOurs };

absl::StatusOr<Content> inspect(Database& database) {
  SLUICE_ASSIGN_OR_RETURN(const int64_t objects,
                          database.number("SELECT count(*) FROM sqlite_master"));
  SLUICE_ASSIGN_OR_RETURN(const int64_t id, database.number("PRAGMA application_id"));
  SLUICE_ASSIGN_OR_RETURN(const int64_t format, database.number("PRAGMA user_version"));
  if (objects == 0 && id == 0) return Content::kEmpty;
  if (id != kApplicationId) {
    return failed_precondition("sqlite:{} is a database of another program, not a cluster block",
                               database.path());
  }
  if (format != kFormat) {
    return failed_precondition("cluster block sqlite:{} has format {}; this build reads format {}",
                               database.path(), format, kFormat);
  }
  return Content::kOurs;
}

// Two processes that make the file at once can meet here, where SQLite does not always wait by
// itself.
absl::Status use_wal(Database& database, int busy_timeout_ms) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(busy_timeout_ms);
  for (;;) {
    const absl::Status status = database.execute("PRAGMA journal_mode = WAL");
    if (!absl::IsUnavailable(status) || std::chrono::steady_clock::now() >= deadline) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

absl::Status create_tables(Database& database, int busy_timeout_ms) {
  SLUICE_RETURN_IF_ERROR(use_wal(database, busy_timeout_ms));
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::begin(database, Transaction::Kind::kWrite));
  SLUICE_ASSIGN_OR_RETURN(const Content content, inspect(database));
  if (content == Content::kOurs) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(database.execute(kTables));
  return transaction.commit();
}

absl::StatusOr<bool> is_boot(Database& database, const std::string& id) {
  SLUICE_ASSIGN_OR_RETURN(Statement query, database.prepare("SELECT 1 FROM meta WHERE boot = ?1"));
  return query.bind_bytes(1, id).step();
}

absl::Status end_leases_of_earlier_boots(Database& database) {
  auto boot = read_file("/proc/sys/kernel/random/boot_id", 128);
  const std::string id = boot.ok() ? *boot : "unknown";
  SLUICE_ASSIGN_OR_RETURN(const bool known, is_boot(database, id));
  if (known) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::begin(database, Transaction::Kind::kWrite));
  SLUICE_ASSIGN_OR_RETURN(const bool known_by_now, is_boot(database, id));
  if (known_by_now) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(Statement update, database.prepare("UPDATE meta SET boot = ?1"));
  SLUICE_RETURN_IF_ERROR(update.bind_bytes(1, id).run());
  SLUICE_RETURN_IF_ERROR(database.execute("UPDATE leases SET deadline_ns = -1"));
  return transaction.commit();
}

}  // namespace

absl::Status prepare_connection(Database& database) {
  return database.execute(
      "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216; PRAGMA foreign_keys = OFF");
}

absl::Status prepare_schema(Database& database, bool create, int busy_timeout_ms) {
  SLUICE_ASSIGN_OR_RETURN(const Content content, inspect(database));
  if (content == Content::kEmpty) {
    if (!create) {
      return not_found("no cluster at sqlite:{}: the file is empty", database.path());
    }
    SLUICE_RETURN_IF_ERROR(create_tables(database, busy_timeout_ms));
  }
  SLUICE_RETURN_IF_ERROR(prepare_connection(database));
  return end_leases_of_earlier_boots(database);
}

}  // namespace sluice::cluster_block

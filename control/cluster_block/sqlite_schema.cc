#include "control/cluster_block/sqlite_schema.h"

#include "base/deadline.h"
#include "base/status.h"

namespace sluice::cluster_block {
namespace {

constexpr int64_t kApplicationId = 0x534c5543;  // "SLUC"
constexpr int64_t kFormat = 2;

// kv: the entries. erased: keys that are gone, for watches, the oldest forgotten first; meta.floor
// is the newest forgotten one. meta.leases: the id of the table of leases (lease_table.h), of the
// boot meta.boot.
constexpr char kTables[] = R"(
CREATE TABLE kv(key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL);
CREATE INDEX kv_revision ON kv(revision);
CREATE INDEX kv_lease ON kv(lease) WHERE lease <> 0;
CREATE TABLE erased(key BLOB PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX erased_revision ON erased(revision);
CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK(one = 1), revision INTEGER NOT NULL, floor INTEGER NOT NULL,
                  boot BLOB NOT NULL, leases BLOB NOT NULL);
INSERT INTO meta VALUES(1, 0, 0, x'', x'');
PRAGMA application_id = 1397511491;
PRAGMA user_version = 2;
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
  constexpr int64_t kPauseMs = 5;
  Deadline deadline(system_clock(), busy_timeout_ms);
  absl::Status status;
  do {
    status = database.execute("PRAGMA journal_mode = WAL");
  } while (absl::IsUnavailable(status) && deadline.pause(kPauseMs));
  return status;
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
  return prepare_connection(database);
}

}  // namespace sluice::cluster_block

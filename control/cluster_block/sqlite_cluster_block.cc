#include "control/cluster_block/sqlite_cluster_block.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>

#include "base/status.h"
#include "control/cluster_block/checks.h"
#include "control/cluster_block/sqlite_database.h"
#include "control/cluster_block/sqlite_schema.h"
#include "control/cluster_block/watch_loop.h"

namespace sluice {
namespace {

using namespace cluster_block;

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

absl::StatusOr<Database> connect(const SqliteClusterBlockOptions& options, bool create) {
  SLUICE_ASSIGN_OR_RETURN(Database database,
                          Database::open(options.path, create, options.busy_timeout_ms));
  SLUICE_RETURN_IF_ERROR(prepare_schema(database, create, options.busy_timeout_ms));
  return database;
}

// What both connections do inside a transaction.

absl::StatusOr<Revision> next_revision(Database& db) {
  SLUICE_RETURN_IF_ERROR(db.execute("UPDATE meta SET revision = revision + 1"));
  SLUICE_ASSIGN_OR_RETURN(const int64_t revision, db.number("SELECT revision FROM meta"));
  return static_cast<Revision>(revision);
}

absl::StatusOr<int64_t> first_deadline(Database& db) {
  SLUICE_ASSIGN_OR_RETURN(Statement query,
                          db.prepare("SELECT min(deadline_ns) FROM leases HAVING count(*) > 0"));
  SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
  return row ? query.number(0) : kNever;
}

absl::Status erase_key(Database& db, std::string_view key, Revision revision) {
  SLUICE_ASSIGN_OR_RETURN(Statement erase, db.prepare("DELETE FROM kv WHERE key = ?1"));
  SLUICE_RETURN_IF_ERROR(erase.bind_bytes(1, key).run());
  SLUICE_ASSIGN_OR_RETURN(Statement note,
                          db.prepare("INSERT OR REPLACE INTO erased VALUES(?1, ?2)"));
  return note.bind_bytes(1, key).bind(2, static_cast<int64_t>(revision)).run();
}

// Forgets the oldest erasures beyond `kept`, whole revisions at a time.
absl::Status trim_erasures(Database& db, uint64_t kept) {
  SLUICE_ASSIGN_OR_RETURN(
      Statement query,
      db.prepare("SELECT revision FROM erased ORDER BY revision DESC LIMIT 1 OFFSET ?1"));
  SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind(1, static_cast<int64_t>(kept)).step());
  if (!row) return absl::OkStatus();
  const int64_t floor = query.number(0);
  SLUICE_ASSIGN_OR_RETURN(Statement forget, db.prepare("DELETE FROM erased WHERE revision <= ?1"));
  SLUICE_RETURN_IF_ERROR(forget.bind(1, floor).run());
  SLUICE_ASSIGN_OR_RETURN(Statement note, db.prepare("UPDATE meta SET floor = ?1"));
  return note.bind(1, floor).run();
}

absl::Status end_lease(Database& db, LeaseId lease, uint64_t kept_erasures) {
  std::vector<std::string> keys;
  SLUICE_ASSIGN_OR_RETURN(Statement query,
                          db.prepare("SELECT key FROM kv WHERE lease = ?1 AND lease <> 0"));
  query.bind(1, static_cast<int64_t>(lease));
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row) break;
    keys.emplace_back(query.bytes(0));
  }
  SLUICE_ASSIGN_OR_RETURN(Statement remove, db.prepare("DELETE FROM leases WHERE id = ?1"));
  SLUICE_RETURN_IF_ERROR(remove.bind(1, static_cast<int64_t>(lease)).run());
  if (keys.empty()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const Revision revision, next_revision(db));
  for (const std::string& key : keys) SLUICE_RETURN_IF_ERROR(erase_key(db, key, revision));
  return trim_erasures(db, kept_erasures);
}

absl::Status end_due_leases(Database& db, int64_t now_ns, uint64_t kept_erasures) {
  std::vector<LeaseId> due;
  SLUICE_ASSIGN_OR_RETURN(
      Statement query,
      db.prepare("SELECT id FROM leases WHERE deadline_ns <= ?1 ORDER BY deadline_ns, id"));
  query.bind(1, now_ns);
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row) break;
    due.push_back(static_cast<LeaseId>(query.number(0)));
  }
  for (const LeaseId lease : due) SLUICE_RETURN_IF_ERROR(end_lease(db, lease, kept_erasures));
  return absl::OkStatus();
}

// Two connections: one for the methods, under a mutex, and one for the thread of the watches.
class SqliteClusterBlock final : public ClusterBlock, public WatchSource {
 public:
  SqliteClusterBlock(const SqliteClusterBlockOptions& options, Database database)
      : options_(options),
        clock_(options.clock != nullptr ? *options.clock : system_clock()),
        database_(std::move(database)),
        loop_(std::make_shared<WatchLoop>(this, options.poll_ms)) {}
  ~SqliteClusterBlock() override { loop_->stop(); }

  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override;
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override;
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override;
  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) override;
  absl::Status keep_alive(LeaseId lease) override;
  absl::Status revoke(LeaseId lease) override;
  absl::StatusOr<WatchHandle> watch(std::string_view prefix, Revision after,
                                    WatchCallback callback) override;

 private:
  // Of the methods' connection; these need mutex_.
  absl::StatusOr<Transaction> begin_write();
  absl::Status end_leases_before_reading();
  absl::Status compare(const ClusterOp& op);
  absl::Status apply(const ClusterOp& op, Revision revision);

  // Of the watches' thread.
  bool poll() override;
  absl::StatusOr<bool> poll_storage();
  absl::StatusOr<WatchBatch> changes(const std::string& prefix, Revision after) override;

  const SqliteClusterBlockOptions options_;
  Clock& clock_;
  std::mutex mutex_;
  Database database_;

  std::unique_ptr<Database> watching_;
  int64_t data_version_ = -1;
  int64_t first_deadline_ = kNever;

  std::shared_ptr<WatchLoop> loop_;
};

absl::StatusOr<Transaction> SqliteClusterBlock::begin_write() {
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::begin(database_, Transaction::Kind::kWrite));
  // After the lock is held: the wait for it counts against leases.
  SLUICE_RETURN_IF_ERROR(end_due_leases(database_, clock_.monotonic_ns(), options_.kept_erasures));
  return transaction;
}

absl::Status SqliteClusterBlock::end_leases_before_reading() {
  SLUICE_ASSIGN_OR_RETURN(const int64_t deadline, first_deadline(database_));
  if (deadline > clock_.monotonic_ns()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction, begin_write());
  return transaction.commit();
}

absl::StatusOr<std::optional<ClusterEntry>> SqliteClusterBlock::get(std::string_view key) {
  SLUICE_RETURN_IF_ERROR(check_key(key));
  std::lock_guard lock(mutex_);
  SLUICE_RETURN_IF_ERROR(end_leases_before_reading());
  SLUICE_ASSIGN_OR_RETURN(
      Statement query, database_.prepare("SELECT value, revision, lease FROM kv WHERE key = ?1"));
  SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind_bytes(1, key).step());
  if (!row) return std::optional<ClusterEntry>();
  return std::optional<ClusterEntry>(ClusterEntry{std::string(key), std::string(query.bytes(0)),
                                                  static_cast<Revision>(query.number(1)),
                                                  static_cast<LeaseId>(query.number(2))});
}

absl::StatusOr<ClusterListing> SqliteClusterBlock::list(std::string_view prefix) {
  SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
  std::lock_guard lock(mutex_);
  SLUICE_RETURN_IF_ERROR(end_leases_before_reading());
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::begin(database_, Transaction::Kind::kRead));
  ClusterListing listing;
  SLUICE_ASSIGN_OR_RETURN(const int64_t revision, database_.number("SELECT revision FROM meta"));
  listing.revision = static_cast<Revision>(revision);
  SLUICE_ASSIGN_OR_RETURN(
      Statement query,
      database_.prepare("SELECT key, value, revision, lease FROM kv WHERE key >= ?1 ORDER BY key"));
  query.bind_bytes(1, prefix);
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row || !query.bytes(0).starts_with(prefix)) break;
    listing.entries.push_back({std::string(query.bytes(0)), std::string(query.bytes(1)),
                               static_cast<Revision>(query.number(2)),
                               static_cast<LeaseId>(query.number(3))});
  }
  return listing;
}

absl::Status SqliteClusterBlock::compare(const ClusterOp& op) {
  if (op.expected) {
    SLUICE_ASSIGN_OR_RETURN(Statement query,
                            database_.prepare("SELECT revision FROM kv WHERE key = ?1"));
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind_bytes(1, op.key).step());
    const Revision actual = row ? static_cast<Revision>(query.number(0)) : 0;
    if (actual != *op.expected) return revision_mismatch(op.key, actual, *op.expected);
  }
  if (op.kind == ClusterOp::Kind::kPut && op.lease != 0) {
    SLUICE_ASSIGN_OR_RETURN(Statement query,
                            database_.prepare("SELECT 1 FROM leases WHERE id = ?1"));
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind(1, static_cast<int64_t>(op.lease)).step());
    if (!row) return lease_ended(op.lease);
  }
  return absl::OkStatus();
}

absl::Status SqliteClusterBlock::apply(const ClusterOp& op, Revision revision) {
  if (op.kind == ClusterOp::Kind::kCheck) return absl::OkStatus();
  if (op.kind == ClusterOp::Kind::kErase) {
    SLUICE_ASSIGN_OR_RETURN(Statement query, database_.prepare("SELECT 1 FROM kv WHERE key = ?1"));
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind_bytes(1, op.key).step());
    return row ? erase_key(database_, op.key, revision) : absl::OkStatus();
  }
  SLUICE_ASSIGN_OR_RETURN(
      Statement put,
      database_.prepare("INSERT INTO kv VALUES(?1, ?2, ?3, ?4) ON CONFLICT(key) DO UPDATE SET "
                        "value = ?2, revision = ?3, lease = ?4"));
  SLUICE_RETURN_IF_ERROR(put.bind_bytes(1, op.key)
                             .bind_bytes(2, op.value)
                             .bind(3, static_cast<int64_t>(revision))
                             .bind(4, static_cast<int64_t>(op.lease))
                             .run());
  SLUICE_ASSIGN_OR_RETURN(Statement back, database_.prepare("DELETE FROM erased WHERE key = ?1"));
  return back.bind_bytes(1, op.key).run();
}

absl::StatusOr<Revision> SqliteClusterBlock::commit(const std::vector<ClusterOp>& ops) {
  SLUICE_RETURN_IF_ERROR(check_ops(ops));
  Revision revision = 0;
  {
    std::lock_guard lock(mutex_);
    SLUICE_ASSIGN_OR_RETURN(Transaction transaction, begin_write());
    for (const ClusterOp& op : ops) SLUICE_RETURN_IF_ERROR(compare(op));
    SLUICE_ASSIGN_OR_RETURN(revision, next_revision(database_));
    for (const ClusterOp& op : ops) SLUICE_RETURN_IF_ERROR(apply(op, revision));
    SLUICE_RETURN_IF_ERROR(trim_erasures(database_, options_.kept_erasures));
    SLUICE_RETURN_IF_ERROR(transaction.commit());
  }
  loop_->wake();
  return revision;
}

absl::StatusOr<LeaseId> SqliteClusterBlock::grant(int64_t ttl_ms) {
  SLUICE_RETURN_IF_ERROR(check_ttl(ttl_ms));
  std::lock_guard lock(mutex_);
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction, begin_write());
  SLUICE_ASSIGN_OR_RETURN(const int64_t id, database_.number("SELECT next_lease FROM meta"));
  SLUICE_RETURN_IF_ERROR(database_.execute("UPDATE meta SET next_lease = next_lease + 1"));
  SLUICE_ASSIGN_OR_RETURN(Statement insert,
                          database_.prepare("INSERT INTO leases VALUES(?1, ?2, ?3)"));
  const int64_t deadline = clock_.monotonic_ns() + ttl_ms * 1'000'000;
  SLUICE_RETURN_IF_ERROR(insert.bind(1, id).bind(2, ttl_ms).bind(3, deadline).run());
  SLUICE_RETURN_IF_ERROR(transaction.commit());
  return static_cast<LeaseId>(id);
}

absl::Status SqliteClusterBlock::keep_alive(LeaseId lease) {
  std::lock_guard lock(mutex_);
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction, begin_write());
  SLUICE_ASSIGN_OR_RETURN(
      Statement update,
      database_.prepare("UPDATE leases SET deadline_ns = ?1 + ttl_ms * 1000000 WHERE id = ?2"));
  SLUICE_RETURN_IF_ERROR(
      update.bind(1, clock_.monotonic_ns()).bind(2, static_cast<int64_t>(lease)).run());
  SLUICE_ASSIGN_OR_RETURN(const int64_t changed, database_.number("SELECT changes()"));
  SLUICE_RETURN_IF_ERROR(transaction.commit());
  if (changed == 0) return not_found("lease {} has ended", lease);
  return absl::OkStatus();
}

absl::Status SqliteClusterBlock::revoke(LeaseId lease) {
  {
    std::lock_guard lock(mutex_);
    SLUICE_ASSIGN_OR_RETURN(Transaction transaction, begin_write());
    SLUICE_RETURN_IF_ERROR(end_lease(database_, lease, options_.kept_erasures));
    SLUICE_RETURN_IF_ERROR(transaction.commit());
  }
  loop_->wake();
  return absl::OkStatus();
}

absl::StatusOr<WatchHandle> SqliteClusterBlock::watch(std::string_view prefix, Revision after,
                                                      WatchCallback callback) {
  SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
  {
    std::lock_guard lock(mutex_);
    if (watching_ == nullptr) {
      SLUICE_ASSIGN_OR_RETURN(Database database, connect(options_, false));
      watching_ = std::make_unique<Database>(std::move(database));
    }
  }
  return loop_->add(std::string(prefix), after, std::move(callback));
}

bool SqliteClusterBlock::poll() {
  const absl::StatusOr<bool> changed = poll_storage();
  if (changed.ok()) return *changed;
  // Storage that is busy now is looked at again with the next poll.
  data_version_ = -1;
  return false;
}

absl::StatusOr<bool> SqliteClusterBlock::poll_storage() {
  Database& db = *watching_;
  bool ended = false;
  if (first_deadline_ <= clock_.monotonic_ns()) {
    SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                            Transaction::begin(db, Transaction::Kind::kWrite));
    SLUICE_RETURN_IF_ERROR(end_due_leases(db, clock_.monotonic_ns(), options_.kept_erasures));
    SLUICE_RETURN_IF_ERROR(transaction.commit());
    SLUICE_ASSIGN_OR_RETURN(first_deadline_, first_deadline(db));
    ended = true;
  }
  SLUICE_ASSIGN_OR_RETURN(const int64_t version, db.number("PRAGMA data_version"));
  if (version == data_version_) return ended;
  // The version is kept only after what depends on it was read.
  SLUICE_ASSIGN_OR_RETURN(first_deadline_, first_deadline(db));
  data_version_ = version;
  return true;
}

absl::StatusOr<WatchBatch> SqliteClusterBlock::changes(const std::string& prefix, Revision after) {
  Database& db = *watching_;
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::begin(db, Transaction::Kind::kRead));
  SLUICE_ASSIGN_OR_RETURN(Statement meta, db.prepare("SELECT revision, floor FROM meta"));
  SLUICE_ASSIGN_OR_RETURN(const bool there, meta.step());
  if (!there) return data_loss("cluster block sqlite:{} has no revision", db.path());
  WatchBatch batch;
  batch.head = static_cast<Revision>(meta.number(0));
  batch.floor = static_cast<Revision>(meta.number(1));
  batch.upto = std::max(after, batch.head);
  // Values are read one by one, so that the sorting of the union does not carry them.
  SLUICE_ASSIGN_OR_RETURN(
      Statement query,
      db.prepare("SELECT revision AS r, key AS k, 1 AS put FROM kv WHERE revision > ?1 UNION ALL "
                 "SELECT revision, key, 0 FROM erased WHERE revision > ?1 ORDER BY r, k"));
  SLUICE_ASSIGN_OR_RETURN(Statement value, db.prepare("SELECT value FROM kv WHERE key = ?1"));
  query.bind(1, static_cast<int64_t>(after));
  size_t bytes = 0;
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row) return batch;
    const std::string_view key = query.bytes(1);
    if (!key.starts_with(prefix)) continue;
    const auto revision = static_cast<Revision>(query.number(0));
    const bool full = bytes >= kBatchBytes || batch.events.size() >= kBatchEvents;
    if (full && revision != batch.events.back().revision) {
      batch.upto = batch.events.back().revision;
      return batch;
    }
    const bool put = query.number(2) == 1;
    batch.events.push_back(
        {put ? WatchEvent::Kind::kPut : WatchEvent::Kind::kErase, std::string(key), {}, revision});
    if (!put) continue;
    value.reset();
    SLUICE_ASSIGN_OR_RETURN(const bool found, value.bind_bytes(1, key).step());
    if (found) batch.events.back().value = std::string(value.bytes(0));
    bytes += batch.events.back().value.size();
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterBlock>> open_sqlite_cluster_block(
    const SqliteClusterBlockOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(Database database, connect(options, options.create));
  return std::unique_ptr<ClusterBlock>(
      std::make_unique<SqliteClusterBlock>(options, std::move(database)));
}

}  // namespace sluice

#include "control/cluster_block/sqlite_cluster_block.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "control/cluster_block/change_counter.h"
#include "control/cluster_block/checks.h"
#include "control/cluster_block/lease_table.h"
#include "control/cluster_block/pulse.h"
#include "control/cluster_block/sqlite_database.h"
#include "control/cluster_block/sqlite_leases.h"
#include "control/cluster_block/sqlite_schema.h"
#include "control/cluster_block/watch_loop.h"

namespace sluice {
namespace {

using namespace cluster_block;

// The watches' thread has more to do than to wait for others: it tries again with its next poll.
constexpr int kWatchBusyMs = 100;

absl::StatusOr<Database> connect(const SqliteClusterBlockOptions& options, bool create,
                                 int busy_timeout_ms) {
  SLUICE_ASSIGN_OR_RETURN(Database database, Database::open(options.path, create, busy_timeout_ms));
  SLUICE_RETURN_IF_ERROR(prepare_schema(database, create, busy_timeout_ms));
  return database;
}

// What the connections that write do inside a transaction.

absl::StatusOr<Revision> next_revision(Database& db) {
  SLUICE_RETURN_IF_ERROR(db.execute("UPDATE meta SET revision = revision + 1"));
  SLUICE_ASSIGN_OR_RETURN(const int64_t revision, db.number("SELECT revision FROM meta"));
  return static_cast<Revision>(revision);
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

absl::Status erase_keys_of(Database& db, LeaseId lease, uint64_t kept_erasures) {
  std::vector<std::string> keys;
  SLUICE_ASSIGN_OR_RETURN(Statement query,
                          db.prepare("SELECT key FROM kv WHERE lease = ?1 AND lease <> 0"));
  query.bind(1, static_cast<int64_t>(lease));
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row) break;
    keys.emplace_back(query.bytes(0));
  }
  if (keys.empty()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const Revision revision, next_revision(db));
  for (const std::string& key : keys) SLUICE_RETURN_IF_ERROR(erase_key(db, key, revision));
  return trim_erasures(db, kept_erasures);
}

// Destroyed at the end of a write: the watches look and the next writer has its turn.
class EndOfWrite {
 public:
  explicit EndOfWrite(std::shared_ptr<LeaseTable> table) : table_(std::move(table)) {}
  EndOfWrite(EndOfWrite&&) = default;
  EndOfWrite& operator=(EndOfWrite&&) = delete;
  ~EndOfWrite() {
    if (table_ != nullptr && table_->is_mapped()) table_->commits().raise();
  }

 private:
  std::shared_ptr<LeaseTable> table_;
};

// A transaction that writes, and announces its end, committed or not.
class Write {
 public:
  Write(Transaction transaction, std::shared_ptr<LeaseTable> table)
      : end_(std::move(table)), transaction_(std::move(transaction)) {}
  absl::Status commit() { return transaction_.commit(); }

 private:
  EndOfWrite end_;  // outlives the transaction
  Transaction transaction_;
};

// Three connections, so that nobody waits for more than what the work itself waits for: a commit
// may wait for the disk and for other writers, what reads waits for neither, and renewing a lease
// needs none of them.
class SqliteClusterBlock final : public ClusterBlock, public WatchSource {
 public:
  SqliteClusterBlock(const SqliteClusterBlockOptions& options, Database writing, Database reading,
                     Clock& clock, std::shared_ptr<LeaseTable> table)
      : options_(options),
        clock_(clock),
        writing_(std::move(writing)),
        reading_(std::move(reading)),
        table_(std::move(table)),
        pulse_(clock, options.poll_ms),
        loop_(std::make_unique<WatchLoop>(this, options.poll_ms)) {}
  ~SqliteClusterBlock() override { loop_->stop(); }

  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override;
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override;
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override;
  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) override;
  absl::Status keep_alive(LeaseId lease) override;
  void limit_calls(int64_t) override {}
  absl::Status revoke(LeaseId lease) override;
  absl::StatusOr<WatchHandle> watch(std::string_view prefix, Revision after,
                                    WatchCallback callback) override;

 private:
  std::shared_ptr<LeaseTable> mapped_table();
  // The table of leases, opened again where it was replaced.
  absl::StatusOr<std::shared_ptr<LeaseTable>> table();
  bool is_alive(LeaseTable& table, LeaseId lease) { return table.is_alive(lease, clock_, pulse_); }
  // Within a transaction that writes: erases the keys of leases that are over.
  absl::Status erase_what_ended(Database& db, LeaseTable& table);

  // These need write_mutex_.
  absl::StatusOr<std::shared_ptr<LeaseTable>> reopened_table() SLUICE_REQUIRES(write_mutex_);
  absl::StatusOr<Write> begin_write(const std::shared_ptr<LeaseTable>& table)
      SLUICE_REQUIRES(write_mutex_);
  absl::StatusOr<Transaction> wait_for_turn(ChangeCounter& commits) SLUICE_REQUIRES(write_mutex_);
  absl::Status compare(const ClusterOp& op, LeaseTable& table) SLUICE_REQUIRES(write_mutex_);
  absl::Status apply(const ClusterOp& op, Revision revision) SLUICE_REQUIRES(write_mutex_);

  // Of the watches' thread.
  void wait(int64_t timeout_ms) override;
  bool poll() override;
  absl::StatusOr<bool> poll_storage();
  absl::Status erase_in_the_background(LeaseTable& table);
  absl::StatusOr<WatchBatch> changes(const std::string& prefix, Revision after) override;

  void wake() override;

  const SqliteClusterBlockOptions options_;
  Clock& clock_;
  // In this order. table_mutex_ guards table_ alone.
  Mutex read_mutex_;
  Mutex write_mutex_;
  Mutex table_mutex_;
  Database writing_ SLUICE_GUARDED_BY(write_mutex_);
  Database reading_ SLUICE_GUARDED_BY(read_mutex_);
  std::shared_ptr<LeaseTable> table_ SLUICE_GUARDED_BY(table_mutex_);
  Pulse pulse_;

  std::unique_ptr<Database> watching_;  // made under write_mutex_, then of the watches' thread
  int64_t data_version_ = -1;
  uint32_t seen_ = 0;
  std::vector<LeaseId> leases_of_keys_;
  ChangeCounter unmapped_;  // what is waited for where the table's cannot be

  std::unique_ptr<WatchLoop> loop_;
};

std::shared_ptr<LeaseTable> SqliteClusterBlock::mapped_table() {
  const MutexLock lock(table_mutex_);
  return table_;
}

absl::StatusOr<std::shared_ptr<LeaseTable>> SqliteClusterBlock::table() {
  auto mapped = mapped_table();
  if (mapped->is_whole() && mapped->has_its_name()) return mapped;
  const MutexLock lock(write_mutex_);
  return reopened_table();
}

absl::StatusOr<std::shared_ptr<LeaseTable>> SqliteClusterBlock::reopened_table() {
  auto mapped = mapped_table();
  if (mapped->is_whole() && (mapped->has_its_name() || writing_.has_moved())) return mapped;
  SLUICE_ASSIGN_OR_RETURN(auto opened, open_lease_table(writing_, clock_));
  const MutexLock lock(table_mutex_);
  table_ = std::move(opened);
  // The watches' thread waits for the new one from now on.
  if (mapped->is_mapped()) mapped->commits().raise();
  return table_;
}

absl::Status SqliteClusterBlock::erase_what_ended(Database& db, LeaseTable& table) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<LeaseId> leases, leases_of_keys(db));
  for (const LeaseId lease : leases) {
    if (is_alive(table, lease)) continue;
    SLUICE_RETURN_IF_ERROR(erase_keys_of(db, lease, options_.kept_erasures));
  }
  return absl::OkStatus();
}

absl::StatusOr<Write> SqliteClusterBlock::begin_write(const std::shared_ptr<LeaseTable>& table) {
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction, wait_for_turn(table->commits()));
  Write write(std::move(transaction), table);
  // After the lock is held: the wait for it counts against leases.
  SLUICE_RETURN_IF_ERROR(erase_what_ended(writing_, *table));
  return write;
}

// SQLite itself would try again after sleeps that grow to 100 ms.
absl::StatusOr<Transaction> SqliteClusterBlock::wait_for_turn(ChangeCounter& commits) {
  using std::chrono::milliseconds;
  using std::chrono::steady_clock;
  const auto deadline = steady_clock::now() + milliseconds(options_.busy_timeout_ms);
  for (;;) {
    const uint32_t seen = commits.value();
    SLUICE_ASSIGN_OR_RETURN(std::optional<Transaction> transaction, writing_.try_to_write());
    if (transaction) return *std::move(transaction);
    if (steady_clock::now() >= deadline) {
      return unavailable("cluster block sqlite:{} is busy with other writers for {} s",
                         options_.path, options_.busy_timeout_ms / 1000);
    }
    // Who is killed in a transaction, and other programs, announce nothing.
    commits.wait(seen, options_.poll_ms);
  }
}

absl::StatusOr<std::optional<ClusterEntry>> SqliteClusterBlock::get(std::string_view key) {
  SLUICE_RETURN_IF_ERROR(check_key(key));
  SLUICE_ASSIGN_OR_RETURN(const auto leases, table());
  const MutexLock lock(read_mutex_);
  SLUICE_ASSIGN_OR_RETURN(Statement query,
                          reading_.prepare("SELECT value, revision, lease FROM kv WHERE key = ?1"));
  SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind_bytes(1, key).step());
  if (!row) return std::optional<ClusterEntry>();
  ClusterEntry entry{std::string(key), std::string(query.bytes(0)),
                     static_cast<Revision>(query.number(1)), static_cast<LeaseId>(query.number(2))};
  // After the key was read: a lease that is not over now was not then.
  if (entry.lease != 0 && !is_alive(*leases, entry.lease)) return std::optional<ClusterEntry>();
  return std::optional<ClusterEntry>(std::move(entry));
}

absl::StatusOr<ClusterListing> SqliteClusterBlock::list(std::string_view prefix) {
  SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
  SLUICE_ASSIGN_OR_RETURN(const auto leases, table());
  const MutexLock lock(read_mutex_);
  SLUICE_ASSIGN_OR_RETURN(Transaction transaction,
                          Transaction::begin(reading_, Transaction::Kind::kRead));
  ClusterListing listing;
  SLUICE_ASSIGN_OR_RETURN(const int64_t revision, reading_.number("SELECT revision FROM meta"));
  listing.revision = static_cast<Revision>(revision);
  SLUICE_ASSIGN_OR_RETURN(
      Statement query,
      reading_.prepare("SELECT key, value, revision, lease FROM kv WHERE key >= ?1 ORDER BY key"));
  query.bind_bytes(1, prefix);
  for (;;) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.step());
    if (!row || !query.bytes(0).starts_with(prefix)) break;
    listing.entries.push_back({std::string(query.bytes(0)), std::string(query.bytes(1)),
                               static_cast<Revision>(query.number(2)),
                               static_cast<LeaseId>(query.number(3))});
  }
  // After all keys were read, and each lease once: its keys are listed together or not at all.
  std::map<LeaseId, bool> alive;
  std::erase_if(listing.entries, [&](const ClusterEntry& entry) {
    if (entry.lease == 0) return false;
    const auto [known, is_new] = alive.try_emplace(entry.lease, false);
    if (is_new) known->second = is_alive(*leases, entry.lease);
    return !known->second;
  });
  return listing;
}

absl::Status SqliteClusterBlock::compare(const ClusterOp& op, LeaseTable& table) {
  if (op.expected) {
    SLUICE_ASSIGN_OR_RETURN(Statement query,
                            writing_.prepare("SELECT revision FROM kv WHERE key = ?1"));
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind_bytes(1, op.key).step());
    const Revision actual = row ? static_cast<Revision>(query.number(0)) : 0;
    if (actual != *op.expected) return revision_mismatch(op.key, actual, *op.expected);
  }
  const bool with_lease = op.kind == ClusterOp::Kind::kPut && op.lease != 0;
  return with_lease && !is_alive(table, op.lease) ? lease_ended(op.lease) : absl::OkStatus();
}

absl::Status SqliteClusterBlock::apply(const ClusterOp& op, Revision revision) {
  if (op.kind == ClusterOp::Kind::kCheck) return absl::OkStatus();
  if (op.kind == ClusterOp::Kind::kErase) {
    SLUICE_ASSIGN_OR_RETURN(Statement query, writing_.prepare("SELECT 1 FROM kv WHERE key = ?1"));
    SLUICE_ASSIGN_OR_RETURN(const bool row, query.bind_bytes(1, op.key).step());
    return row ? erase_key(writing_, op.key, revision) : absl::OkStatus();
  }
  SLUICE_ASSIGN_OR_RETURN(
      Statement put,
      writing_.prepare("INSERT INTO kv VALUES(?1, ?2, ?3, ?4) ON CONFLICT(key) DO UPDATE SET "
                       "value = ?2, revision = ?3, lease = ?4"));
  SLUICE_RETURN_IF_ERROR(put.bind_bytes(1, op.key)
                             .bind_bytes(2, op.value)
                             .bind(3, static_cast<int64_t>(revision))
                             .bind(4, static_cast<int64_t>(op.lease))
                             .run());
  SLUICE_ASSIGN_OR_RETURN(Statement back, writing_.prepare("DELETE FROM erased WHERE key = ?1"));
  return back.bind_bytes(1, op.key).run();
}

absl::StatusOr<Revision> SqliteClusterBlock::commit(const std::vector<ClusterOp>& ops) {
  SLUICE_RETURN_IF_ERROR(check_ops(ops));
  Revision revision = 0;
  {
    const MutexLock lock(write_mutex_);
    SLUICE_ASSIGN_OR_RETURN(const auto leases, reopened_table());
    SLUICE_ASSIGN_OR_RETURN(Write write, begin_write(leases));
    for (const ClusterOp& op : ops) SLUICE_RETURN_IF_ERROR(compare(op, *leases));
    SLUICE_ASSIGN_OR_RETURN(revision, next_revision(writing_));
    for (const ClusterOp& op : ops) SLUICE_RETURN_IF_ERROR(apply(op, revision));
    SLUICE_RETURN_IF_ERROR(trim_erasures(writing_, options_.kept_erasures));
    SLUICE_RETURN_IF_ERROR(write.commit());
  }
  return revision;
}

absl::StatusOr<LeaseId> SqliteClusterBlock::grant(int64_t ttl_ms) {
  SLUICE_RETURN_IF_ERROR(check_ttl(ttl_ms));
  SLUICE_ASSIGN_OR_RETURN(const auto leases, table());
  return leases->grant(ttl_ms, clock_);
}

absl::Status SqliteClusterBlock::keep_alive(LeaseId lease) {
  SLUICE_ASSIGN_OR_RETURN(const auto leases, table());
  if (leases->renew(lease, clock_)) return absl::OkStatus();
  return not_found("lease {} has ended", lease);
}

absl::Status SqliteClusterBlock::revoke(LeaseId lease) {
  SLUICE_ASSIGN_OR_RETURN(const auto leases, table());
  leases->end(lease);
  const MutexLock lock(write_mutex_);
  SLUICE_ASSIGN_OR_RETURN(Write write, begin_write(leases));
  return write.commit();
}

absl::StatusOr<WatchHandle> SqliteClusterBlock::watch(std::string_view prefix, Revision after,
                                                      WatchCallback callback) {
  SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
  {
    const MutexLock lock(write_mutex_);
    if (watching_ == nullptr) {
      SLUICE_ASSIGN_OR_RETURN(Database database, connect(options_, false, kWatchBusyMs));
      SLUICE_RETURN_IF_ERROR(pulse_.start());
      watching_ = std::make_unique<Database>(std::move(database));
    }
  }
  return loop_->add(std::string(prefix), after, std::move(callback));
}

void SqliteClusterBlock::wait(int64_t timeout_ms) {
  const auto leases = mapped_table();
  // One that was cut short cannot be waited for; poll() opens another one.
  const bool mapped = leases->is_mapped();
  ChangeCounter& commits = mapped ? leases->commits() : unmapped_;
  commits.wait(seen_, timeout_ms);
  if (!mapped || leases->is_mapped()) seen_ = commits.value();
}

void SqliteClusterBlock::wake() {
  unmapped_.raise();
  if (const auto leases = mapped_table(); leases->is_mapped()) leases->commits().raise();
}

bool SqliteClusterBlock::poll() {
  const absl::StatusOr<bool> changed = poll_storage();
  if (changed.ok()) return *changed;
  // Storage that is busy now is looked at again with the next poll.
  data_version_ = -1;
  return false;
}

absl::StatusOr<bool> SqliteClusterBlock::poll_storage() {
  SLUICE_ASSIGN_OR_RETURN(const auto leases, table());
  SLUICE_ASSIGN_OR_RETURN(const int64_t version, watching_->number("PRAGMA data_version"));
  bool changed = version != data_version_;
  if (changed) {
    // The version is kept only after what depends on it was read.
    SLUICE_ASSIGN_OR_RETURN(leases_of_keys_, leases_of_keys(*watching_));
    data_version_ = version;
  }
  // All of them are looked at: what one poll does not end, because this process stood still, has to
  // be given its time by this very poll.
  bool ended = false;
  for (const LeaseId lease : leases_of_keys_) ended |= !is_alive(*leases, lease);
  // Others write for long at times: the changes before theirs are reported meanwhile.
  if (ended && erase_in_the_background(*leases).ok()) changed = true;
  return changed;
}

absl::Status SqliteClusterBlock::erase_in_the_background(LeaseTable& table) {
  SLUICE_ASSIGN_OR_RETURN(std::optional<Transaction> transaction, watching_->try_to_write());
  if (!transaction) return unavailable("others write");
  SLUICE_RETURN_IF_ERROR(erase_what_ended(*watching_, table));
  SLUICE_RETURN_IF_ERROR(transaction->commit());
  table.commits().raise();
  SLUICE_ASSIGN_OR_RETURN(leases_of_keys_, leases_of_keys(*watching_));
  return absl::OkStatus();
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
  Clock& clock = options.clock != nullptr ? *options.clock : system_clock();
  SLUICE_ASSIGN_OR_RETURN(Database writing,
                          connect(options, options.create, options.busy_timeout_ms));
  SLUICE_ASSIGN_OR_RETURN(Database reading, connect(options, false, options.busy_timeout_ms));
  SLUICE_ASSIGN_OR_RETURN(auto table, open_lease_table(writing, clock));
  return std::unique_ptr<ClusterBlock>(std::make_unique<SqliteClusterBlock>(
      options, std::move(writing), std::move(reading), clock, std::move(table)));
}

}  // namespace sluice

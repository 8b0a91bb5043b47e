#include "dataplane/store/store.h"

#include <rocksdb/snapshot.h>
#include <sys/stat.h>

#include <cassert>
#include <cerrno>
#include <fstream>
#include <utility>

#include "base/file.h"
#include "base/random.h"
#include "base/status.h"
#include "dataplane/store/slot_scan.h"
#include "dataplane/store/store_impl.h"

namespace sluice {
namespace {

// Which file of which machine's which boot: RocksDB holds a lock on it that at most one process
// has.
absl::StatusOr<std::string> lock_identity_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_status(errno, fmt::format("reading {}", path));
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  // Without a boot's name a lock of another machine could look like this one's.
  if (boot.empty()) boot = make_uuid();
  return fmt::format("{}:{}:{}", boot, info.st_dev, info.st_ino);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::open(const Options& options) {
  if (options.slot_bits < 1 || options.slot_bits > kMaxSlotBits) {
    return invalid_argument("{} slot bits: 1 to {} are possible", options.slot_bits, kMaxSlotBits);
  }
  SLUICE_RETURN_IF_ERROR(make_folders(options.folder + "/cuts"));
  SLUICE_RETURN_IF_ERROR(make_folders(options.folder + "/records"));
  std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  SLUICE_ASSIGN_OR_RETURN(
      std::shared_ptr<StoreDb> db,
      StoreDb::open(options.folder + "/records", options.memtable_bytes, cache, options.env));
  SLUICE_RETURN_IF_ERROR(sync_folder(options.folder));
  auto store = std::make_unique<StoreImpl>(options, std::move(cache), std::move(db));
  SLUICE_RETURN_IF_ERROR(store->start());
  return store;
}

StoreImpl::StoreImpl(const Options& options, std::shared_ptr<rocksdb::Cache> cache,
                     std::shared_ptr<StoreDb> db)
    : options_(options), cache_(std::move(cache)), db_(std::move(db)), sync_([this] {
        SLUICE_RETURN_IF_ERROR(check_writable());
        const uint64_t written = (*db_)->GetLatestSequenceNumber();
        SLUICE_RETURN_IF_ERROR(db_->sync_log());
        durable_sequence_.store(written, std::memory_order_release);
        return absl::OkStatus();
      }) {}

StoreImpl::~StoreImpl() = default;

absl::Status StoreImpl::start() {
  SLUICE_RETURN_IF_ERROR(find_state());
  SLUICE_RETURN_IF_ERROR(check_identity());
  SLUICE_RETURN_IF_ERROR(begin_incarnation());
  std::string row;
  uint64_t ceiling = 0;
  SLUICE_ASSIGN_OR_RETURN(const bool has_ceiling, db_->get_meta(kCeilingRow, &row));
  if (has_ceiling && !decode_u64(row, &ceiling)) {
    return data_loss("the clock's ceiling in {} is unreadable", options_.folder);
  }
  Clock& wall = options_.clock != nullptr ? *options_.clock : system_clock();
  clock_ = std::make_unique<HybridClock>(wall, ceiling, [this](uint64_t next) {
    rocksdb::WriteBatch batch;
    SLUICE_RETURN_IF_ERROR(rocksdb_status(
        batch.Put(db_->meta(), to_slice(kCeilingRow), encode_u64(next)), "making a batch"));
    return write_durably(batch);
  });
  SLUICE_RETURN_IF_ERROR(load_digests());
  if (!db_->list_was_whole()) SLUICE_RETURN_IF_ERROR(compare_digests());
  SLUICE_RETURN_IF_ERROR(load_attempts());
  SLUICE_RETURN_IF_ERROR(remove_staging());
  SLUICE_RETURN_IF_ERROR(remove_table_files());
  return load_cuts();
}

absl::Status StoreImpl::check_identity() {
  std::string row;
  SLUICE_ASSIGN_OR_RETURN(const bool known, db_->get_meta(kIdentityRow, &row));
  if (!known) {
    identity_ = {StoreIdentity::kFormat, options_.cluster,   options_.node,
                 options_.node_number,   options_.slot_bits, make_uuid()};
    rocksdb::WriteBatch batch;
    SLUICE_RETURN_IF_ERROR(
        rocksdb_status(batch.Put(db_->meta(), to_slice(kIdentityRow), encode_identity(identity_)),
                       "making a batch"));
    return write_durably(batch);
  }
  if (!decode_identity(row, &identity_))
    return data_loss("the identity of {} is unreadable", options_.folder);
  const auto refuse = [this](std::string_view what, const auto& there, const auto& here) {
    return failed_precondition(
        "{} holds records of {} {}, this is {} {}: give the directory that belongs to it, or an "
        "empty "
        "one",
        options_.folder, what, there, what, here);
  };
  if (identity_.format != StoreIdentity::kFormat) {
    return failed_precondition("{} is in store format {}, this build knows {}", options_.folder,
                               identity_.format, StoreIdentity::kFormat);
  }
  if (identity_.cluster != options_.cluster)
    return refuse("cluster", identity_.cluster, options_.cluster);
  if (identity_.node != options_.node) return refuse("node", identity_.node, options_.node);
  if (identity_.node_number != options_.node_number) {
    return refuse("node number", identity_.node_number, options_.node_number);
  }
  if (identity_.slot_bits != options_.slot_bits)
    return refuse("slot bits", identity_.slot_bits, options_.slot_bits);
  return absl::OkStatus();
}

// Opening writes rows of its own, and may be repeated any number of times before a join succeeds
// (by a service manager, say): what was found first counts until then, or a folder that was set
// back would grow into one that is accepted.
absl::Status StoreImpl::find_state() {
  SLUICE_ASSIGN_OR_RETURN(lock_identity_, lock_identity_of(options_.folder + "/records/LOCK"));
  const uint64_t sequence = (*db_)->GetLatestSequenceNumber();
  durable_sequence_ = sequence;
  std::string row;
  SLUICE_ASSIGN_OR_RETURN(const bool known, db_->get_meta(kJoinRow, &row));
  if (known && !decode_found(row, &found_)) {
    return data_loss("the row about joins in {} is unreadable", options_.folder);
  }
  if (!found_.joining.empty()) return absl::OkStatus();
  found_.joining = make_uuid();
  found_.sequence = sequence;
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(rocksdb_status(
      batch.Put(db_->meta(), to_slice(kJoinRow), encode_found(found_)), "making a batch"));
  return write_durably(batch);
}

absl::Status StoreImpl::confirm_join() {
  const Found confirmed{found_.joining, {}, 0};
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(rocksdb_status(
      batch.Put(db_->meta(), to_slice(kJoinRow), encode_found(confirmed)), "making a batch"));
  return write_durably(batch);
}

absl::Status StoreImpl::begin_incarnation() {
  std::string row;
  SLUICE_ASSIGN_OR_RETURN(const bool known, db_->get_meta(kIncarnationRow, &row));
  if (known && !decode_u64(row, &incarnation_)) {
    return data_loss("the incarnation of {} is unreadable", options_.folder);
  }
  ++incarnation_;
  sets_ = std::make_unique<FragmentSets>(incarnation_);
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(batch.Put(db_->meta(), to_slice(kIncarnationRow), encode_u64(incarnation_)),
                     "making a batch"));
  return write_durably(batch);
}

absl::Status StoreImpl::load_digests() {
  digests_.resize(size_t{1} << options_.slot_bits);
  return db_->each_meta(kDigestPrefix, [this](std::string_view slot_part, std::string_view row) {
    const uint32_t slot =
        slot_part.size() == sizeof(uint32_t) ? get_big_endian32(slot_part.data()) : ~uint32_t{0};
    if (slot >= digests_.size() || !decode_digest(row, &digests_[slot])) {
      return data_loss("a slot digest in {} is unreadable", options_.folder);
    }
    return absl::OkStatus();
  });
}

absl::Status StoreImpl::compare_digests() {
  for (uint32_t slot = 0; slot < digests_.size(); ++slot) {
    const std::unique_ptr<SlotScan> records = scan(slot, {});
    SlotDigest digest;
    SlotScan::Item item;
    for (;;) {
      SLUICE_ASSIGN_OR_RETURN(const bool more, records->next(&item));
      if (!more) break;
      digest.add(item.key, item.summary);
    }
    if (digest != digests_[slot]) {
      return data_loss(
          "the record store {} is damaged: the list of its files is cut short, and slot {} is not "
          "what it was",
          options_.folder, slot);
    }
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::remove_staging() {
  Mutation mutation(*db_, *sets_, digests_, /*repeats=*/false);
  const auto remove = [&](std::string_view row, std::string_view staged) -> absl::Status {
    uint64_t value_bytes = 0;
    if (row.size() != sizeof(uint32_t) + sizeof(uint64_t) || staged.size() <= sizeof(value_bytes) ||
        !decode_u64(staged.substr(0, sizeof(value_bytes)), &value_bytes) ||
        value_bytes > kMaxValueBytes) {
      return data_loss("a staging row in {} is unreadable", options_.folder);
    }
    const uint32_t slot = get_big_endian32(row.data());
    const uint64_t set = get_big_endian64(row.data() + sizeof(uint32_t));
    const std::string key(staged.substr(sizeof(value_bytes)));
    // How much of it was staged is not known: at most all.
    SLUICE_RETURN_IF_ERROR(give_up_run(
        {slot, key, {}, value_bytes, set, /*staged_bytes=*/value_bytes, false}, mutation));
    if (mutation.bytes() < kBatchBytes) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(write_durably(mutation.batch()));
    mutation.batch().Clear();
    return absl::OkStatus();
  };
  SLUICE_RETURN_IF_ERROR(db_->each_meta(kStagingPrefix, remove));
  return mutation.empty() ? absl::OkStatus() : write_durably(mutation.batch());
}

absl::Status StoreImpl::closed_for(const absl::Status& status) const {
  const std::string_view until =
      absl::IsResourceExhausted(status) ? "its disk has room" : "the node is started again";
  return with_context(
      status, fmt::format("the store in {} takes no writes until {}", options_.folder, until));
}

absl::Status StoreImpl::fail(const absl::Status& status) {
  const MutexLock lock(state_mutex_);
  if (failed_.ok()) {
    failed_ = closed_for(status);
    read_only_.store(true, std::memory_order_release);
  }
  return failed_;
}

absl::Status StoreImpl::check_writable() const {
  if (!read_only_.load(std::memory_order_acquire)) return absl::OkStatus();
  const MutexLock lock(state_mutex_);
  return failed_;
}

absl::Status StoreImpl::resume() {
  const MutexLock cut(cut_mutex_);
  const std::unique_lock gate(gate_);
  if (const absl::Status failed = check_writable(); !absl::IsResourceExhausted(failed)) {
    return failed;
  }
  SLUICE_ASSIGN_OR_RETURN(const uint64_t room, free_bytes());
  if (room < kResumeBytes) {
    return resource_exhausted("{}: {} MiB are free, {} are needed to take writes again",
                              options_.folder, room >> 20, kResumeBytes >> 20);
  }
  if (const absl::Status resumed = db_->resume(); !resumed.ok()) {
    const MutexLock lock(state_mutex_);
    // No room that comes will help it any more.
    if (!absl::IsResourceExhausted(resumed)) failed_ = closed_for(resumed);
    return resumed;
  }
  sync_.restart();
  const MutexLock lock(state_mutex_);
  failed_ = absl::OkStatus();
  read_only_.store(false, std::memory_order_release);
  return absl::OkStatus();
}

absl::Status StoreImpl::write(rocksdb::WriteBatch& batch) {
  SLUICE_RETURN_IF_ERROR(check_writable());
  const absl::Status status = rocksdb_status((*db_)->Write(rocksdb::WriteOptions(), &batch),
                                             "writing the store's own rows");
  if (!status.ok()) return fail(status);
  sync_.committed();
  return absl::OkStatus();
}

absl::Status StoreImpl::write_durably(rocksdb::WriteBatch& batch) {
  SLUICE_RETURN_IF_ERROR(write(batch));
  const absl::Status status = sync_.wait(sync_.last());
  return status.ok() ? status : fail(status);
}

absl::StatusOr<std::optional<Record>> StoreImpl::get(std::string_view key) {
  if (key.empty() || key.size() > kMaxKeyBytes) {
    return invalid_argument("a key of {} bytes: 1 to {} are possible", key.size(), kMaxKeyBytes);
  }
  const uint32_t slot = slot_of(key, options_.slot_bits);
  // Record and fragments are two reads; the snapshot keeps a writer from coming between them.
  rocksdb::ManagedSnapshot snapshot(db_->get());
  rocksdb::ReadOptions options;
  options.snapshot = snapshot.snapshot();
  rocksdb::PinnableSlice row;
  const rocksdb::Status status =
      (*db_)->Get(options, db_->records(), record_row_key(slot, key), &row);
  if (status.IsNotFound()) return std::nullopt;
  if (!status.ok()) return rocksdb_status(status, "reading a record");
  SLUICE_RETURN_IF_ERROR(wait_until_durable(slot));
  StoredRecord stored;
  if (!decode_stored(to_view(row), &stored))
    return data_loss("a record of slot {} is stored in no known form", slot);
  Record record{std::string(key), std::string(stored.inline_value), stored.summary.version,
                stored.summary.tombstone};
  if (stored.fragmented) {
    record.value.resize(stored.summary.value_bytes);
    FragmentReader fragments(*db_, options);
    fragments.select(slot, key, stored.set);
    SLUICE_RETURN_IF_ERROR(
        fragments.read(0, {reinterpret_cast<uint8_t*>(record.value.data()), record.value.size()}));
  }
  return record;
}

std::unique_ptr<SlotScan> StoreImpl::scan(uint32_t slot, std::string_view first_key) {
  assert(slot < digests_.size());
  return make_live_scan(db_, slot, first_key);
}

SlotDigest StoreImpl::digest(uint32_t slot) const {
  assert(slot < digests_.size());
  std::lock_guard lock(slot_gates_.of(slot));
  return digests_[slot];
}

std::vector<SlotDigest> StoreImpl::digests() const {
  std::vector<SlotDigest> copy(digests_.size());
  for (uint32_t slot = 0; slot < copy.size(); ++slot) copy[slot] = digest(slot);
  return copy;
}

absl::StatusOr<uint64_t> StoreImpl::free_bytes() const { return free_bytes_at(options_.folder); }

absl::Status StoreImpl::flush_if_idle() {
  const int64_t now = (options_.clock != nullptr ? *options_.clock : system_clock()).monotonic_ns();
  const uint64_t sequence = (*db_)->GetLatestSequenceNumber();
  if (sequence != idle_sequence_) {
    idle_sequence_ = sequence;
    idle_since_ns_ = now;
    idle_seen_ = false;
    return absl::OkStatus();
  }
  if (idle_seen_ || now - idle_since_ns_ < kIdleMs * 1'000'000) return absl::OkStatus();
  idle_seen_ = true;  // once for what was written
  SLUICE_RETURN_IF_ERROR(check_writable());
  SLUICE_ASSIGN_OR_RETURN(const uint64_t log_bytes, db_->log_bytes());
  // What is not flushed now is little for a cut too.
  if (log_bytes < options_.memtable_bytes / kIdleFlushShare) return absl::OkStatus();
  return db_->begin_flush();
}

}  // namespace sluice

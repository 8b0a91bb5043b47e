// The store: its parts, and which lock guards what.
//
// Locks, in the order they are taken: cut_mutex_ (one cut operation at a time), gate_ (shared by
// writers, exclusive to arm or take a cut), slot gates, and inside them, never held across another,
// state_mutex_ and the clock's own.
#ifndef SLUICE_DATAPLANE_STORE_STORE_IMPL_H_
#define SLUICE_DATAPLANE_STORE_STORE_IMPL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "dataplane/store/group_sync.h"
#include "dataplane/store/mutation.h"
#include "dataplane/store/row_memory.h"
#include "dataplane/store/store.h"
#include "dataplane/store/store_db.h"
#include "dataplane/store/store_format.h"
#include "dataplane/store/write_gate.h"

namespace sluice {

// Counts what became of a record. `before`: what stood in its key's place. `archived`: the version
// that it came with.
void count_outcome(Mutation::Outcome outcome, const std::optional<StoredHead>& before,
                   const RecordSummary& record, const Version& archived,
                   Store::BlockResult* result);

// A block that has been checked to its end, to be read a second time when it is applied. (Its keys
// are not kept: with shared prefixes they can be hundreds of times the block.)
struct CheckedBlock {
  explicit CheckedBlock(const BlockReader& block) : reader(block) {}
  BlockReader reader;  // at its first entry
  Version restamp;     // of all records with a value, in place of their own; default: none
  uint64_t largest_stamp = 0;
  uint64_t smallest_stamp = ~uint64_t{0};
  std::vector<Digest128> value_digests;  // by entry; of whole ones
  size_t key_bytes = 0;                  // of all entries
  size_t fragment_bytes = 0;             // likewise

  uint32_t slot() const { return reader.header().slot; }
};

class SlotRows;
struct SlotWork;
struct StampRange;

// A value that arrives over several blocks. Its rows are staged: written, but no record points at
// them.
struct StagedRun {
  uint32_t slot = 0;
  std::string key;
  Version version;
  uint64_t value_bytes = 0;
  uint64_t set = 0;
  uint64_t staged_bytes = 0;
  bool uncommitted = false;  // changed by the block that is being applied
};

class StoreImpl final : public Store {
 public:
  // A batch is committed when it has grown to this, and the call goes on with another.
  static constexpr size_t kBatchBytes = size_t{32} << 20;
  // Free space that is worth another try after the disk was full.
  static constexpr uint64_t kResumeBytes = uint64_t{16} << 20;
  // Memtables of a shorter log stay where they are: small files are merged as often as large ones.
  static constexpr size_t kIdleFlushShare = 8;  // of memtable_bytes
  // Runs that one stripe of slots holds staged; the one unused for longest is given up for another.
  static constexpr size_t kRunsOfStripe = 8;

  StoreImpl(const Options& options, std::shared_ptr<rocksdb::Cache> cache,
            std::shared_ptr<StoreDb> db);
  ~StoreImpl() override;

  // Identity, slot digests, clock, what a crash left, the armed cut. The first call.
  absl::Status start();

  const std::string& store_id() const override { return identity_.store_id; }
  uint64_t incarnation() const override { return incarnation_; }
  const Found& found() const override { return found_; }
  absl::Status confirm_join() override;
  uint64_t durable_sequence() const override {
    return durable_sequence_.load(std::memory_order_acquire);
  }
  const std::string& lock_identity() const override { return lock_identity_; }
  HybridClock& clock() override { return *clock_; }
  uint32_t slot_bits() const override { return options_.slot_bits; }
  absl::StatusOr<std::vector<ApplyResult>> apply(std::span<const RecordView> records) override;
  using Store::apply_block;
  absl::StatusOr<BlockResult> apply_block(std::span<const uint8_t> block,
                                          const Version& restamp) override;
  absl::StatusOr<std::optional<Record>> get(std::string_view key) override;
  std::unique_ptr<SlotScan> scan(uint32_t slot, std::string_view first_key) override;
  std::unique_ptr<SlotIngest> begin_ingest() override;
  RowMemory& row_memory() { return *row_memory_; }
  SlotDigest digest(uint32_t slot) const override;
  std::vector<SlotDigest> digests() const override;
  absl::Status arm_cut(const CutInfo& cut) override;
  absl::StatusOr<std::vector<SlotDigest>> cut_digests(std::string_view backup) override;
  absl::StatusOr<bool> take_due_cut() override;
  std::vector<CutInfo> cuts() const override;
  absl::StatusOr<std::shared_ptr<CutReader>> open_cut(std::string_view backup) override;
  absl::Status drop_cut(std::string_view backup) override;
  absl::Status miss_cuts_before(uint64_t stamp) override;
  absl::Status writable() const override { return check_writable(); }
  absl::Status resume() override;
  absl::StatusOr<uint64_t> free_bytes() const override;
  absl::Status flush_if_idle() override;
  absl::Status raise_attempt(std::string_view job, uint64_t attempt, Sync sync) override;
  std::map<std::string, uint64_t, std::less<>> attempts() const override;
  absl::Status forget_attempt(std::string_view job) override;

 private:
  // store.cc: opening.
  absl::Status check_identity();
  absl::Status find_state();
  absl::Status begin_incarnation();
  absl::Status load_digests();
  // With all records. DATA_LOSS when a slot's digest is another.
  absl::Status compare_digests();
  absl::Status remove_staging();

  // store.cc: durability. Every failure of the WAL ends in fail(): the store is read-only from then
  // on.
  absl::Status fail(const absl::Status& status);
  // Why it takes no writes, and until when.
  absl::Status closed_for(const absl::Status& status) const;
  absl::Status check_writable() const;
  absl::Status write_durably(rocksdb::WriteBatch& batch);
  // Durable with the next sync.
  absl::Status write(rocksdb::WriteBatch& batch);

  // apply.cc
  absl::Status check_record(const RecordView& record) const;
  // Enters the write gate for stamps up to `largest_stamp`: takes the armed cut first when it has
  // to be.
  absl::StatusOr<std::shared_lock<WriteGate>> enter(uint64_t largest_stamp);
  absl::Status commit(Mutation& mutation, uint64_t* ticket);
  // What a reader has seen of the slot by now. A store that can make nothing durable gives out what
  // it has. DEADLINE_EXCEEDED: its disk takes too long.
  absl::Status wait_until_durable(uint32_t slot);

  // apply_block.cc
  using Runs = std::list<StagedRun>;
  absl::StatusOr<CheckedBlock> check_block(std::span<const uint8_t> block,
                                           const Version& restamp = {}) const;
  absl::Status apply_entries(const CheckedBlock& block, Runs& runs, BlockResult* result,
                             uint64_t* ticket);
  // `archived`: the version that the entry came with.
  absl::Status apply_fragment(uint32_t slot, const BlockEntry& entry, const Version& archived,
                              Mutation& mutation, Runs& runs, BlockResult* result);
  absl::Status begin_run(uint32_t slot, const BlockEntry& entry, Mutation& mutation, Runs& runs);
  absl::Status finish_run(const BlockEntry& entry, const Version& archived, Mutation& mutation,
                          Runs& runs, BlockResult* result);
  absl::Status match_stored(uint32_t slot, const BlockEntry& entry, Mutation& mutation,
                            BlockResult* result);
  absl::Status give_up_run(const StagedRun& run, Mutation& mutation);

  // slot_ingest.cc
  friend class SlotIngestImpl;
  absl::StatusOr<SlotIngest::Result> ingest(std::map<uint32_t, SlotRows>& slots);
  absl::Status choose_ways(std::vector<SlotWork>& work, bool tables);
  absl::StatusOr<bool> ingest_tables(std::vector<SlotWork>& work, const StampRange& stamps,
                                     BlockResult* result);
  absl::Status compare_slot(uint32_t slot, const SlotRows& rows, const StampRange& stamps,
                            BlockResult* result);
  absl::Status remove_table_files();

  // attempts.cc
  absl::Status load_attempts();

  // cuts.cc
  absl::Status load_cuts();
  std::optional<CutInfo> find_cut(std::string_view backup) const;
  absl::Status take_cut_locked() SLUICE_REQUIRES(cut_mutex_);
  absl::Status write_armed(const CutInfo& cut);
  absl::Status put_cut(const CutInfo& cut, rocksdb::WriteBatch& batch) const;
  absl::Status take_back_record() SLUICE_REQUIRES(cut_mutex_);
  absl::Status record_taken(const CutInfo& cut);
  std::string cut_folder(std::string_view backup) const;

  const Options options_;
  const std::shared_ptr<rocksdb::Cache> cache_;
  const std::shared_ptr<StoreDb> db_;
  StoreIdentity identity_;
  uint64_t incarnation_ = 0;
  Found found_;
  std::string lock_identity_;
  std::atomic<uint64_t> durable_sequence_{0};
  std::unique_ptr<HybridClock> clock_;
  std::unique_ptr<FragmentSets> sets_;
  GroupSync sync_;

  std::atomic<uint64_t> ingestions_{0};  // numbers for table files
  const std::shared_ptr<RowMemory> row_memory_ = std::make_shared<RowMemory>();

  // flush_if_idle()'s own.
  uint64_t idle_sequence_ = 0;
  int64_t idle_since_ns_ = 0;
  bool idle_seen_ = false;

  mutable SlotGates slot_gates_;
  SlotTickets slot_tickets_;
  std::vector<SlotDigest> digests_;                             // each under its slot's gate
  std::array<std::list<StagedRun>, SlotGates::kStripes> runs_;  // each under its stripe's gate

  WriteGate gate_;
  std::optional<CutInfo>
      armed_;              // written under cut_mutex_ and gate_ exclusively, read under either
  uint64_t last_cut_ = 0;  // same
  // The row that says that the armed cut is taken may become durable.
  bool may_be_recorded_ SLUICE_GUARDED_BY(cut_mutex_) = false;

  Mutex cut_mutex_ SLUICE_ACQUIRED_BEFORE(state_mutex_);
  struct OpenCut {
    std::weak_ptr<CutReader> reader;
    std::weak_ptr<const StoreDb> db;  // held by the reader and by every scan of it
  };
  std::map<std::string, OpenCut, std::less<>> readers_ SLUICE_GUARDED_BY(cut_mutex_);
  // What the cut that was taken last holds, for as long as it is there.
  struct TakenCut {
    std::string backup;
    std::vector<SlotDigest> digests;
  };
  TakenCut last_taken_ SLUICE_GUARDED_BY(cut_mutex_);
  mutable Mutex attempts_mutex_ SLUICE_ACQUIRED_BEFORE(state_mutex_);
  // By job.
  std::map<std::string, uint64_t, std::less<>> attempts_ SLUICE_GUARDED_BY(attempts_mutex_);
  mutable Mutex state_mutex_;
  // Written under cut_mutex_ too.
  std::map<std::string, CutInfo, std::less<>> cuts_ SLUICE_GUARDED_BY(state_mutex_);
  absl::Status failed_ SLUICE_GUARDED_BY(state_mutex_);
  std::atomic<bool> read_only_ = false;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_STORE_IMPL_H_

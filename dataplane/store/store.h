// One node's records, on RocksDB: newest version of each key, a slot digest for each slot kept in
// the same write batch as the record, and the cuts that backups read.
//
// Rules it keeps (docs/architecture.md, writing and cutting):
//  1. A write is applied under its slot's gate: summary of the key read, compared, record and slot
//  digest committed in one
//     batch. A repeat of what is here, and an arrival that a newer record beats, change nothing;
//     the result tells the three apart.
//  2. What apply() returned OK for survives a crash of process and machine.
//  3. An armed cut is taken before anything stamped after its T is applied, and by take_due_cut()
//  once the clock has passed T.
//     Arming is durable before arm_cut() returns; a restart takes an armed cut before anything else
//     is applied.
//  4. After the cut, a write stamped <= T is still applied but its result says after_cut, for good
//  (also after restarts).
//  5. A cut is a checkpoint of RocksDB's files under the write gate (checkpoint.h), named by
//  backup, durable and recorded before its
//     digests are published, kept over restarts until drop_cut().
#ifndef SLUICE_DATAPLANE_STORE_STORE_H_
#define SLUICE_DATAPLANE_STORE_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "dataplane/block/block.h"
#include "dataplane/block/record.h"
#include "dataplane/block/slot_digest.h"
#include "dataplane/source/slot_source.h"
#include "dataplane/store/hybrid_clock.h"

namespace rocksdb {
class Env;
}

namespace sluice {

struct ApplyResult {
  // `equal`: this very version with the same value was here already, a repeat. `superseded`: a
  // record that wins over this one was here, which may have the same version and another value.
  enum class Outcome : uint8_t { kApplied, kEqual, kSuperseded };
  Outcome outcome = Outcome::kApplied;
  // It came too late for the last cut, which need not hold it. Said of every record stamped <= T
  // after the cut, also of one that was here before it.
  bool after_cut = false;
  Version newer;     // where superseded: the version that stands here
  uint64_t cut = 0;  // where after_cut: T
  bool changed() const { return outcome == Outcome::kApplied; }
};

// Of what apply() answered for some records: the latest cut that one of them came too late for; 0:
// all were in time.
uint64_t missed_cut(std::span<const ApplyResult> results);
// ABORTED, naming the key, where another value stands here with a record's very version. Versions
// are given once, so one of the two is damaged, and which one wins says nothing.
absl::Status clash_among(std::span<const RecordView> records, std::span<const ApplyResult> results);

// A cut, open for reading. Keeps the cut's files open, so it and its scans must be gone before
// drop_cut(), as scans of the live store before the Store.
class CutReader : public SlotSource {
 public:
  virtual const std::vector<SlotDigest>& digests() const = 0;  // by slot
  bool has(uint32_t slot) const override { return slot < digests().size(); }
  std::optional<SlotDigest> digest(uint32_t slot) const override { return digests()[slot]; }
};

class SlotIngest;

// What a replica's own records meant for those of a request, by slot.
struct KeptRecords {
  // Of the request, not written because newer ones are here, which have another value.
  uint64_t newer = 0;
  uint64_t deleted = 0;   // of these: with a value, where a newer deletion is here
  uint64_t replaced = 0;  // of the request, written over newer ones
  bool any() const { return newer > 0 || replaced > 0; }
  // The larger of each, of two replicas.
  void merge(const KeptRecords& other);
  void add(const KeptRecords& other);
  friend bool operator==(const KeptRecords&, const KeptRecords&) = default;
};

struct CutInfo {
  std::string backup;  // UUID
  uint64_t cut = 0;    // T: a stamp
  uint64_t epoch = 0;  // of the distribution table when armed
  bool taken = false;
};

// Thread-safe.
class Store {
 public:
  struct Options {
    std::string folder;
    std::string cluster;  // UUID; a folder of another cluster is refused
    std::string node;     // name; a folder of another node is refused
    uint32_t node_number = 0;
    uint32_t slot_bits = 12;
    size_t memtable_bytes = size_t{64} << 20;  // bounds of RocksDB's memory
    size_t block_cache_bytes = size_t{64} << 20;
    Clock* clock = nullptr;  // what stamps follow; the system's when null
    // Where RocksDB has its files and threads: the machine's when null. Outlives the store.
    rocksdb::Env* env = nullptr;
  };
  // Makes the folder when it is not there. Takes an armed cut before it returns.
  // FAILED_PRECONDITION, naming the folder, when it is another cluster's or node's, has other slot
  // bits, or is in use; DATA_LOSS when its own rows are unreadable.
  static absl::StatusOr<std::unique_ptr<Store>> open(const Options& options);
  virtual ~Store() = default;

  // A UUID made with the folder, so that a member whose data was lost is noticed; and how often the
  // folder was opened.
  virtual const std::string& store_id() const = 0;
  virtual uint64_t incarnation() const = 0;
  // What tells this folder from a copy or an earlier state of it, when the node joins: what it held
  // when it was found, before anything that happens between opening and joining.
  struct Found {
    std::string joined;     // token of the last join that was confirmed; empty: none
    std::string joining;    // token of the join that begins now; the same until one is confirmed
    uint64_t sequence = 0;  // durable_sequence() of then
  };
  virtual const Found& found() const = 0;
  // The cluster has recorded found().joining. Durable when it returns.
  virtual absl::Status confirm_join() = 0;
  // Grows with everything that is written; what was acknowledged is covered by it, and a folder
  // that was set back has a smaller one.
  virtual uint64_t durable_sequence() const = 0;
  // Names the lock that this process holds on the folder: who holds the same lock is the only one
  // who does, so that an earlier holder is known to be gone. Differs in a copy of the folder.
  virtual const std::string& lock_identity() const = 0;
  virtual HybridClock& clock() = 0;
  virtual uint32_t slot_bits() const = 0;

  // Applies records of any slots, in order (a key may come twice); results are parallel to records.
  // Durable when it returns. Refuses (INVALID_ARGUMENT)
  // before it changes anything. RESOURCE_EXHAUSTED when the disk is full: nothing acknowledged is
  // lost. After any failure to write, every further write fails with that error until resume()
  // succeeds or the folder is opened again; reads go on. A record that is superseded is a result,
  // not an error.
  virtual absl::StatusOr<std::vector<ApplyResult>> apply(std::span<const RecordView> records) = 0;

  struct BlockResult {
    uint64_t changed = 0;     // records
    uint64_t kept_newer = 0;  // records that were here already, newer or equal
    uint64_t kept_equal = 0;  // of kept_newer: with the same value, or deleted too
    // Of kept_newer: ones with a value, of which a newer deletion is here.
    uint64_t kept_deleted = 0;
    // Of changed: restamped records that took the place of newer ones with another value.
    uint64_t replaced = 0;
    bool after_cut = false;
    KeptRecords kept() const { return {kept_newer - kept_equal, kept_deleted, replaced}; }
  };
  // Applies a block of a data writing request. Stamps are trusted (the clock moves past them).
  // Blocks of one run must be applied in order, each after the one before it succeeded; a record
  // that spans blocks becomes visible with the run's last block. A run that is given up and begun
  // again is no error, nor is a block repeated whose answer was lost. Changes nothing and returns
  // DATA_LOSS for a damaged block, FAILED_PRECONDITION for one with other slot bits, and
  // FAILED_PRECONDITION ("begin its run again") for a fragment whose beginning is not here: after a
  // restart, or when more runs were open in these slots than are kept (8 in 1/1024 of the slots).
  //
  // `restamp`, where not the default: every record but tombstones gets this version in place of the
  // block's, so that it wins over all that was written before the version was made.
  virtual absl::StatusOr<BlockResult> apply_block(std::span<const uint8_t> block,
                                                  const Version& restamp) = 0;
  absl::StatusOr<BlockResult> apply_block(std::span<const uint8_t> block) {
    return apply_block(block, Version());
  }

  // The way in for many blocks of whole slots: see SlotIngest.
  virtual std::unique_ptr<SlotIngest> begin_ingest() = 0;

  // NOT_FOUND is not an error here: nullopt for a key never seen. A tombstone is returned as one.
  // Waits until what it returns is durable, unless nothing becomes durable here any more;
  // DEADLINE_EXCEEDED when that takes seconds.
  virtual absl::StatusOr<std::optional<Record>> get(std::string_view key) = 0;
  // From the live store, as of now (a RocksDB snapshot).
  virtual std::unique_ptr<SlotScan> scan(uint32_t slot, std::string_view first_key = {}) = 0;
  virtual SlotDigest digest(uint32_t slot) const = 0;
  virtual std::vector<SlotDigest> digests() const = 0;  // by slot, each taken under its gate

  // OUT_OF_RANGE ("missed") when the clock has passed T already. ALREADY_EXISTS when another
  // backup's cut is armed and not taken, or this one's was taken with another T or epoch. Arming
  // the same cut again is OK; with another T, while it is not taken, it replaces the first.
  // Everything that was written before is durable when it returns.
  virtual absl::Status arm_cut(const CutInfo& cut) = 0;
  // Takes the armed cut if the clock has passed its T; otherwise leaves it. Returns whether no cut
  // is armed any more.
  virtual absl::StatusOr<bool> take_due_cut() = 0;
  virtual std::vector<CutInfo> cuts() const = 0;
  // NOT_FOUND for an unknown one, FAILED_PRECONDITION when it is not taken yet.
  virtual absl::StatusOr<std::shared_ptr<CutReader>> open_cut(std::string_view backup) = 0;
  // By slot, without opening the cut where it was taken in this life. Errors as open_cut().
  virtual absl::StatusOr<std::vector<SlotDigest>> cut_digests(std::string_view backup) = 0;
  // Idempotent; disarms a cut that is not taken. FAILED_PRECONDITION while a reader or scan of it
  // is open.
  virtual absl::Status drop_cut(std::string_view backup) = 0;
  // Of a store that replaces a lost one, which may have taken cuts up to then: what is stamped
  // before came too late for them. Durable when it returns.
  virtual absl::Status miss_cuts_before(uint64_t stamp) = 0;

  // The fencing of jobs (backups): the highest attempt of each that this node has seen, durable
  // when raise_attempt() returns, or with what the caller has the store make durable next.
  // FAILED_PRECONDITION for a lower one than is known; OK for the same.
  static constexpr size_t kMaxJobBytes = 64;
  enum class Sync { kNow, kWithNext };
  virtual absl::Status raise_attempt(std::string_view job, uint64_t attempt,
                                     Sync sync = Sync::kNow) = 0;
  virtual std::map<std::string, uint64_t, std::less<>> attempts() const = 0;
  // Of a job that no longer exists. Idempotent.
  virtual absl::Status forget_attempt(std::string_view job) = 0;
  // Not OK, with the reason, once a write failed: see apply().
  virtual absl::Status writable() const = 0;
  // Takes writes again after the disk was full, where it has room now; the reason why not
  // otherwise. What was acknowledged before is there, what failed may be.
  virtual absl::Status resume() = 0;

  // Free bytes of the folder's file system.
  virtual absl::StatusOr<uint64_t> free_bytes() const = 0;

  // To be called many times a second, from one thread; returns at once. Lets memtables of some size
  // be written to files once nothing was written for kIdleMs, so that the next cut does not have to
  // (nor a backup to share its processors with the merge of files that a cut's flush begins).
  static constexpr int64_t kIdleMs = 500;
  virtual absl::Status flush_if_idle() = 0;
};

// Gathers blocks in memory and makes their records durable in one step: where a slot holds nothing
// between the first and the last key that came for it, its rows go into a sorted table file that is
// ingested by move, together with the slots' digests, without reading a record or writing a log. A
// slot that holds these very records already is left alone; any other is written record by record,
// the newer one wins. Blocks may come in any order and more than once; the pieces of a value have
// to be complete at commit().
//
// Thread-safe, except for commit(). Must be gone before the Store.
class SlotIngest {
 public:
  virtual ~SlotIngest() = default;
  struct Result {
    Store::BlockResult all;
    // Where not none: records of a slot that were not written because newer ones, with other
    // values, are here.
    std::map<uint32_t, KeptRecords> kept_different;
  };
  // Checks the block and copies it; returns the memory that it takes, in bytes. Errors of the block
  // as Store::apply_block(); RESOURCE_EXHAUSTED for one whose keys unfold to a multiple of it,
  // which apply_block() takes.
  virtual absl::StatusOr<uint64_t> add(std::span<const uint8_t> block) = 0;
  // Memory held, in bytes.
  virtual uint64_t bytes() const = 0;
  // The last call. Durable when it returns OK: a crash at any point before leaves each slot that is
  // ingested as it was or with all of its records. Stamps are trusted (the clock moves past them).
  virtual absl::StatusOr<Result> commit() = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_STORE_H_

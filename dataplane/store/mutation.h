// The changes of one call, collected into one batch under the gates of their slots: record rows,
// fragment rows and slot digests change together or not at all.
#ifndef SLUICE_DATAPLANE_STORE_MUTATION_H_
#define SLUICE_DATAPLANE_STORE_MUTATION_H_

#include <rocksdb/write_batch.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/block/record.h"
#include "dataplane/block/slot_digest.h"
#include "dataplane/store/store_db.h"

namespace sluice {

// What is stored of a key, without its value.
struct StoredHead {
  RecordSummary summary;
  bool fragmented = false;
  uint64_t set = 0;
};

// Numbers for fragment sets that are never used twice in a folder: the store's incarnation and a
// counter.
class FragmentSets {
 public:
  static constexpr int kCounterBits = 40;
  explicit FragmentSets(uint64_t incarnation) : next_(incarnation << kCounterBits) {}
  uint64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> next_;
};

// Confined to one thread, which holds the gates of all slots it touches until commit() has
// returned.
class Mutation {
 public:
  enum class Outcome { kChanged, kNewerHere, kEqualHere };

  // `digests` are the store's, by slot; the slots of this mutation are updated by commit().
  // `repeats`: the same key may be put more than once. `bytes`: about what is to be put, for which
  // memory is reserved.
  Mutation(const StoreDb& db, FragmentSets& sets, std::vector<SlotDigest>& digests, bool repeats,
           size_t bytes = 0)
      : db_(db), sets_(sets), digests_(digests), repeats_(repeats), batch_(bytes) {}

  // What is stored of the key, this mutation's changes included.
  absl::StatusOr<std::optional<StoredHead>> head(uint32_t slot, std::string_view key);
  // Writes the record if it wins.
  absl::StatusOr<Outcome> put(uint32_t slot, std::string_view key, const RecordSummary& summary,
                              std::string_view value);
  // Makes a value whose fragment rows are in `set` already the key's record if it wins; deletes the
  // rows otherwise.
  absl::StatusOr<Outcome> put_staged(uint32_t slot, std::string_view key,
                                     const RecordSummary& summary, uint64_t set);

  // Fragment rows of a value, from `offset`; what is stored before it must end there. The caller
  // sees to it that the rows are found again.
  absl::Status put_fragments(uint32_t slot, std::string_view key, uint64_t set, uint64_t offset,
                             std::string_view bytes);
  // Of a set that holds the first `bytes` of its value.
  absl::Status delete_fragments(uint32_t slot, std::string_view key, uint64_t set, uint64_t bytes);

  // What was stored of the key that put() was last called for, before that call.
  const std::optional<StoredHead>& before() const { return old_; }

  // For rows of the store's own.
  rocksdb::WriteBatch& batch() { return batch_; }
  size_t bytes() const { return batch_.GetDataSize(); }
  bool empty() const { return batch_.Count() == 0; }

  // The slots whose records the batch changes.
  const std::unordered_map<uint32_t, SlotDigest>& changed_slots() const { return changed_digests_; }

  // Writes the batch to the WAL (not synced) and makes it visible. Begins a new, empty one. On
  // failure nothing has changed.
  absl::Status commit();

 private:
  absl::StatusOr<std::optional<Outcome>> compare(uint32_t slot, std::string_view key,
                                                 const RecordSummary& summary);
  void replace(uint32_t slot, std::string_view key, const StoredHead& head);

  const StoreDb& db_;
  FragmentSets& sets_;
  std::vector<SlotDigest>& digests_;
  const bool repeats_;
  rocksdb::WriteBatch batch_;
  std::unordered_map<uint32_t, SlotDigest> changed_digests_;
  std::unordered_map<std::string, StoredHead>
      changed_heads_;              // by record row; kept only with repeats_
  std::optional<StoredHead> old_;  // of the key that compare() was last called for
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_MUTATION_H_

// Blocks of restores that wait at a replica for the rest of their lot, so that one table file holds
// a range of slots that no other table file overlaps.
//
// A lot is a range of slots (or of a large slot's keys) that all senders of a restore know by the
// same number. Each sender sends its blocks of it in any order, then says that it has ended. When
// all senders that have slots for this replica have, everything is committed at once and each is
// told. A sender that is late is waited for with limited patience: what is there is committed then,
// and what comes later becomes a lot of its own, at the price of table files that overlap.
#ifndef SLUICE_DATAPLANE_PIPELINE_WRITE_LOTS_H_
#define SLUICE_DATAPLANE_PIPELINE_WRITE_LOTS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/stage.h"
#include "dataplane/store/store.h"

namespace sluice {

// The payload of a kLotEnd.
struct LotEnd {
  std::string sender;    // differs among the senders of a lot
  uint32_t senders = 1;  // how many senders have slots of this lot for the replica
  uint64_t token = 0;    // of the kept blocks that are asked about; 0: this sender sent none

  std::string encode() const;
  static absl::StatusOr<LotEnd> decode(std::string_view payload);
};

// Thread-safe.
class WriteLots {
 public:
  struct Options {
    uint64_t max_bytes = uint64_t{256} << 20;  // of kept blocks, all lots together
    size_t max_lots = 256;                     // at a time
    int64_t patience_ms = 8'000;               // with senders that are late
    int64_t idle_ms = 60'000;                  // a lot of which nothing is heard is let go
    size_t outcomes = 1024;                    // remembered for those who ask again
    Stage* ingest = nullptr;                   // at work while lots are committed; outlives them
  };
  // By slot, where records differ from the archive's: how many were kept.
  using Result = SlotIngest::Result;
  using Answer = std::function<void(const absl::StatusOr<Result>& result)>;

  WriteLots(Store& store, Clock& clock, const Options& options)
      : store_(store), clock_(clock), options_(options), patience_ms_(options.patience_ms) {}

  // Keeps the block, not durably, and returns the token that end() asks for. RESOURCE_EXHAUSTED
  // when there is no memory for it: it can be applied at once instead. Errors of the block as
  // SlotIngest::add().
  absl::StatusOr<uint64_t> add(uint64_t lot, std::span<const uint8_t> block);
  // Calls `answer` exactly once, when what the token stands for is durable or is known not to
  // become so; maybe on this thread, after committing the lot. FAILED_PRECONDITION when it was let
  // go.
  void end(uint64_t lot, const LotEnd& end, Answer answer);
  // Commits lots whose senders are late, and lets go of idle ones. To be called every now and then.
  void tick();
  // Kept now, in bytes.
  uint64_t bytes() const;

 private:
  struct Lot {
    uint64_t token = 0;
    std::shared_ptr<SlotIngest> ingest;
    int adding = 0;  // calls of add() at work
    std::set<std::string> ended;
    size_t senders = 0;    // 0: nobody has ended
    int64_t heard_ns = 0;  // last
    std::vector<Answer> waiting;
  };
  struct Outcome {
    uint64_t token = 0;
    absl::StatusOr<Result> result;
  };
  using Lots = std::map<uint64_t, std::shared_ptr<Lot>>;

  std::shared_ptr<Lot> find_or_make(uint64_t number) SLUICE_REQUIRES(mutex_);
  bool is_ready(const Lot& lot, int64_t now) const SLUICE_REQUIRES(mutex_);
  void commit(const std::shared_ptr<Lot>& lot);

  Store& store_;
  Clock& clock_;
  const Options options_;
  mutable Mutex mutex_;
  Lots lots_ SLUICE_GUARDED_BY(mutex_);
  std::deque<Outcome> outcomes_ SLUICE_GUARDED_BY(mutex_);
  uint64_t bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t last_token_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t patience_ms_ SLUICE_GUARDED_BY(mutex_);  // halves when it was in vain
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_WRITE_LOTS_H_

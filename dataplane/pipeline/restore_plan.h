// What a restore has to do: the units of an archive, handed out so that all target nodes are kept
// busy, with failed ones before new ones. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_PLAN_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_PLAN_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/pipeline/restore.h"

namespace sluice {

// Thread-safe after build().
class RestorePlan {
 public:
  // Failed units that wait for their next try, at most: beyond it no new unit is begun.
  static constexpr size_t kMaxWaiting = 1024;

  struct Unit {
    uint32_t part = 0;   // index in ArchiveReader::parts()
    uint32_t first = 0;  // index in blocks(part)
    uint32_t blocks = 0;
    uint32_t lane = 0;  // whose share of the requests it takes
    int tries = 0;
    int64_t due_ns = 0;
  };

  RestorePlan(ArchiveReader& archive, const RestoreOptions& options, Clock& clock)
      : archive_(archive), options_(options), clock_(clock) {}
  // `lane_of` names the target node that an archive slot mostly goes to; empty: the slot is left
  // out.
  absl::Status build(const std::function<absl::StatusOr<std::string>(uint32_t slot)>& lane_of);

  // A part's blocks by slot and sequence.
  const std::vector<BlockLocation>& blocks(uint32_t part) const { return blocks_[part]; }
  // The next unit to work on; waits for one. nullopt when there is nothing left, or cancelled.
  std::optional<Unit> take();
  // Returns the slot when it is complete with this unit.
  std::optional<uint32_t> done(const Unit& unit);
  // Tries the unit again later.
  void retry(Unit unit);
  // Gives the unit up. `failed` has everything but where the unit is.
  void give_up(const Unit& unit, RestoreUnit failed);
  // What was given up, by part, slot and sequence.
  std::vector<RestoreUnit> failed();

 private:
  struct Range {  // of blocks of one slot
    uint32_t part = 0;
    uint32_t next = 0;
    uint32_t end = 0;
  };
  struct Lane {
    std::deque<Range> ranges;
    size_t in_flight = 0;
  };

  absl::Status add_only();
  void add_range(const std::string& lane, const Range& range);
  std::optional<Unit> take_locked(int64_t now, bool* nothing_left);

  ArchiveReader& archive_;
  const RestoreOptions& options_;
  Clock& clock_;
  std::vector<std::vector<BlockLocation>> blocks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, uint32_t> lane_index_;
  std::vector<Lane> lanes_;
  std::deque<Unit> waiting_;                  // to be tried again
  std::map<uint32_t, uint64_t> slot_blocks_;  // not written yet
  std::vector<RestoreUnit> failed_;
  size_t in_flight_ = 0;
};

// Makes neighbours of one slot that failed for the same reason one. `failed` as failed() has it.
std::vector<RestoreUnit> coalesce(std::vector<RestoreUnit> failed);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_PLAN_H_

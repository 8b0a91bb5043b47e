// What a restore has to do: the units of an archive, handed out so that all target nodes are kept
// busy, with failed ones before new ones, and new ones lot by lot. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_PLAN_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_PLAN_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
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
    int lot = kNoLot;  // of its first try
    bool in_flight = false;
    bool counts = true;     // for its lane: one of the units that go out in one request does
    bool reported = false;  // as progress
  };
  static constexpr int kNoLot = -1;
  // Lots that are under way at a time.
  static constexpr size_t kLotsAhead = 3;
  // Something to do: units, several only of a lot and then of slots with the same replicas, for one
  // request if they fit into it; or a lot of which all units were sent, to be ended.
  struct Work {
    std::vector<Unit> units;
    int ended_lot = kNoLot;
  };

  RestorePlan(ArchiveReader& archive, const RestoreOptions& options, Clock& clock)
      : archive_(archive), options_(options), clock_(clock) {}
  using RouteOf = std::function<absl::StatusOr<SlotRoute>(uint32_t slot)>;
  // `route_of` tells who holds an archive slot, or most of it, who is to be asked first. With
  // `lots`, slots are the target cluster's, and units are handed out in lots.
  absl::Status build(const RouteOf& route_of, bool lots);

  // A part's blocks by slot and sequence.
  const std::vector<BlockLocation>& blocks(uint32_t part) const { return blocks_[part]; }
  // Of all blocks that are to be restored, and of those that an earlier run has: stored bytes.
  uint64_t total_bytes() const { return total_bytes_; }
  uint64_t bytes_before() const { return bytes_before_; }
  uint64_t bytes_of(const Unit& unit) const;
  // The next thing to do; waits for one. nullopt when there is nothing left, or cancelled.
  std::optional<Work> take();
  // All replicas retain the unit's blocks; whether it is done is known at the end of its lot.
  void retained(Unit* unit);
  // Each unit that was retained for the lot is done, retried or given up.
  void lot_done(int lot);
  // This process, among the senders of a lot.
  std::string own_sender() const;
  // Which nodes wait for the end of the lot, and for how many senders' ends.
  const std::map<std::string, uint32_t>& holders_of(int lot) const {
    return lots_[static_cast<size_t>(lot)].holders;
  }
  // Returns the slot when it is complete with this unit.
  std::optional<uint32_t> done(Unit unit);
  // Tries the unit again later.
  void retry(Unit unit);
  // Gives the unit up. `failed` has everything but where the unit is.
  void give_up(Unit unit, RestoreUnit failed);
  // What was given up, by part, slot and sequence.
  std::vector<RestoreUnit> failed();

 private:
  struct Range {  // of blocks of one slot
    uint32_t part = 0;
    uint32_t next = 0;
    uint32_t end = 0;
  };
  struct Lot {
    std::map<uint32_t, std::deque<Range>> ranges;  // by group: slots with the same replicas
    std::map<std::string, uint32_t> holders;
    size_t in_flight = 0;  // units of it, in their first try
    bool ending = false;
    bool done = false;
  };
  // The lots of one slot: usually one, which it shares with others.
  struct SlotLots {
    uint32_t first = 0;
    uint32_t count = 1;
  };

  absl::Status add_only() SLUICE_REQUIRES(mutex_);
  absl::StatusOr<std::map<uint32_t, SlotLots>> cut_lots(const RouteOf& route_of);
  absl::Status add_slot(const RouteOf& route_of, const Range& slot, const SlotLots& lots)
      SLUICE_REQUIRES(mutex_);
  // Who sends a part; the same for parts that one process sends.
  std::string sender_of(const std::string& part) const;
  uint32_t lane_of(const std::string& node) SLUICE_REQUIRES(mutex_);
  uint32_t group_of(const SlotRoute& route) SLUICE_REQUIRES(mutex_);
  void add_range(uint32_t group, uint32_t lot, const Range& range) SLUICE_REQUIRES(mutex_);
  uint32_t end_of_unit(uint32_t part, uint32_t first, uint32_t end) const;
  std::optional<Work> take_locked(int64_t now, bool* nothing_left) SLUICE_REQUIRES(mutex_);
  std::vector<Unit> take_of_lot(int lot) SLUICE_REQUIRES(mutex_);
  std::optional<uint32_t> idlest_group(const Lot& lot) const SLUICE_REQUIRES(mutex_);
  Unit take_unit(Range* range, int lot) SLUICE_REQUIRES(mutex_);
  void release(Unit* unit) SLUICE_REQUIRES(mutex_);

  ArchiveReader& archive_;
  const RestoreOptions& options_;
  Clock& clock_;
  std::vector<std::vector<BlockLocation>> blocks_;
  uint64_t total_bytes_ = 0;  // fixed after build(), as the next one
  uint64_t bytes_before_ = 0;
  Mutex mutex_;
  Condition changed_;
  std::map<std::string, uint32_t> lane_index_ SLUICE_GUARDED_BY(mutex_);
  std::vector<size_t> lane_in_flight_ SLUICE_GUARDED_BY(mutex_);  // requests
  std::map<std::vector<std::string>, uint32_t> group_index_ SLUICE_GUARDED_BY(mutex_);
  std::vector<uint32_t> group_lanes_ SLUICE_GUARDED_BY(mutex_);
  bool ends_lots_ SLUICE_GUARDED_BY(mutex_) = false;
  std::vector<Lot> lots_;  // their number and holders are fixed after build(); the rest: mutex_
  size_t first_open_ SLUICE_GUARDED_BY(mutex_) = 0;                     // lot
  std::deque<Unit> waiting_ SLUICE_GUARDED_BY(mutex_);                  // to be tried again
  std::map<uint32_t, uint64_t> slot_blocks_ SLUICE_GUARDED_BY(mutex_);  // not written yet
  std::vector<RestoreUnit> failed_ SLUICE_GUARDED_BY(mutex_);
  size_t in_flight_ SLUICE_GUARDED_BY(mutex_) = 0;  // units, and lots that are being ended
};

// Makes neighbours of one slot that failed for the same reason one. `failed` as failed() has it.
std::vector<RestoreUnit> coalesce(std::vector<RestoreUnit> failed);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_PLAN_H_

#include "dataplane/pipeline/restore_plan.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <tuple>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "dataplane/block/block.h"

namespace sluice {
namespace {

constexpr int64_t kMaxUnitBackoffMs = 5'000;
constexpr uint64_t kLeastLotBytes = 64 << 10;

bool by_slot_and_sequence(const BlockLocation& a, const BlockLocation& b) {
  return std::tie(a.slot, a.sequence) < std::tie(b.slot, b.sequence);
}

}  // namespace

absl::Status RestorePlan::build(const RouteOf& route_of, bool lots) {
  const MutexLock lock(mutex_);
  for (const ArchiveReader::Part& part : archive_.parts()) {
    blocks_.push_back(part.blocks);
    std::sort(blocks_.back().begin(), blocks_.back().end(), by_slot_and_sequence);
  }
  ends_lots_ = lots && options_.only.empty();
  if (!ends_lots_) lots_.resize(1);
  if (!options_.only.empty()) return add_only();
  std::map<uint32_t, SlotLots> cut;
  if (ends_lots_) {
    SLUICE_ASSIGN_OR_RETURN(cut, cut_lots(route_of));
  }
  for (uint32_t part = 0; part < blocks_.size(); ++part) {
    const std::vector<BlockLocation>& blocks = blocks_[part];
    for (uint32_t begin = 0; begin < blocks.size();) {
      const uint32_t slot = blocks[begin].slot;
      uint32_t end = begin;
      uint64_t bytes = 0;
      for (; end < blocks.size() && blocks[end].slot == slot; ++end) bytes += blocks[end].bytes;
      total_bytes_ += bytes;
      // Repacked slots are all read: what they hold is counted as it comes by.
      const bool left_out = ends_lots_ && options_.completed_slots.contains(slot);
      const auto known = cut.find(slot);
      if (ends_lots_ && known == cut.end()) {
        return data_loss("part {} of the archive has blocks of slot {}, its manifest none",
                         archive_.parts()[part].node, slot);
      }
      if (left_out) {
        bytes_before_ += bytes;
      } else {
        SLUICE_RETURN_IF_ERROR(
            add_slot(route_of, {part, begin, end}, ends_lots_ ? known->second : SlotLots()));
      }
      begin = end;
    }
  }
  return absl::OkStatus();
}

// The same for everybody who has the manifest and the table.
absl::StatusOr<std::map<uint32_t, RestorePlan::SlotLots>> RestorePlan::cut_lots(
    const RouteOf& route_of) {
  struct Slot {
    uint32_t slot = 0;
    uint64_t bytes = 0;
    std::string sender;
    SlotRoute route;
  };
  std::vector<Slot> slots;
  std::set<std::string> nodes;
  size_t replicas = 1;
  for (const PartManifest& part : archive_.manifest().parts) {
    for (const SlotSummary& slot : part.slots) {
      SLUICE_ASSIGN_OR_RETURN(SlotRoute route, route_of(slot.slot));
      replicas = std::max(replicas, route.replicas.size());
      for (const SlotRoute::Replica& replica : route.replicas) nodes.insert(replica.node);
      slots.push_back({slot.slot, slot.digest.bytes, part.node, std::move(route)});
    }
  }
  std::sort(slots.begin(), slots.end(),
            [](const Slot& a, const Slot& b) { return a.slot < b.slot; });
  const uint64_t lot_bytes = std::max(
      options_.lot_share_bytes * std::max(nodes.size(), replicas) / replicas, kLeastLotBytes);

  std::map<uint32_t, SlotLots> cut;
  std::vector<std::map<std::string, std::set<std::string>>> senders;  // by lot and node
  uint64_t bytes = 0;
  for (const Slot& slot : slots) {
    const uint64_t pieces = slot.bytes / lot_bytes + 1;
    if (senders.empty() || pieces > 1 || bytes + slot.bytes > lot_bytes) {
      senders.emplace_back();
      bytes = 0;
    }
    bytes += pieces > 1 ? lot_bytes : slot.bytes;
    const SlotLots lots{static_cast<uint32_t>(senders.size() - 1), static_cast<uint32_t>(pieces)};
    cut[slot.slot] = lots;
    senders.resize(lots.first + lots.count);
    for (uint32_t lot = lots.first; lot < senders.size(); ++lot) {
      for (const SlotRoute::Replica& replica : slot.route.replicas) {
        senders[lot][replica.node].insert(sender_of(slot.sender));
      }
    }
  }
  lots_.resize(senders.size());
  for (size_t lot = 0; lot < senders.size(); ++lot) {
    for (const auto& [node, names] : senders[lot]) {
      if (names.contains(own_sender())) {
        lots_[lot].holders[node] = static_cast<uint32_t>(names.size());
      }
    }
  }
  return cut;
}

std::string RestorePlan::sender_of(const std::string& part) const {
  const auto& here = archive_.parts();
  const bool own = here.size() > 1 && std::any_of(here.begin(), here.end(), [&](const auto& each) {
                     return each.node == part;
                   });
  return own || options_.together.contains(part) ? std::string() : part;
}

std::string RestorePlan::own_sender() const {
  return archive_.parts().empty() ? std::string() : sender_of(archive_.parts().front().node);
}

uint32_t RestorePlan::end_of_unit(uint32_t part, uint32_t first, uint32_t end) const {
  const std::vector<BlockLocation>& blocks = blocks_[part];
  uint32_t next = first + 1;
  while (next < end && (blocks[next - 1].flags & BlockHeader::kContinues) != 0) ++next;
  return next;
}

// The blocks of one slot of a part, cut into as many pieces as it has lots.
absl::Status RestorePlan::add_slot(const RouteOf& route_of, const Range& slot,
                                   const SlotLots& lots) {
  const std::vector<BlockLocation>& blocks = blocks_[slot.part];
  SLUICE_ASSIGN_OR_RETURN(const SlotRoute route, route_of(blocks[slot.next].slot));
  const uint32_t group = group_of(route);
  uint64_t total = 0;
  for (uint32_t i = slot.next; i < slot.end; ++i) total += blocks[i].bytes;
  uint64_t sent = 0;
  uint32_t begin = slot.next;
  for (uint32_t piece = 0; piece < lots.count; ++piece) {
    uint32_t end = begin;
    while (end < slot.end && (piece + 1 == lots.count || sent * lots.count < total * (piece + 1))) {
      const uint32_t next = end_of_unit(slot.part, end, slot.end);
      for (; end < next; ++end) sent += blocks[end].bytes;
    }
    if (begin < end) add_range(group, lots.first + piece, {slot.part, begin, end});
    begin = end;
  }
  return absl::OkStatus();
}

uint32_t RestorePlan::lane_of(const std::string& node) {
  const auto [at, added] =
      lane_index_.try_emplace(node, static_cast<uint32_t>(lane_in_flight_.size()));
  if (added) lane_in_flight_.push_back(0);
  return at->second;
}

uint32_t RestorePlan::group_of(const SlotRoute& route) {
  std::vector<std::string> nodes;
  for (const SlotRoute::Replica& replica : route.replicas) nodes.push_back(replica.node);
  std::sort(nodes.begin() + 1, nodes.end());
  const auto [at, added] =
      group_index_.try_emplace(std::move(nodes), static_cast<uint32_t>(group_lanes_.size()));
  if (added) group_lanes_.push_back(lane_of(route.replicas.front().node));
  return at->second;
}

void RestorePlan::add_range(uint32_t group, uint32_t lot, const Range& range) {
  lots_[lot].ranges[group].push_back(range);
  slot_blocks_[blocks_[range.part][range.next].slot] += range.end - range.next;
}

absl::Status RestorePlan::add_only() {
  const auto nowhere = static_cast<uint32_t>(group_lanes_.size());
  group_lanes_.push_back(lane_of(""));
  for (const RestoreUnit& unit : options_.only) {
    const auto& parts = archive_.parts();
    const auto part = std::find_if(parts.begin(), parts.end(),
                                   [&](const auto& p) { return p.node == unit.part; });
    if (part == parts.end()) {
      return not_found("part {} of the archive is not here", unit.part);
    }
    const auto index = static_cast<uint32_t>(part - parts.begin());
    const std::vector<BlockLocation>& blocks = blocks_[index];
    BlockLocation wanted;
    wanted.slot = unit.slot;
    wanted.sequence = unit.first_sequence;
    const auto at = std::lower_bound(blocks.begin(), blocks.end(), wanted, by_slot_and_sequence);
    const auto first = static_cast<size_t>(at - blocks.begin());
    if (at == blocks.end() || at->slot != unit.slot || at->sequence != unit.first_sequence ||
        unit.blocks == 0 || unit.blocks > blocks.size() - first ||
        blocks[first + unit.blocks - 1].slot != unit.slot) {
      return not_found("the archive has no blocks {} to {} of slot {}", unit.first_sequence,
                       unit.first_sequence + unit.blocks, unit.slot);
    }
    for (size_t i = first; i < first + unit.blocks; ++i) total_bytes_ += blocks[i].bytes;
    add_range(nowhere, 0,
              {index, static_cast<uint32_t>(first), static_cast<uint32_t>(first) + unit.blocks});
  }
  return absl::OkStatus();
}

std::optional<RestorePlan::Work> RestorePlan::take() {
  MutexLock lock(mutex_);
  for (;;) {
    if (options_.is_cancelled()) return std::nullopt;
    bool nothing_left = false;
    std::optional<Work> work = take_locked(clock_.monotonic_ns(), &nothing_left);
    if (work.has_value()) {
      in_flight_ += std::max<size_t>(work->units.size(), 1);
      for (Unit& unit : work->units) {
        unit.in_flight = true;
        unit.counts = &unit == work->units.data();
      }
      if (!work->units.empty()) ++lane_in_flight_[work->units.front().lane];
      return work;
    }
    if (nothing_left && in_flight_ == 0) {
      changed_.notify_all();
      return std::nullopt;
    }
    changed_.wait_for(lock, std::chrono::milliseconds(kCancellationPollMs));
  }
}

std::optional<RestorePlan::Work> RestorePlan::take_locked(int64_t now, bool* nothing_left) {
  for (auto at = waiting_.begin(); at != waiting_.end(); ++at) {
    if (at->due_ns > now || lane_in_flight_[at->lane] >= options_.requests_per_node) continue;
    const Unit unit = *at;
    waiting_.erase(at);
    return Work{{unit}};
  }
  while (first_open_ < lots_.size() && lots_[first_open_].done) ++first_open_;
  *nothing_left = waiting_.empty() && first_open_ == lots_.size();
  const size_t end = std::min(lots_.size(), first_open_ + kLotsAhead);
  for (size_t number = first_open_; number < end; ++number) {
    Lot& lot = lots_[number];
    if (lot.ending) continue;
    const int index = static_cast<int>(number);
    if (!lot.ranges.empty()) {
      if (waiting_.size() >= kMaxWaiting) return std::nullopt;
      if (std::vector<Unit> units = take_of_lot(index); !units.empty()) {
        return Work{std::move(units)};
      }
    } else if (!ends_lots_) {
      lot.ending = lot.done = true;
      return take_locked(now, nothing_left);
    } else if (lot.in_flight == 0) {
      lot.ending = true;
      return Work{{}, index};
    }
  }
  return std::nullopt;
}

// Of those that wait in the lot, for the node with the fewest requests in flight.
std::optional<uint32_t> RestorePlan::idlest_group(const Lot& lot) const {
  std::optional<uint32_t> best;
  const auto in_flight = [this](uint32_t group) SLUICE_REQUIRES(mutex_) {
    return lane_in_flight_[group_lanes_[group]];
  };
  for (const auto& [group, ranges] : lot.ranges) {
    if (in_flight(group) >= options_.requests_per_node) continue;
    if (!best.has_value() || in_flight(group) < in_flight(*best)) best = group;
  }
  return best;
}

RestorePlan::Unit RestorePlan::take_unit(Range* range, int lot) {
  Unit unit;
  unit.part = range->part;
  unit.first = range->next;
  unit.lot = ends_lots_ ? lot : kNoLot;
  range->next = end_of_unit(range->part, range->next, range->end);
  unit.blocks = range->next - unit.first;
  return unit;
}

// As many units as one request holds, and at least one.
std::vector<RestorePlan::Unit> RestorePlan::take_of_lot(int number) {
  Lot& lot = lots_[static_cast<size_t>(number)];
  std::vector<Unit> units;
  const std::optional<uint32_t> group = idlest_group(lot);
  if (!group.has_value()) return units;
  std::deque<Range>& ranges = lot.ranges.at(*group);
  uint64_t bytes = 0;
  while (!ranges.empty()) {
    Range& range = ranges.front();
    const uint32_t end = end_of_unit(range.part, range.next, range.end);
    for (uint32_t i = range.next; i < end; ++i) bytes += padded(blocks_[range.part][i].bytes);
    if (!units.empty() && (bytes > kMaxBlockBytes || !ends_lots_)) break;
    units.push_back(take_unit(&range, number));
    units.back().lane = group_lanes_[*group];
    ++lot.in_flight;
    if (range.next == range.end) ranges.pop_front();
  }
  if (ranges.empty()) lot.ranges.erase(*group);
  return units;
}

uint64_t RestorePlan::bytes_of(const Unit& unit) const {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < unit.blocks; ++i) bytes += blocks_[unit.part][unit.first + i].bytes;
  return bytes;
}

// The unit's share of the requests is free for another.
void RestorePlan::release(Unit* unit) {
  if (!unit->in_flight) return;
  unit->in_flight = false;
  if (unit->counts) --lane_in_flight_[unit->lane];
  --in_flight_;
  if (unit->lot != kNoLot) --lots_[static_cast<size_t>(unit->lot)].in_flight;
}

void RestorePlan::retained(Unit* unit) {
  {
    const MutexLock lock(mutex_);
    release(unit);
  }
  changed_.notify_one();
}

void RestorePlan::lot_done(int lot) {
  {
    const MutexLock lock(mutex_);
    lots_[static_cast<size_t>(lot)].done = true;
    --in_flight_;
  }
  changed_.notify_all();
}

std::optional<uint32_t> RestorePlan::done(Unit unit) {
  std::optional<uint32_t> complete;
  {
    const MutexLock lock(mutex_);
    release(&unit);
    const uint32_t slot = blocks_[unit.part][unit.first].slot;
    uint64_t& left = slot_blocks_[slot];
    left -= unit.blocks;
    if (left == 0) complete = slot;
  }
  changed_.notify_all();
  return complete;
}

void RestorePlan::retry(Unit unit) {
  {
    const MutexLock lock(mutex_);
    release(&unit);
    unit.lot = kNoLot;
    const int64_t backoff =
        std::min(options_.backoff_ms << std::min(unit.tries - 1, 16), kMaxUnitBackoffMs);
    unit.due_ns = clock_.monotonic_ns() + backoff * kMs;
    waiting_.push_back(unit);
  }
  changed_.notify_all();
}

void RestorePlan::give_up(Unit unit, RestoreUnit failed) {
  {
    const MutexLock lock(mutex_);
    release(&unit);
    const BlockLocation& first = blocks_[unit.part][unit.first];
    failed.part = archive_.parts()[unit.part].node;
    failed.slot = first.slot;
    failed.first_sequence = first.sequence;
    failed.blocks = unit.blocks;
    failed_.push_back(std::move(failed));
  }
  changed_.notify_all();
}

std::vector<RestoreUnit> RestorePlan::failed() {
  const MutexLock lock(mutex_);
  std::sort(failed_.begin(), failed_.end(), [](const RestoreUnit& a, const RestoreUnit& b) {
    return std::tie(a.part, a.slot, a.first_sequence) < std::tie(b.part, b.slot, b.first_sequence);
  });
  return failed_;
}

std::vector<RestoreUnit> coalesce(std::vector<RestoreUnit> failed) {
  std::vector<RestoreUnit> units;
  for (RestoreUnit& unit : failed) {
    if (!units.empty()) {
      RestoreUnit& last = units.back();
      if (last.part == unit.part && last.slot == unit.slot && last.node == unit.node &&
          last.reason == unit.reason && last.damaged == unit.damaged &&
          last.first_sequence + last.blocks == unit.first_sequence) {
        last.blocks += unit.blocks;
        last.records += unit.records;
        last.deletions += unit.deletions;
        continue;
      }
    }
    units.push_back(std::move(unit));
  }
  return units;
}

}  // namespace sluice

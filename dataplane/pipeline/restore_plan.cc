#include "dataplane/pipeline/restore_plan.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "base/status.h"
#include "dataplane/block/block.h"

namespace sluice {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kMaxBackoffMs = 5'000;

bool by_slot_and_sequence(const BlockLocation& a, const BlockLocation& b) {
  return std::tie(a.slot, a.sequence) < std::tie(b.slot, b.sequence);
}

}  // namespace

absl::Status RestorePlan::build(
    const std::function<absl::StatusOr<std::string>(uint32_t slot)>& lane_of) {
  for (const ArchiveReader::Part& part : archive_.parts()) {
    blocks_.push_back(part.blocks);
    std::sort(blocks_.back().begin(), blocks_.back().end(), by_slot_and_sequence);
  }
  if (!options_.only.empty()) {
    lane_index_.emplace("", 0);
    lanes_.emplace_back();
    return add_only();
  }
  for (uint32_t part = 0; part < blocks_.size(); ++part) {
    const std::vector<BlockLocation>& blocks = blocks_[part];
    for (uint32_t begin = 0; begin < blocks.size();) {
      const uint32_t slot = blocks[begin].slot;
      uint32_t end = begin;
      while (end < blocks.size() && blocks[end].slot == slot) ++end;
      SLUICE_ASSIGN_OR_RETURN(const std::string lane, lane_of(slot));
      if (!lane.empty()) add_range(lane, {part, begin, end});
      begin = end;
    }
  }
  return absl::OkStatus();
}

void RestorePlan::add_range(const std::string& lane, const Range& range) {
  const auto [at, added] = lane_index_.try_emplace(lane, static_cast<uint32_t>(lanes_.size()));
  if (added) lanes_.emplace_back();
  lanes_[at->second].ranges.push_back(range);
  slot_blocks_[blocks_[range.part][range.next].slot] += range.end - range.next;
}

absl::Status RestorePlan::add_only() {
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
    add_range("",
              {index, static_cast<uint32_t>(first), static_cast<uint32_t>(first) + unit.blocks});
  }
  return absl::OkStatus();
}

std::optional<RestorePlan::Unit> RestorePlan::take() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (options_.cancellation != nullptr && options_.cancellation->cancelled()) return std::nullopt;
    bool nothing_left = false;
    std::optional<Unit> unit = take_locked(clock_.monotonic_ns(), &nothing_left);
    if (unit.has_value()) {
      ++lanes_[unit->lane].in_flight;
      ++in_flight_;
      return unit;
    }
    if (nothing_left && in_flight_ == 0) {
      changed_.notify_all();
      return std::nullopt;
    }
    changed_.wait_for(lock, std::chrono::milliseconds(kCancellationPollMs));
  }
}

std::optional<RestorePlan::Unit> RestorePlan::take_locked(int64_t now, bool* nothing_left) {
  for (auto at = waiting_.begin(); at != waiting_.end(); ++at) {
    if (at->due_ns > now || lanes_[at->lane].in_flight >= options_.requests_per_node) continue;
    const Unit unit = *at;
    waiting_.erase(at);
    return unit;
  }
  *nothing_left = waiting_.empty();
  uint32_t best = 0;
  bool found = false;
  for (uint32_t lane = 0; lane < lanes_.size(); ++lane) {
    if (lanes_[lane].ranges.empty()) continue;
    *nothing_left = false;
    if (lanes_[lane].in_flight >= options_.requests_per_node) continue;
    if (!found || lanes_[lane].in_flight < lanes_[best].in_flight) best = lane;
    found = true;
  }
  if (!found || waiting_.size() >= kMaxWaiting) return std::nullopt;
  Range& range = lanes_[best].ranges.front();
  const std::vector<BlockLocation>& blocks = blocks_[range.part];
  Unit unit;
  unit.part = range.part;
  unit.first = range.next;
  unit.lane = best;
  do {
    ++unit.blocks;
    ++range.next;
  } while (range.next < range.end && (blocks[range.next - 1].flags & BlockHeader::kContinues) != 0);
  if (range.next == range.end) lanes_[best].ranges.pop_front();
  return unit;
}

std::optional<uint32_t> RestorePlan::done(const Unit& unit) {
  std::optional<uint32_t> complete;
  {
    std::lock_guard lock(mutex_);
    --lanes_[unit.lane].in_flight;
    --in_flight_;
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
    std::lock_guard lock(mutex_);
    --lanes_[unit.lane].in_flight;
    --in_flight_;
    const int64_t backoff =
        std::min(options_.backoff_ms << std::min(unit.tries - 1, 16), kMaxBackoffMs);
    unit.due_ns = clock_.monotonic_ns() + backoff * kMs;
    waiting_.push_back(unit);
  }
  changed_.notify_all();
}

void RestorePlan::give_up(const Unit& unit, RestoreUnit failed) {
  {
    std::lock_guard lock(mutex_);
    --lanes_[unit.lane].in_flight;
    --in_flight_;
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
  std::lock_guard lock(mutex_);
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

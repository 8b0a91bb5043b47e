#include "dataplane/pipeline/restore_tally.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"

namespace sluice {

void RestoreTally::count_by_manifest() {
  if (!counted_by_manifest()) return;
  const MutexLock lock(mutex_);
  for (const PartManifest& part : archive_.manifest().parts) {
    const auto& here = archive_.parts();
    if (std::none_of(here.begin(), here.end(),
                     [&](const auto& open) { return open.node == part.node; })) {
      continue;
    }
    for (const SlotSummary& slot : part.slots) {
      result_.records += slot.digest.records;
      result_.bytes += slot.digest.bytes;
      result_.expected[slot.slot] = slot.digest;
      if (options_.completed_slots.contains(slot.slot)) result_.written += slot.digest.records;
    }
  }
  result_.newest_stamp = archive_.manifest().newest_stamp;
}

void RestoreTally::report(RestorePlan::Unit* unit) {
  const MutexLock lock(mutex_);
  report_locked(unit);
}

void RestoreTally::report_locked(RestorePlan::Unit* unit) {
  if (std::exchange(unit->reported, true)) return;
  reported_bytes_ += plan_.bytes_of(*unit);
  if (options_.on_progress) {
    options_.on_progress(plan_.bytes_before() + reported_bytes_, plan_.total_bytes());
  }
}

void RestoreTally::account(RestorePlan::Unit unit, UnitTry result) {
  const bool failed = result.failure.has_value();
  const bool stopped = options_.is_cancelled();
  const MutexLock lock(mutex_);
  const bool retry = failed && !result.failure->permanent && unit.tries + 1 < options_.tries;
  if (!failed || (!retry && !stopped && !result.failure->unread)) count_unit(result);
  if (!failed) {
    report_locked(&unit);
    return count_done(unit, result);
  }
  if (retry || stopped) {  // a cancelled unit is left to the next run
    if (unit.tries++ == 0) ++result_.retried;
    plan_.retry(unit);
    return;
  }
  report_locked(&unit);
  give_up(unit, result);
}

void RestoreTally::count_done(const RestorePlan::Unit& unit, const UnitTry& result) {
  const uint32_t slot = plan_.blocks(unit.part)[unit.first].slot;
  const bool completed_before = options_.completed_slots.contains(slot);
  if (!completed_before || repack_) result_.written += result.count.records;
  ledger_.add(slot, result.holders, result.kept);
  result_.kept.add(result.kept);
  for (const auto& [name, node] : result.nodes) {
    result_.nodes[name].records += node.records;
    result_.nodes[name].bytes += node.bytes;
  }
  if (plan_.done(unit).has_value() && options_.only.empty()) {
    const std::optional<RestoredSlot> restored = ledger_.complete(slot);
    if (restored.has_value() && !completed_before && options_.on_slot_complete) {
      options_.on_slot_complete(*restored);
    }
  }
}

void RestoreTally::give_up(const RestorePlan::Unit& unit, const UnitTry& result) {
  RestoreUnit failed;
  failed.node = result.failure->node;
  failed.reason = message_of(result.failure->status);
  failed.damaged = result.failure->permanent && result.failure->unread;
  if (!result.failure->unread) {
    failed.records = result.count.records;
    failed.deletions = result.count.deletions;
  }
  plan_.give_up(unit, std::move(failed));
}

void RestoreTally::count_unit(const UnitTry& result) {
  if (counted_by_manifest()) return;
  result_.records += result.count.records;
  result_.bytes += result.count.bytes;
  result_.newest_stamp = std::max(result_.newest_stamp, result.newest_stamp);
  for (const auto& [slot, digest] : result.digests) {
    SlotDigest& sum = result_.expected[slot];
    sum.sum += digest.sum;
    sum.records += digest.records;
    sum.tombstones += digest.tombstones;
    sum.bytes += digest.bytes;
  }
}

absl::StatusOr<RestoreResult> RestoreTally::finish(BlockBuffer buffer) {
  const MutexLock lock(mutex_);
  result_.cancelled = options_.is_cancelled();
  std::vector<RestoreUnit> failed = plan_.failed();
  std::vector<RestoreUnit*> unread;
  for (RestoreUnit& unit : failed) {
    if (unit.records + unit.deletions == 0) unread.push_back(&unit);
  }
  if (!unread.empty()) SLUICE_RETURN_IF_ERROR(count_unread(archive_, unread, buffer));
  for (const RestoreUnit* unit : unread) {
    if (!counted_by_manifest()) result_.records += unit->records;
  }
  for (const RestoreUnit& unit : failed) {
    result_.failed_records += unit.records;
    result_.failed_deletions += unit.deletions;
  }
  result_.failed = coalesce(std::move(failed));
  return std::move(result_);
}

}  // namespace sluice

#include "dataplane/pipeline/restore_ledger.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "base/status.h"
#include "dataplane/block/block.h"

namespace sluice {
namespace {

struct Counts {
  uint64_t records = 0;
  uint64_t deletions = 0;
  bool known = true;
};

// What the readable units of a slot hold.
Counts count_readable(ArchiveReader& archive, size_t part, uint32_t slot,
                      const std::set<uint32_t>& unread, BlockBuffer& buffer) {
  Counts counts;
  for (const BlockLocation& location : archive.parts()[part].blocks) {
    if (location.slot != slot || unread.contains(location.sequence)) continue;
    absl::Status status = archive.read_block(part, location, buffer.span());
    absl::StatusOr<BlockReader> reader = status;
    if (status.ok()) reader = BlockReader::open({buffer.data(), location.bytes});
    status = reader.status();
    BlockEntry entry;
    while (status.ok()) {
      const absl::StatusOr<bool> more = reader->next(&entry);
      status = more.status();
      if (!status.ok() || !*more) break;
      if (entry.tombstone) {
        ++counts.deletions;
      } else if (entry.last()) {
        ++counts.records;
      }
    }
    if (!status.ok()) counts.known = false;
  }
  return counts;
}

const SlotSummary* find_slot(const Manifest& manifest, const std::string& node, uint32_t slot) {
  for (const PartManifest& part : manifest.parts) {
    if (part.node != node) continue;
    for (const SlotSummary& each : part.slots) {
      if (each.slot == slot) return &each;
    }
  }
  return nullptr;
}

// Records of blocks that share values: each value that goes on in a next block has an entry in
// both.
uint64_t records_in(const std::vector<BlockLocation>& blocks, const RestoreUnit& unit) {
  uint64_t records = 0;
  for (const BlockLocation& block : blocks) {
    if (block.slot != unit.slot || block.sequence < unit.first_sequence ||
        block.sequence - unit.first_sequence >= unit.blocks) {
      continue;
    }
    records += block.entries;
    if ((block.flags & BlockHeader::kContinued) != 0) --records;
  }
  return records;
}

}  // namespace

void SlotLedger::Unit::add(uint64_t epoch, const std::vector<WriteReply::Holder>& holders) {
  mixed_ = mixed_ || (!stores_.empty() && epoch != epoch_);
  epoch_ = epoch;
  for (const WriteReply::Holder& holder : holders) {
    const auto [at, added] = stores_.try_emplace(holder.node, holder.store);
    mixed_ = mixed_ || (!added && at->second != holder.store);
  }
}

uint32_t SlotLedger::index_of(const std::string& node, const std::string& store) {
  const auto [at, added] =
      indexes_.try_emplace({node, store}, static_cast<uint32_t>(stores_.size()));
  if (added) stores_.push_back(at->first);
  return at->second;
}

void SlotLedger::add(uint32_t slot, const Unit& unit, const KeptRecords& kept) {
  Slot& sum = slots_[slot];
  sum.kept.add(kept);
  sum.mixed = sum.mixed || unit.mixed_;
  // A unit without a record that was asked for went to nobody.
  if (unit.stores_.empty()) return;
  sum.mixed = sum.mixed || (sum.begun && sum.epoch != unit.epoch_);
  sum.begun = true;
  sum.epoch = unit.epoch_;
  for (const auto& [node, store] : unit.stores_) {
    const uint32_t index = index_of(node, store);
    if (std::find(sum.stores.begin(), sum.stores.end(), index) != sum.stores.end()) continue;
    const auto is_of_node = [&, &name = node](uint32_t other) {
      return stores_[other].node == name;
    };
    sum.mixed = sum.mixed || std::any_of(sum.stores.begin(), sum.stores.end(), is_of_node);
    sum.stores.push_back(index);
  }
}

std::optional<RestoredSlot> SlotLedger::complete(uint32_t slot) {
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return std::nullopt;
  const Slot sum = std::move(found->second);
  slots_.erase(found);
  if (sum.mixed || !sum.begun) return std::nullopt;
  RestoredSlot restored{slot, sum.epoch, sum.kept, {}};
  for (const uint32_t index : sum.stores) restored.holders.push_back(stores_[index]);
  std::sort(restored.holders.begin(), restored.holders.end());
  return restored;
}

absl::Status count_unread(ArchiveReader& archive, const std::vector<RestoreUnit*>& units,
                          BlockBuffer& buffer) {
  std::map<std::pair<std::string, uint32_t>, std::vector<RestoreUnit*>> by_slot;
  for (RestoreUnit* unit : units) by_slot[{unit->part, unit->slot}].push_back(unit);
  for (auto& [where, here] : by_slot) {
    const auto& [node, slot] = where;
    const auto& parts = archive.parts();
    const auto part = std::find_if(parts.begin(), parts.end(),
                                   [&name = node](const auto& p) { return p.node == name; });
    if (part == parts.end()) return not_found("part {} of the archive is not here", node);
    std::set<uint32_t> unread;
    uint64_t total = 0;
    for (RestoreUnit* unit : here) {
      for (uint32_t i = 0; i < unit->blocks; ++i) unread.insert(unit->first_sequence + i);
      unit->records = records_in(part->blocks, *unit);
      unit->deletions = 0;
      total += unit->records;
    }
    const SlotSummary* summary = find_slot(archive.manifest(), node, slot);
    const Counts read =
        count_readable(archive, static_cast<size_t>(part - parts.begin()), slot, unread, buffer);
    if (!read.known || summary == nullptr || summary->digest.records < read.records) continue;
    uint64_t live = summary->digest.records - read.records;
    if (live + summary->digest.tombstones != total + read.deletions) continue;
    for (RestoreUnit* unit : here) {
      const uint64_t all = unit->records;
      unit->records = std::min(all, live);
      unit->deletions = all - unit->records;
      live -= unit->records;
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice

#include "dataplane/archive/record_reader.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "dataplane/archive/slot_check.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<RecordReader>> RecordReader::open(ArchiveReader& archive) {
  std::unique_ptr<RecordReader> reader(new RecordReader(archive));
  SLUICE_RETURN_IF_ERROR(reader->load());
  return reader;
}

absl::Status RecordReader::load() {
  SLUICE_ASSIGN_OR_RETURN(arena_, Arena::create({.bytes = kBufferBytes}));
  SLUICE_ASSIGN_OR_RETURN(pool_, arena_->make_pool("reading records", 1));
  buffer_ = pool_->try_take();
  const auto& parts = archive_.parts();
  for (size_t part = 0; part < parts.size(); ++part) {
    for (const BlockLocation& location : parts[part].blocks) {
      const auto [found, made] = slots_.try_emplace(location.slot);
      if (made) found->second.part = part;
      if (found->second.part != part) {
        return data_loss("slot {} is in the parts of {} and {}", location.slot,
                         parts[found->second.part].node, parts[part].node);
      }
      found->second.blocks.push_back(location);
    }
    for (const PartManifest& listed : archive_.manifest().parts) {
      if (listed.node != parts[part].node) continue;
      for (const SlotSummary& summary : listed.slots) {
        const auto found = slots_.find(summary.slot);
        if (found != slots_.end()) found->second.digest = summary.digest;
      }
    }
  }
  for (auto& [number, slot] : slots_) {
    std::sort(
        slot.blocks.begin(), slot.blocks.end(),
        [](const BlockLocation& a, const BlockLocation& b) { return a.sequence < b.sequence; });
  }
  return absl::OkStatus();
}

absl::Status RecordReader::read_block(const Slot& slot, const BlockLocation& location) {
  if (loaded_ == &location) return absl::OkStatus();
  loaded_ = nullptr;
  SLUICE_RETURN_IF_ERROR(archive_.read_block(slot.part, location, buffer_.span()));
  loaded_ = &location;
  return absl::OkStatus();
}

// As ArchiveReader::read_block() names the place.
absl::Status RecordReader::at(const Slot& slot, const BlockLocation& location,
                              const absl::Status& status) const {
  return with_context(status,
                      fmt::format("{}/{} at {}, slot {}", archive_.parts()[slot.part].folder,
                                  segment_file(location.segment), location.offset, location.slot));
}

// Hands out what SlotCheck has found good, with its value put together.
struct RecordReader::Scanning {
  absl::Status take(const BlockEntry& entry, const RecordSummary* record) {
    if (entry.key <= after || (scan.takes && !scan.takes(entry.key))) return absl::OkStatus();
    const bool wanted = entry.value_bytes <= scan.value_bytes;
    if (record == nullptr) {
      if (entry.fragment_offset == 0) value.clear();
      if (wanted) value.append(entry.fragment);
      return absl::OkStatus();
    }
    out.key = entry.key;
    out.summary = *record;
    out.value = {};
    if (wanted && entry.whole()) out.value = entry.fragment;
    if (wanted && !entry.whole()) out.value = value.append(entry.fragment);
    visited = visit(out);
    return visited;
  }

  const RecordScan& scan;
  const Visit& visit;
  std::string_view after;
  ArchivedRecord out;
  std::string value;
  absl::Status visited;  // the visitor's error is not damage
};

absl::Status RecordReader::scan_slot(uint32_t number, const Slot& slot, const RecordScan& scan,
                                     const Visit& visit) {
  Scanning scanning{scan, visit, number == scan.first_slot ? scan.after : std::string_view(),
                    {},   {},    {}};
  scanning.out.slot = number;
  scanning.out.part = slot.part;
  std::optional<SlotCheck> check(std::in_place);
  bool skipped = false;
  for (size_t i = 0; i < slot.blocks.size(); ++i) {
    const BlockLocation& location = slot.blocks[i];
    if (scan.before_block) SLUICE_RETURN_IF_ERROR(scan.before_block(number));
    absl::Status status = read_block(slot, location);
    if (status.ok()) {
      status = check->add_block(location, bytes_of(location), archive_.manifest().newest_stamp,
                                [&](const BlockEntry& entry, const RecordSummary* record) {
                                  return scanning.take(entry, record);
                                });
      SLUICE_RETURN_IF_ERROR(scanning.visited);
      if (!status.ok()) status = at(slot, location, status);
    }
    if (status.ok()) continue;
    if (!scan.skip_damage || !absl::IsDataLoss(status)) return status;
    scan.skip_damage(status);
    skipped = true;
    check.emplace(static_cast<uint32_t>(i + 1));
  }
  if (skipped) return absl::OkStatus();
  absl::Status status;
  if (!check->whole()) {
    status = data_loss("the slot's last value is not whole");
  } else if (check->digest() != slot.digest) {
    status = data_loss("the slot does not have the digest that the manifest says");
  }
  if (status.ok()) return status;
  status = at(slot, slot.blocks.back(), status);
  if (!scan.skip_damage) return status;
  scan.skip_damage(status);
  return absl::OkStatus();
}

absl::Status RecordReader::scan(const RecordScan& scan, const Visit& visit) {
  for (auto slot = slots_.lower_bound(scan.first_slot); slot != slots_.end(); ++slot) {
    if (scan.has && !scan.has(slot->first)) continue;
    SLUICE_RETURN_IF_ERROR(scan_slot(slot->first, slot->second, scan, visit));
  }
  return absl::OkStatus();
}

absl::StatusOr<RecordReader::Side> RecordReader::side_of(const Slot& slot, size_t block,
                                                         std::string_view key) {
  const BlockLocation& location = slot.blocks[block];
  SLUICE_RETURN_IF_ERROR(read_block(slot, location));
  const auto side = [&]() -> absl::StatusOr<Side> {
    SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open_verified(bytes_of(location)));
    SLUICE_ASSIGN_OR_RETURN(const std::string_view last, reader.last_key());
    if (last < key) return Side::kBefore;
    SLUICE_ASSIGN_OR_RETURN(const std::string_view first, reader.first_key());
    if (first != key) return first < key ? Side::kHolds : Side::kBehind;
    // Its value may begin in the block before.
    BlockEntry entry;
    SLUICE_ASSIGN_OR_RETURN(const bool any, reader.next(&entry));
    return any && entry.fragment_offset == 0 ? Side::kHolds : Side::kBehind;
  }();
  if (!side.ok()) return at(slot, location, side.status());
  return side;
}

// On which side of a damaged block a key is, the next one that can be read says. So damage is in
// the way of those keys alone that it may hold.
absl::StatusOr<size_t> RecordReader::find_block(const Slot& slot, std::string_view key) {
  size_t first = 0;
  size_t end = slot.blocks.size();
  size_t damaged = end;
  absl::Status damage;
  while (first < end) {
    const size_t middle = first + (end - first) / 2;
    size_t probed = middle;
    absl::StatusOr<Side> side = side_of(slot, probed, key);
    if (!side.ok() && absl::IsDataLoss(side.status())) {
      damaged = middle;
      damage = side.status();
    }
    while (absl::IsDataLoss(side.status()) && probed + 1 < end) {
      side = side_of(slot, ++probed, key);
    }
    if (!side.ok() && !absl::IsDataLoss(side.status())) return side.status();
    if (side.ok() && *side == Side::kBefore) {
      first = probed + 1;
    } else if (side.ok() && *side == Side::kHolds && probed != middle) {
      return probed;
    } else {
      end = middle;
    }
  }
  if (first == damaged && !damage.ok()) return damage;
  return first;
}

absl::StatusOr<std::optional<RecordSummary>> RecordReader::read(std::string_view key,
                                                                const VisitFragment& visit) {
  const uint32_t bits = archive_.manifest().identity.slot_bits;
  const auto found =
      slots_.find(archive_.tree() == 0 ? slot_of(key, bits)
                                       : tree_slot(archive_.tree(), tree_shard_of(key, bits)));
  if (found == slots_.end()) return std::nullopt;
  const Slot& slot = found->second;
  SLUICE_ASSIGN_OR_RETURN(size_t block, find_block(slot, key));
  std::optional<RecordSummary> result;
  bool begun = false;
  SlotCheck check(static_cast<uint32_t>(block));
  for (; block < slot.blocks.size() && !result.has_value(); ++block) {
    const BlockLocation& location = slot.blocks[block];
    SLUICE_RETURN_IF_ERROR(read_block(slot, location));
    absl::Status visited;
    const absl::Status status =
        check.add_block(location, bytes_of(location), archive_.manifest().newest_stamp,
                        [&](const BlockEntry& entry, const RecordSummary* record) {
                          if (entry.key != key) return absl::OkStatus();
                          begun = true;
                          if (record != nullptr) result = *record;
                          visited = visit(entry);
                          return visited;
                        });
    SLUICE_RETURN_IF_ERROR(visited);
    if (!status.ok()) return at(slot, location, status);
    // The block holds keys beyond it, or its first fragments.
    if (!begun) return std::nullopt;
  }
  if (begun && !result.has_value()) {
    return at(slot, slot.blocks.back(), data_loss("the slot's last value is not whole"));
  }
  return result;
}

}  // namespace sluice

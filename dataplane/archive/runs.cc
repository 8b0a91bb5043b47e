#include "dataplane/archive/runs.h"

#include <algorithm>
#include <tuple>

#include "base/status.h"
#include "dataplane/block/block.h"

namespace sluice {
namespace {

struct Run {
  size_t first;
  size_t blocks;
};

absl::Status check_slot_order(const std::vector<BlockLocation>& blocks) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    const BlockLocation& block = blocks[i];
    const bool first = i == 0 || blocks[i - 1].slot != block.slot;
    const bool last = i + 1 == blocks.size() || blocks[i + 1].slot != block.slot;
    const uint32_t expected = first ? 0 : blocks[i - 1].sequence + 1;
    if (block.sequence != expected) {
      return data_loss("slot {}: block {} is not listed", block.slot, expected);
    }
    const bool continued = (block.flags & BlockHeader::kContinued) != 0;
    const bool before = !first && (blocks[i - 1].flags & BlockHeader::kContinues) != 0;
    if (continued != before || (last && (block.flags & BlockHeader::kContinues) != 0)) {
      return data_loss("slot {}: a value that spans blocks is not whole at block {}", block.slot,
                       block.sequence);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<BlockLocation>> order_runs(std::vector<BlockLocation> blocks) {
  std::sort(blocks.begin(), blocks.end(), [](const BlockLocation& a, const BlockLocation& b) {
    return std::tie(a.slot, a.sequence) < std::tie(b.slot, b.sequence);
  });
  SLUICE_RETURN_IF_ERROR(check_slot_order(blocks));
  std::vector<Run> runs;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if ((blocks[i].flags & BlockHeader::kContinued) != 0) {
      ++runs.back().blocks;
    } else {
      runs.push_back({i, 1});
    }
  }
  std::sort(runs.begin(), runs.end(), [&blocks](const Run& a, const Run& b) {
    return std::tie(blocks[a.first].segment, blocks[a.first].offset) <
           std::tie(blocks[b.first].segment, blocks[b.first].offset);
  });
  std::vector<BlockLocation> ordered;
  ordered.reserve(blocks.size());
  for (const Run& run : runs) {
    const auto first = blocks.begin() + static_cast<std::ptrdiff_t>(run.first);
    ordered.insert(ordered.end(), first, first + static_cast<std::ptrdiff_t>(run.blocks));
  }
  return ordered;
}

}  // namespace sluice

#include "control/table/table.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_set>

#include "base/random.h"
#include "base/status.h"
#include "control/table/builder.h"

namespace sluice {
namespace {

absl::Status check_member(const TableMember& member) {
  if (member.name.empty() || member.name.size() > 255 || member.rack.size() > 255) {
    return invalid_argument(
        "member '{}': its name has {} bytes and its rack {}; 1 to 255 and at most 255", member.name,
        member.name.size(), member.rack.size());
  }
  if (member.number == 0) return invalid_argument("member '{}' has no number", member.name);
  if (!std::isfinite(member.weight) || member.weight <= 0) {
    return invalid_argument("member '{}' has weight {}; it must be a number above 0", member.name,
                            member.weight);
  }
  return absl::OkStatus();
}

absl::Status check(const DistributionTable* previous, const TableInput& input) {
  if (input.slot_bits < 1 || input.slot_bits > kMaxTableSlotBits) {
    return invalid_argument("slot_bits {}; 1 to {} are possible", input.slot_bits,
                            kMaxTableSlotBits);
  }
  if (previous != nullptr && previous->slot_bits() != input.slot_bits) {
    return invalid_argument("slot_bits {} cannot change: the table of epoch {} has {}",
                            input.slot_bits, previous->epoch(), previous->slot_bits());
  }
  if (input.replicas < 1 || input.replicas > kMaxReplicas) {
    return invalid_argument("{} replicas; 1 to {} are possible", input.replicas, kMaxReplicas);
  }
  if (input.members.size() < input.replicas) {
    return invalid_argument("{} replicas of each slot need {} members; there are {}",
                            input.replicas, input.replicas, input.members.size());
  }
  if (input.members.size() > kMaxTableMembers) {
    return invalid_argument("{} members; at most {}", input.members.size(), kMaxTableMembers);
  }
  std::unordered_set<std::string_view> names;
  std::unordered_set<uint32_t> numbers;
  for (const TableMember& member : input.members) {
    SLUICE_RETURN_IF_ERROR(check_member(member));
    if (!names.insert(member.name).second) {
      return invalid_argument("member '{}' is there twice", member.name);
    }
    if (!numbers.insert(member.number).second) {
      return invalid_argument("number {} of member '{}' is there twice", member.number,
                              member.name);
    }
  }
  return absl::OkStatus();
}

std::vector<double> weights_of(const std::vector<TableMember>& members) {
  std::vector<double> weights;
  weights.reserve(members.size());
  for (const TableMember& member : members) weights.push_back(member.weight);
  return weights;
}

// Numbers racks in the order in which members meet them.
std::vector<uint32_t> racks_of(const std::vector<TableMember>& members) {
  std::map<std::string_view, uint32_t> known;
  std::vector<uint32_t> racks;
  uint32_t next = 0;
  for (const TableMember& member : members) {
    if (member.rack.empty()) {
      racks.push_back(next++);
      continue;
    }
    const auto [found, is_new] = known.emplace(member.rack, next);
    if (is_new) ++next;
    racks.push_back(found->second);
  }
  return racks;
}

// The previous table's copies as indexes of the new members.
std::vector<uint16_t> translated(const DistributionTable& previous,
                                 const std::vector<TableMember>& members) {
  std::map<uint32_t, uint16_t> by_number;
  for (size_t i = 0; i < members.size(); ++i) {
    by_number.emplace(members[i].number, static_cast<uint16_t>(i));
  }
  std::vector<uint16_t> to_new;
  for (const TableMember& member : previous.members()) {
    const auto found = by_number.find(member.number);
    to_new.push_back(found == by_number.end() ? table::kHole : found->second);
  }
  std::vector<uint16_t> layout;
  layout.reserve(size_t{previous.slots()} * previous.replicas());
  for (uint32_t slot = 0; slot < previous.slots(); ++slot) {
    for (const uint16_t member : previous.replicas_of(slot)) layout.push_back(to_new[member]);
  }
  return layout;
}

// Copies of each member.
std::vector<uint32_t> counts_of(std::span<const uint16_t> layout, size_t members) {
  std::vector<uint32_t> held(members);
  for (const uint16_t member : layout) {
    if (member != table::kHole) ++held[member];
  }
  return held;
}

void count_moves(std::span<const uint16_t> earlier, uint32_t width, TableChange& change) {
  const DistributionTable& table = change.table;
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    const auto old_members = earlier.subspan(size_t{slot} * width, width);
    for (const uint16_t member : table.replicas_of(slot)) {
      if (std::find(old_members.begin(), old_members.end(), member) == old_members.end()) {
        ++change.moved;
      }
    }
  }
  const std::vector<uint32_t> held = counts_of(earlier, table.members().size());
  const std::vector<uint32_t> now = table.copies();
  for (size_t m = 0; m < now.size(); ++m) {
    if (now[m] > held[m]) change.moved_minimum += now[m] - held[m];
  }
}

}  // namespace

absl::StatusOr<TableChange> compute_table(const DistributionTable* previous,
                                          const TableInput& input) {
  SLUICE_RETURN_IF_ERROR(check(previous, input));
  TableChange change;
  DistributionTable& table = change.table;
  table.epoch_ = previous == nullptr ? 1 : previous->epoch() + 1;
  table.slot_bits_ = input.slot_bits;
  table.replicas_ = input.replicas;
  table.seed_ = input.seed;
  table.members_ = input.members;
  std::sort(table.members_.begin(), table.members_.end(),
            [](const TableMember& a, const TableMember& b) { return a.number < b.number; });

  const std::vector<double> weights = weights_of(table.members_);
  std::vector<uint16_t> earlier;
  std::vector<uint16_t> earlier_primaries;
  std::vector<uint32_t> held;
  if (previous != nullptr) {
    earlier = translated(*previous, table.members_);
    held = counts_of(earlier, table.members_.size());
  }
  table::Builder builder(
      table.slots(), table.replicas(), copy_quotas(weights, table.replicas(), table.slots(), held),
      racks_of(table.members_), Random::mix(input.seed) ^ Random::mix(~table.epoch_));
  if (previous == nullptr) {
    builder.fill();
  } else {
    builder.refill(earlier, previous->replicas());
    for (size_t i = 0; i < earlier.size(); i += previous->replicas()) {
      earlier_primaries.push_back(earlier[i]);
    }
  }
  if (!builder.is_complete()) {
    return internal_error("no table of {} replicas for {} members was found", table.replicas(),
                          table.members_.size());
  }
  builder.choose_primaries(copy_quotas(weights, 1, table.slots()), earlier_primaries);
  table.assignment_ = builder.take();
  if (previous != nullptr) count_moves(earlier, previous->replicas(), change);
  return change;
}

bool DistributionTable::holds(uint32_t slot, uint32_t member) const {
  const auto members = replicas_of(slot);
  return std::find(members.begin(), members.end(), member) != members.end();
}

int DistributionTable::find_member(std::string_view name) const {
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

int DistributionTable::find_number(uint32_t number) const {
  const auto found =
      std::lower_bound(members_.begin(), members_.end(), number,
                       [](const TableMember& member, uint32_t n) { return member.number < n; });
  if (found == members_.end() || found->number != number) return -1;
  return static_cast<int>(found - members_.begin());
}

std::vector<uint32_t> DistributionTable::copies() const {
  std::vector<uint32_t> copies(members_.size());
  for (const uint16_t member : assignment_) ++copies[member];
  return copies;
}

std::vector<uint32_t> DistributionTable::primaries() const {
  std::vector<uint32_t> primaries(members_.size());
  for (uint32_t slot = 0; slot < slots(); ++slot) ++primaries[replicas_of(slot)[0]];
  return primaries;
}

std::vector<double> DistributionTable::ideal_copies() const {
  std::vector<double> ideal = ideal_shares(weights_of(members_), replicas_);
  for (double& share : ideal) share *= slots();
  return ideal;
}

double imbalance(const DistributionTable& table) {
  const std::vector<double> ideal = table.ideal_copies();
  const std::vector<uint32_t> copies = table.copies();
  double worst = 0;
  for (size_t m = 0; m < copies.size(); ++m) worst = std::max(worst, copies[m] / ideal[m]);
  return worst;
}

double worst_deviation(const DistributionTable& table) {
  const std::vector<double> ideal = table.ideal_copies();
  const std::vector<uint32_t> copies = table.copies();
  double worst = 0;
  for (size_t m = 0; m < copies.size(); ++m)
    worst = std::max(worst, std::abs(copies[m] - ideal[m]));
  return worst;
}

}  // namespace sluice

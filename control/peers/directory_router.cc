#include "control/peers/directory_router.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/status.h"

namespace sluice {
namespace {

// Live ones first.
std::vector<SlotRoute::Replica> replicas_of(const Directory::Snapshot& snapshot,
                                            const std::vector<uint16_t>& members) {
  std::vector<SlotRoute::Replica> replicas;
  std::vector<SlotRoute::Replica> down;
  for (const uint16_t index : members) {
    const std::string& name = snapshot.table->members()[index].name;
    const Member* member = snapshot.find(name);
    (member != nullptr && member->live ? replicas : down)
        .push_back({name, member == nullptr ? std::string() : member->info.data_address});
  }
  std::move(down.begin(), down.end(), std::back_inserter(replicas));
  return replicas;
}

}  // namespace

absl::Status DirectoryRouter::place(std::shared_ptr<const Directory::Snapshot> snapshot) {
  if (placed_ == snapshot) return absl::OkStatus();
  if (snapshot->table == nullptr) return unavailable("the cluster has no distribution table yet");
  const DistributionTable& table = *snapshot->table;
  auto placement = std::make_shared<SlotPlacement>();
  auto first_of = std::make_shared<std::vector<uint8_t>>();
  placement->epoch = snapshot->epoch();
  placement->slot_bits = table.slot_bits();
  placement->group_of.reserve(table.slots());
  first_of->reserve(table.slots());
  std::map<std::vector<uint16_t>, uint32_t> groups;
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    const auto replicas = table.replicas_of(slot);
    std::vector<uint16_t> members(replicas.begin(), replicas.end());
    const std::string& first = table.members()[members.front()].name;
    std::sort(members.begin(), members.end());
    const auto [group, added] =
        groups.try_emplace(members, static_cast<uint32_t>(placement->groups.size()));
    if (added) placement->groups.push_back(replicas_of(*snapshot, members));
    placement->group_of.push_back(group->second);
    const auto& placed = placement->groups[group->second];
    const auto at = std::find_if(placed.begin(), placed.end(),
                                 [&](const auto& replica) { return replica.node == first; });
    first_of->push_back(snapshot->live(first) ? static_cast<uint8_t>(at - placed.begin()) : 0);
  }
  placement_ = std::move(placement);
  first_of_ = std::move(first_of);
  placed_ = std::move(snapshot);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const SlotPlacement>> DirectoryRouter::placement() {
  const MutexLock lock(mutex_);
  SLUICE_RETURN_IF_ERROR(place(directory_.snapshot()));
  return placement_;
}

absl::StatusOr<SlotRoute> DirectoryRouter::route(uint32_t slot) {
  std::shared_ptr<const SlotPlacement> all;
  std::shared_ptr<const std::vector<uint8_t>> first_of;
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(place(directory_.snapshot()));
    all = placement_;
    first_of = first_of_;
  }
  if (slot >= all->group_of.size()) return invalid_argument("there is no slot {}", slot);
  SlotRoute route{all->epoch, all->groups[all->group_of[slot]]};
  std::swap(route.replicas.front(), route.replicas[(*first_of)[slot]]);
  return route;
}

void DirectoryRouter::refresh() {
  directory_.refresh().IgnoreError();  // the old snapshot goes on to serve; route() is asked again
}

}  // namespace sluice

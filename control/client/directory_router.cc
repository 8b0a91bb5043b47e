#include "control/client/directory_router.h"

#include <algorithm>

#include "base/status.h"

namespace sluice {

absl::StatusOr<SlotRoute> DirectoryRouter::route(uint32_t slot) {
  const auto snapshot = directory_.snapshot();
  if (snapshot->table == nullptr) return unavailable("the cluster has no distribution table yet");
  if (slot >= snapshot->table->slots()) return invalid_argument("there is no slot {}", slot);
  SlotRoute route;
  route.epoch = snapshot->epoch();
  std::vector<SlotRoute::Replica> down;
  for (const uint16_t index : snapshot->table->replicas_of(slot)) {
    const std::string& name = snapshot->table->members()[index].name;
    const Member* member = snapshot->find(name);
    auto& replicas = member != nullptr && member->live ? route.replicas : down;
    replicas.push_back({name, member == nullptr ? std::string() : member->info.data_address});
  }
  std::move(down.begin(), down.end(), std::back_inserter(route.replicas));
  return route;
}

void DirectoryRouter::refresh() {
  directory_.refresh().IgnoreError();  // the old snapshot goes on to serve; route() is asked again
}

}  // namespace sluice

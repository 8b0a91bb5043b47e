// What the dataplane needs of the distribution table: where a slot's records go. The control plane
// implements it.
#ifndef SLUICE_DATAPLANE_PIPELINE_SLOT_ROUTER_H_
#define SLUICE_DATAPLANE_PIPELINE_SLOT_ROUTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

struct SlotRoute {
  struct Replica {
    std::string node;
    std::string address;  // of its data listener
  };
  uint64_t epoch = 0;
  std::vector<Replica> replicas;  // the first one is asked first
};

// Where all slots go, by one table: slots with the same replicas are one group.
struct SlotPlacement {
  uint64_t epoch = 0;
  uint32_t slot_bits = 0;
  std::vector<uint32_t> group_of;                       // by slot
  std::vector<std::vector<SlotRoute::Replica>> groups;  // those first that are asked first
};

// Thread-safe; called once for each block, so it should answer from memory.
class SlotRouter {
 public:
  virtual ~SlotRouter() = default;
  virtual uint32_t slot_bits() const = 0;
  virtual uint64_t epoch() const = 0;
  // The route and its epoch, from one table.
  virtual absl::StatusOr<SlotRoute> route(uint32_t slot) = 0;
  // The same for all slots; never null when OK.
  virtual absl::StatusOr<std::shared_ptr<const SlotPlacement>> placement() = 0;
  // A node refused a request because it has another epoch: look for a newer table. May wait a
  // little (bounded); errors are left for the next route().
  virtual void refresh() = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SLOT_ROUTER_H_

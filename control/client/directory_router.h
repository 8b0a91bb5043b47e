// A cluster's distribution table, as the dataplane asks for it.
#ifndef SLUICE_CONTROL_CLIENT_DIRECTORY_ROUTER_H_
#define SLUICE_CONTROL_CLIENT_DIRECTORY_ROUTER_H_

#include "control/client/directory.h"
#include "dataplane/pipeline/slot_router.h"

namespace sluice {

// Thread-safe. The directory must outlive it.
class DirectoryRouter final : public SlotRouter {
 public:
  explicit DirectoryRouter(Directory& directory) : directory_(directory) {}
  uint32_t slot_bits() const override { return directory_.cluster().slot_bits; }
  uint64_t epoch() const override { return directory_.snapshot()->epoch(); }
  // Live replicas first: the first one takes requests for all.
  absl::StatusOr<SlotRoute> route(uint32_t slot) override;
  void refresh() override;

 private:
  Directory& directory_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_DIRECTORY_ROUTER_H_

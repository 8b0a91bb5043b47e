// A cluster's distribution table, as the dataplane asks for it.
#ifndef SLUICE_CONTROL_PEERS_DIRECTORY_ROUTER_H_
#define SLUICE_CONTROL_PEERS_DIRECTORY_ROUTER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "control/peers/directory.h"
#include "dataplane/pipeline/slot_router.h"

namespace sluice {

// Thread-safe. The directory must outlive it.
class DirectoryRouter final : public SlotRouter {
 public:
  explicit DirectoryRouter(Directory& directory) : directory_(directory) {}
  uint32_t slot_bits() const override { return directory_.cluster().slot_bits; }
  uint64_t epoch() const override { return directory_.snapshot()->epoch(); }
  // Live replicas first, of these the one that the table names first: it takes requests for all.
  absl::StatusOr<SlotRoute> route(uint32_t slot) override;
  absl::StatusOr<std::shared_ptr<const SlotPlacement>> placement() override;
  void refresh() override;

 private:
  absl::Status place(std::shared_ptr<const Directory::Snapshot> snapshot) SLUICE_REQUIRES(mutex_);

  Directory& directory_;
  Mutex mutex_;
  std::shared_ptr<const Directory::Snapshot> placed_ SLUICE_GUARDED_BY(mutex_);
  std::shared_ptr<const SlotPlacement> placement_ SLUICE_GUARDED_BY(mutex_);  // as of placed_
  // The first replica of each slot, an index into its group.
  std::shared_ptr<const std::vector<uint8_t>> first_of_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_DIRECTORY_ROUTER_H_

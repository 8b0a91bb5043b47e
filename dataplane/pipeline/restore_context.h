// What those who send a restore's units share. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_CONTEXT_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_CONTEXT_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/archive/reader.h"
#include "dataplane/pipeline/request_client.h"
#include "dataplane/pipeline/restore.h"
#include "dataplane/pipeline/restore_plan.h"
#include "dataplane/pipeline/restore_tally.h"

namespace sluice {

// Thread-safe while units are sent; outlives its senders. The client ends before the pool is whole
// again.
struct RestoreContext {
  Exchange& exchange;
  ArchiveReader& archive;
  SlotRouter& router;
  const RestoreOptions& options;
  const bool repack;  // blocks are regrouped by the cluster's slots, or records are picked
  RestorePlan plan;
  RestoreTally tally;
  std::unique_ptr<BlockPool> pool;
  std::unique_ptr<RequestClient> client;
  std::map<std::string, std::string> addresses;  // of nodes that were routed to
  std::atomic<bool> stale_route{false};          // to be refreshed before the next unit

  RestoreContext(Exchange& of_exchange, ArchiveReader& of_archive, SlotRouter& of_router,
                 const RestoreOptions& of_options);
  // Waits for one. CANCELLED.
  absl::StatusOr<BlockBuffer> take_buffer();
  // Who has the slot. NOT_FOUND where nobody has.
  absl::StatusOr<SlotRoute> route(uint32_t slot);
  // The same, this node's replica first: it takes a block without a wire.
  absl::StatusOr<SlotRoute> local_route(uint32_t slot);
  // Of reading a part of the archive.
  UnitFailure read_failure(uint32_t part, const absl::Status& status) const;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_CONTEXT_H_

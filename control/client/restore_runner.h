// Sends parts of an archive that this process can read into a cluster, and keeps the restore's
// progress and retry list there. Run by a node that holds a part, or by the operator's process.
#ifndef SLUICE_CONTROL_CLIENT_RESTORE_RUNNER_H_
#define SLUICE_CONTROL_CLIENT_RESTORE_RUNNER_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/client/peers.h"
#include "control/proto/sluice.pb.h"
#include "dataplane/archive/part_identity.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/restore.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

struct RestoreRun {
  Peers* peers = nullptr;  // the destination's
  Exchange* exchange = nullptr;
  std::vector<std::string> folders;
  ArchivePartId expected;  // what the folders hold; its node may be empty
  std::string id;
  uint64_t attempt = 1;
  std::string prefix;
  bool retry = false;    // only what is on the retry list
  bool dry_run = false;  // only counts records and bytes
  size_t requests = 12;
  Cancellation* cancellation = nullptr;
  // Called a few times a second, from a thread of the run.
  std::function<void(uint64_t bytes_done)> progress;
};

// A status only where nothing could be done; what failed is on the retry list, durably, when it
// returns.
absl::StatusOr<v1::RestorePartResult> run_restore(const RestoreRun& run);

// Hands out the keys of the units' records.
absl::Status read_unit_keys(
    const std::string& folder, const ArchivePartId& expected, const std::vector<RestoreUnit>& units,
    const std::function<absl::Status(size_t unit, std::string_view key)>& visit);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_RESTORE_RUNNER_H_

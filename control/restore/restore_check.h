// Whether a cluster has the records of an archive, each at its version or a newer one, on all
// replicas. Run by whoever can read the archive.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_CHECK_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_CHECK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "control/peers/peers.h"
#include "dataplane/archive/reader.h"
#include "dataplane/pipeline/cancellation.h"

namespace sluice {

struct RestoreCheck {
  ArchiveReader* archive = nullptr;
  Peers* peers = nullptr;  // the cluster's
  std::string prefix;
  std::set<uint32_t> slots;  // the archive's, to check
  const Cancellation* cancellation = nullptr;
  // Called now and then, from several threads, one at a time.
  std::function<void()> progress;
};

struct RestoreCheckResult {
  std::map<std::string, std::set<uint32_t>> lacking;  // the cluster's slots, by node
  std::set<std::string> unreachable;                  // nodes that did not answer
};

// An error where the archive cannot be read, or the check is cancelled.
absl::StatusOr<RestoreCheckResult> check_restored(const RestoreCheck& check);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_CHECK_H_

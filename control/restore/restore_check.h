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
#include "control/proto/peer.pb.h"
#include "dataplane/archive/reader.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/restore_mapping.h"

namespace sluice {

struct RestoreCheck {
  ArchiveReader* archive = nullptr;
  Peers* peers = nullptr;  // the cluster's
  RestoreMapping mapping;
  std::set<uint32_t> slots;  // the archive's, to check
  bool counts = false;       // what is here of the archive's records, of all slots
  const Cancellation* cancellation = nullptr;
  // Called now and then, from several threads, one at a time.
  std::function<void()> progress;
};

struct RestoreCheckResult {
  std::map<std::string, std::set<uint32_t>> lacking;  // the cluster's slots, by node
  std::set<std::string> unreachable;                  // nodes that did not answer
  // Of the archive's records with a value, where counts were asked for; by the newest record that a
  // replica which answered has of the key.
  uint64_t newer = 0;    // newer than the archive's, with another value
  uint64_t deleted = 0;  // deleted later
  uint64_t live = 0;     // newer ones, older ones and the archive's own
};

// An error where the archive cannot be read, or the check is cancelled.
absl::StatusOr<RestoreCheckResult> check_restored(const RestoreCheck& check);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_CHECK_H_

// Sends parts of an archive that this process can read into a cluster, and keeps the restore's
// progress and retry list there. Run by a node that holds a part, or by the operator's process.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_RUNNER_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_RUNNER_H_

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/peers/peers.h"
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
  std::string list;  // generation of the retry list that this run stores
  RestoreMapping mapping;
  bool retry = false;    // only what is on the retry list
  bool dry_run = false;  // only counts records and bytes, and what the cluster has of them
  bool check = false;    // only checks that all replicas have the records
  std::set<uint32_t> check_slots;  // of the archive's slots
  std::set<std::string> together;  // parts that one process restores, this one or another
  size_t requests = 12;
  Cancellation* cancellation = nullptr;  // required
  // Called a few times a second, from a thread of the run.
  std::function<void(uint64_t bytes_done, uint64_t bytes_total)> progress;
};

// A status only where nothing could be done; what failed is stored as the retry list of the
// generation, durably, when it returns. ABORTED once another attempt has begun, or this one is
// over: the run ends then, however far it is.
absl::StatusOr<v1::RestorePartResult> run_restore(const RestoreRun& run);

// Hands out the keys of the units' records. Where a block cannot be read, `problem` is told why,
// and the other units go on.
struct UnitKeyVisitor {
  std::function<absl::Status(size_t unit, std::string_view key, bool deletion)> key;
  std::function<absl::Status(size_t unit, const absl::Status& why)> problem;
};
absl::Status read_unit_keys(const std::string& folder, const ArchivePartId& expected,
                            const std::vector<RestoreUnit>& units, const UnitKeyVisitor& visitor);

// A set of slots as it travels.
std::string slot_bitmap(const std::set<uint32_t>& slots);
std::set<uint32_t> slots_of_bitmap(std::string_view bitmap);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_RUNNER_H_

// The proof at a restore's end: each replica's digest of each slot against the archive's.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_PROOF_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_PROOF_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "control/peers/cluster_connection.h"
#include "control/peers/patient_call.h"
#include "control/table/table.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

// Of all slots, by node.
using NodeDigests = std::map<std::string, std::vector<SlotDigest>>;

// Asks every node of the table. Those that did not answer within the patience are left out.
absl::StatusOr<NodeDigests> read_digests(ClusterConnection& cluster, const Patience& patience);

// A copy: the cluster's slot, and the node.
using SlotCopy = std::pair<uint32_t, std::string>;

struct DigestComparison {
  uint64_t copies = 0;
  uint64_t equal = 0;
  std::set<SlotCopy> differing;
  std::set<SlotCopy> unreachable;
};
// Of the slots that `expected` names; of all slots where `all`, the others being empty. Where
// nothing is known of what they should hold (null) no copy is equal, and an empty one least of all.
DigestComparison compare_digests(const DistributionTable& table, const NodeDigests& digests,
                                 const std::map<uint32_t, SlotDigest>* expected, bool all);

// The archive's slots whose records belong to one of these slots of the cluster.
std::set<uint32_t> archive_slots_of(const std::set<SlotCopy>& copies, uint32_t cluster_bits,
                                    uint32_t archive_bits);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_PROOF_H_

#include "control/restore/restore_proof.h"

#include <algorithm>
#include <optional>

#include "base/parallel.h"
#include "base/status.h"
#include "control/peers/rpc.h"

namespace sluice {

absl::StatusOr<NodeDigests> read_digests(ClusterConnection& cluster, const Patience& patience) {
  const auto snapshot = cluster.directory().snapshot();
  if (snapshot->table == nullptr) return unavailable("the cluster has no distribution table yet");
  const auto& members = snapshot->table->members();
  const uint32_t slots = cluster.cluster().slots();
  std::vector<absl::StatusOr<std::vector<SlotDigest>>> answers(members.size());
  parallel_for(members.size(), [&](size_t i) {
    v1::DigestsRequest request;
    request.set_slots(slots);
    v1::DigestsReply reply;
    const absl::Status status = call_patiently(cluster.peers(), members[i].name, patience,
                                               [&](PeerNode& peer, grpc::ClientContext& call) {
                                                 reply.Clear();
                                                 return peer.peer().Digests(&call, request, &reply);
                                               });
    if (status.ok()) {
      answers[i] = decode_digests(reply.digests(), slots);
    } else {
      answers[i] = status;
    }
  });
  NodeDigests digests;
  for (size_t i = 0; i < members.size(); ++i) {
    if (answers[i].ok()) {
      digests[members[i].name] = *std::move(answers[i]);
    } else if (!is_late(answers[i].status())) {
      return answers[i].status();
    }
  }
  return digests;
}

DigestComparison compare_digests(const DistributionTable& table, const NodeDigests& digests,
                                 const std::map<uint32_t, SlotDigest>* expected, bool all) {
  DigestComparison comparison;
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    std::optional<SlotDigest> wanted;
    if (expected != nullptr) {
      const auto named = expected->find(slot);
      if (named == expected->end() && !all) continue;
      wanted = named == expected->end() ? SlotDigest() : named->second;
    }
    for (const uint16_t member : table.replicas_of(slot)) {
      const std::string& node = table.members()[member].name;
      ++comparison.copies;
      const auto found = digests.find(node);
      if (found == digests.end()) {
        comparison.unreachable.emplace(slot, node);
      } else if (found->second[slot] == wanted) {
        ++comparison.equal;
      } else {
        comparison.differing.emplace(slot, node);
      }
    }
  }
  return comparison;
}

std::set<uint32_t> archive_slots_of(const std::set<SlotCopy>& copies, uint32_t cluster_bits,
                                    uint32_t archive_bits) {
  std::set<uint32_t> slots;
  const uint32_t step = uint32_t{1} << std::min(cluster_bits, archive_bits);
  for (const auto& [slot, node] : copies) {
    for (uint32_t each = slot & (step - 1); each < uint32_t{1} << archive_bits; each += step) {
      slots.insert(each);
    }
  }
  return slots;
}

}  // namespace sluice

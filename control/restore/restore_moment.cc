#include "control/restore/restore_moment.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/peers/patient_call.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {

constexpr int64_t kMomentMs = 20'000;

// One slot of each set of replicas.
v1::StampRequest question_for(const DistributionTable& table) {
  v1::StampRequest request;
  std::set<std::vector<uint16_t>> known;
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    const auto replicas = table.replicas_of(slot);
    std::vector<uint16_t> set(replicas.begin(), replicas.end());
    std::sort(set.begin(), set.end());
    if (known.insert(std::move(set)).second) request.add_slots(slot);
  }
  return request;
}

Patience short_patience() {
  Patience patience;
  patience.limit_ms = kMomentMs;
  patience.call_ms = kMomentMs / 4;
  patience.gone_ms = 0;
  return patience;
}

absl::StatusOr<Version> ask_any(ClusterConnection& cluster, const v1::StampRequest& request) {
  absl::Status last = unavailable("no node is live");
  for (const std::string& node : cluster.directory().snapshot()->live_names()) {
    v1::Version version;
    last = call_patiently(cluster.peers(), node, short_patience(),
                          [&](PeerNode& peer, grpc::ClientContext& call) {
                            return peer.serving().Stamp(&call, request, &version);
                          });
    if (last.ok()) return Version{version.stamp(), version.node()};
  }
  return last;
}

}  // namespace

absl::StatusOr<Version> take_moment(ClusterConnection& cluster) {
  const auto snapshot = cluster.directory().snapshot();
  if (snapshot->table == nullptr) return unavailable("the cluster has no distribution table yet");
  const DistributionTable& table = *snapshot->table;
  SLUICE_ASSIGN_OR_RETURN(const Version moment, ask_any(cluster, question_for(table)));
  const auto& members = table.members();
  std::vector<absl::Status> observed(members.size());
  parallel_for(members.size(), [&](size_t i) {
    v1::ObserveRequest request;
    request.set_stamp(moment.stamp);
    observed[i] = call_patiently(cluster.peers(), members[i].name, short_patience(),
                                 [&](PeerNode& peer, grpc::ClientContext& call) {
                                   v1::Empty reply;
                                   return peer.peer().ObserveStamp(&call, request, &reply);
                                 });
  });
  // A version of later is made from the clocks of W replicas, of which one has observed this one.
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    size_t passed = 0;
    absl::Status why;
    for (const uint16_t member : table.replicas_of(slot)) {
      passed += observed[member].ok();
      if (!observed[member].ok()) why = observed[member];
    }
    if (passed >= cluster.cluster().write_quorum()) continue;
    return unavailable(
        "slot {}: {} of the {} replicas that a restore with --on-conflict archive needs can be "
        "reached: {}",
        slot, passed, cluster.cluster().write_quorum(), message_of(why));
  }
  return moment;
}

}  // namespace sluice

#include "control/restore/restore_stages.h"

#include <algorithm>
#include <string>

#include "base/parallel.h"
#include "control/peers/rpc.h"

namespace sluice {
namespace {

constexpr int64_t kStagesMs = 2'000;
constexpr int kMaxStages = 16;  // of a node

}  // namespace

std::vector<StageReport> read_stages(ClusterConnection& cluster) {
  const std::vector<std::string> names = cluster.directory().snapshot()->live_names();
  std::vector<std::vector<StageReport>> answers(names.size());
  parallel_for(names.size(), [&](size_t i) {
    const auto peer = cluster.peers().find(names[i]);
    if (!peer.ok()) return;
    grpc::ClientContext call;
    set_timeout(call, kStagesMs);
    v1::StagesReply reply;
    const grpc::Status status = (*peer)->peer().Stages(&call, v1::Empty(), &reply);
    (*peer)->note(status);
    if (!status.ok() || reply.stages_size() > kMaxStages) return;
    answers[i] = stages_of(reply.stages());
    for (StageReport& stage : answers[i]) stage.node = names[i];
  });
  std::vector<StageReport> stages;
  for (const auto& answer : answers) stages.insert(stages.end(), answer.begin(), answer.end());
  return stages;
}

std::vector<StageReport> stages_since(const std::vector<StageReport>& before,
                                      const std::vector<StageReport>& now) {
  std::vector<StageReport> done;
  for (StageReport stage : now) {
    const auto earlier = std::find_if(before.begin(), before.end(), [&](const StageReport& each) {
      return each.node == stage.node && each.stage == stage.stage;
    });
    if (earlier != before.end() && earlier->bytes <= stage.bytes &&
        earlier->busy_ms <= stage.busy_ms && earlier->wait_ms <= stage.wait_ms &&
        earlier->system_calls <= stage.system_calls) {
      stage.bytes -= earlier->bytes;
      stage.busy_ms -= earlier->busy_ms;
      stage.wait_ms -= earlier->wait_ms;
      stage.system_calls -= earlier->system_calls;
    }
    if (stage.bytes > 0) done.push_back(std::move(stage));
  }
  return done;
}

}  // namespace sluice

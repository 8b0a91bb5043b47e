#include "tests/simulation/world/triggers.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "control/backup/documents.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {

Triggers::Triggers(World& world, std::vector<Host*> hosts, std::function<void(const Op&)> fire)
    : hosts_(std::move(hosts)), fire_(std::move(fire)) {
  for (size_t i = 0; i < hosts_.size(); ++i) {
    hosts_[i]->mount().before = [this, i](FileCall call, std::string_view) {
      if (call != FileCall::kSync) return;
      about_to(Op::Trigger::kSync, [i](const Op& op) { return op.host == i; });
    };
  }
  world.block_world(hosts_.front()->cluster()).before_commit =
      [this](const std::vector<ClusterOp>& ops) { about_to_commit(ops); };
  world.calls().before = [this](const DirectMessage&) { about_to_call(); };
}

void Triggers::arm(const Op& op) { armed_.push_back(std::make_shared<Armed>(Armed{op, op.count})); }

void Triggers::about_to(Op::Trigger trigger, const std::function<bool(const Op&)>& concerns) {
  // What fires may disarm all.
  const std::vector<std::shared_ptr<Armed>> armed = armed_;
  for (const auto& each : armed) {
    if (each->fired || each->op.trigger != trigger || !concerns(each->op)) continue;
    if (each->left-- > 0) continue;
    each->fired = true;
    fire_(each->op);
  }
}

size_t Triggers::host_of_caller() const {
  const auto is_mine = [](Host* host) { return host->process() == &Process::current(); };
  return static_cast<size_t>(std::find_if(hosts_.begin(), hosts_.end(), is_mine) - hosts_.begin());
}

void Triggers::about_to_call() {
  const size_t host = host_of_caller();
  about_to(Op::Trigger::kCall, [&](const Op& op) {
    return op.kind == OpKind::kCrashClient ? host == hosts_.size() : host == op.host;
  });
}

void Triggers::about_to_commit(const std::vector<ClusterOp>& ops) {
  const size_t host = host_of_caller();
  about_to(Op::Trigger::kCommit, [host](const Op& op) { return op.host == host; });
  for (const ClusterOp& change : ops) {
    if (change.kind != ClusterOp::Kind::kPut || !change.key.starts_with(kBackupsPrefix)) continue;
    const auto head = decode_backup_head(change.key, change.value);
    if (!head.ok()) continue;
    about_to(Op::Trigger::kState, [&](const Op& op) { return op.state == head->state; });
  }
}

}  // namespace sluice::simulation

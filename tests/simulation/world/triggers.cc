#include "tests/simulation/world/triggers.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "control/backup/documents.h"
#include "control/restore/restore_store.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

constexpr std::string_view kRestores = "restores/";
constexpr int64_t kStoredNs = 20'000'000;
constexpr std::string_view kOperator = "operator";
constexpr std::string_view kData = "/data";

}  // namespace

Triggers::Triggers(World& world, std::array<std::vector<Host*>, 2> hosts,
                   std::function<void(const Op&)> fire)
    : hosts_(std::move(hosts)), fire_(std::move(fire)) {
  for (const std::vector<Host*>& of_cluster : hosts_) {
    for (Host* const host : of_cluster) {
      host->mount().before = [this, host](FileCall call, std::string_view path) {
        if (call == FileCall::kSync) about_to_sync(*host, path);
      };
    }
    if (of_cluster.empty()) continue;
    world.block_world(of_cluster.front()->cluster()).before_commit =
        [this](const std::vector<ClusterOp>& ops) { about_to_commit(ops); };
  }
  world.calls().before = [this](const DirectMessage&) { about_to_call(); };
}

void Triggers::arm(const Op& op) { armed_.push_back(std::make_shared<Armed>(Armed{op, op.count})); }

void Triggers::about_to(Op::Trigger trigger, const std::function<bool(const Op&)>& concerns) {
  // What fires may disarm all.
  const std::vector<std::shared_ptr<Armed>> armed = armed_;
  for (const auto& each : armed) {
    if (each->fired || each->op.trigger != trigger || !concerns(each->op)) continue;
    if (trigger == Op::Trigger::kSyncBehindState && !each->state_came) continue;
    if (each->left-- > 0) continue;
    each->fired = true;
    fire_(aimed(each->op));
  }
}

Op Triggers::aimed(const Op& op) const {
  Op at = op;
  if (op.kind != OpKind::kPauseCoordinator) return at;
  const std::vector<Host*>& hosts = hosts_.at(op.cluster);
  const auto caller = std::find(hosts.begin(), hosts.end(), host_of_caller());
  if (caller != hosts.end()) at.host = at.other = static_cast<size_t>(caller - hosts.begin());
  return at;
}

const Host* Triggers::host_of(const Op& op) const {
  const std::vector<Host*>& of_cluster = hosts_.at(op.cluster);
  return op.host < of_cluster.size() ? of_cluster[op.host] : nullptr;
}

const Host* Triggers::host_of_caller() const {
  for (const std::vector<Host*>& of_cluster : hosts_) {
    for (const Host* const host : of_cluster) {
      if (host->is_running(Process::current())) return host;
    }
  }
  return nullptr;
}

void Triggers::about_to_sync(const Host& host, std::string_view path) {
  const auto concerns = [&](const Op& op) { return host_of(op) == &host; };
  if (path.empty() || path == kData) about_to(Op::Trigger::kNamesSync, concerns);
  about_to(Op::Trigger::kSync, concerns);
  about_to(Op::Trigger::kSyncBehindState, concerns);
}

void Triggers::about_to_call() {
  const Host* const host = host_of_caller();
  const bool is_operator = host == nullptr && Process::current().name().starts_with(kOperator);
  about_to(Op::Trigger::kCall, [&](const Op& op) {
    if (op.kind == OpKind::kCrashOperator) return is_operator;
    if (op.kind == OpKind::kCrashClient) return host == nullptr;
    return host != nullptr && host == host_of(op);
  });
}

void Triggers::about_to_commit(const std::vector<ClusterOp>& ops) {
  if (const Host* const host = host_of_caller(); host != nullptr) {
    about_to(Op::Trigger::kCommit, [&](const Op& op) { return host_of(op) == host; });
  }
  for (const ClusterOp& change : ops) {
    if (change.kind != ClusterOp::Kind::kPut) continue;
    if (change.key.starts_with(kBackupsPrefix)) {
      if (const auto head = decode_backup_head(change.key, change.value); head.ok()) {
        about_to_store(*head);
      }
    } else if (change.key.starts_with(kRestores)) {
      const auto head = decode_restore_head(change.key, change.value);
      if (!head.ok() || head->state != RestoreState::kCompleted) continue;
      // Once it is.
      at(now_ns() + kStoredNs,
         [this] { about_to(Op::Trigger::kRestoreEnd, [](const Op&) { return true; }); });
    }
  }
}

void Triggers::about_to_store(const BackupHead& head) {
  for (const auto& each : armed_) each->state_came |= each->op.state == head.state;
  about_to(Op::Trigger::kState, [&](const Op& op) { return op.state == head.state; });
}

}  // namespace sluice::simulation

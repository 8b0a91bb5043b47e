#include "tests/simulation/world/faults.h"

#include <fmt/format.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

constexpr int64_t kServeMs = 120'000;
constexpr int64_t kSuperviseMs = 250;
constexpr uint64_t kDiskBytes = uint64_t{1} << 40;
constexpr int64_t kSlowestSyncNs = 200'000;

}  // namespace

Faults::Faults(World& world, const Scenario& scenario, std::vector<Host*> hosts)
    : world_(world), scenario_(scenario), hosts_(std::move(hosts)), states_(hosts_.size()) {}

void Faults::begin() {
  for (Host* const host : hosts_) host->block_faults = scenario_.block;
  world_.client_block_faults = scenario_.block;
  world_.calls().faults = scenario_.calls;
  for (size_t i = 0; i < hosts_.size(); ++i) {
    hosts_[i]->mount().before = [this, i](FileCall call, std::string_view) {
      if (call == FileCall::kSync) count(Op::Trigger::kSync, i);
    };
  }
  world_.block_world(hosts_.front()->cluster()).before_commit =
      [this](const std::vector<ClusterOp>&) { count_of_caller(Op::Trigger::kCommit); };
  world_.calls().before = [this](const DirectMessage&) { count_of_caller(Op::Trigger::kCall); };
  spawn([this] { supervise(); });
}

void Faults::add(const Op& op) {
  if (op.trigger == Op::Trigger::kTime) {
    strike(op);
  } else {
    armed_.push_back(std::make_unique<Armed>(Armed{op, op.count}));
  }
}

void Faults::count_of_caller(Op::Trigger trigger) {
  for (size_t i = 0; i < hosts_.size(); ++i) {
    if (hosts_[i]->process() == &Process::current()) count(trigger, i);
  }
}

void Faults::count(Op::Trigger trigger, size_t host) {
  for (const auto& armed : armed_) {
    if (armed->fired || armed->op.trigger != trigger || armed->op.host != host) continue;
    if (armed->left-- > 0) continue;
    armed->fired = true;
    strike(armed->op);
  }
}

void Faults::later(const Op& op, std::function<void()> undo) {
  at(now_ns() + op.lasts_ms * 1'000'000, std::move(undo));
}

void Faults::hold_down(const Op& op) {
  states_[op.host].down = true;
  states_[op.host].down_until_ns = now_ns() + op.lasts_ms * 1'000'000;
}

// May be on any thread, of a host's process too; waits for nothing.
void Faults::strike(const Op& op) {
  if (healed_) return;
  ++fired_[op.kind];
  trace(describe(op));
  Host& host = *hosts_[op.host];
  switch (op.kind) {
    case OpKind::kCrash:
    case OpKind::kPowerLoss:
    case OpKind::kDataLoss:
      crash(op);
      break;
    case OpKind::kRestart:
      hold_down(op);
      at(now_ns(), [&host] { spawn([&host] { host.stop(); }); });
      break;
    case OpKind::kPause:
      if (Process* const process = host.process(); process != nullptr) {
        process->pause();
        paused_.push_back(process);
        later(op, [process] { process->resume(); });
      }
      break;
    case OpKind::kPartition:
      if (op.host == op.other) break;
      at(now_ns(), [this, op, &host] {
        if (!healed_) world_.partition(host.name(), hosts_[op.other]->name());
      });
      later(op, [this] { world_.heal_partitions(); });
      break;
    case OpKind::kNoBlock:
      host.block_faults.unreachable = true;
      later(op, [&host] { host.block_faults.unreachable = false; });
      break;
    case OpKind::kClockJump:
      jump_clock(op);
      break;
    case OpKind::kDiskError:
    case OpKind::kFullDisk:
      fail_disk(op);
      break;
    case OpKind::kSlowDisk:
      host.mount().slowest_sync_ns = op.lasts_ms * 100'000;
      later(op, [&host] { host.mount().slowest_sync_ns = kSlowestSyncNs; });
      break;
    default:
      fail("not a fault");
  }
}

void Faults::crash(const Op& op) {
  hold_down(op);
  Host& host = *hosts_[op.host];
  host.crash(/*power=*/op.kind != OpKind::kCrash);
  if (op.kind != OpKind::kDataLoss) return;
  states_[op.host].data_lost = true;
  host.disk().restore("/data", nullptr);
}

void Faults::jump_clock(const Op& op) {
  // Hours, or what replicas of one write differ by.
  const int64_t most_ms = op.lasts_ms % 3 == 0 ? 7'200'000 : 3'000;
  const int64_t offset = (op.lasts_ms * 7919 % (2 * most_ms) - most_ms) * 1'000'000;
  Host& host = *hosts_[op.host];
  host.wall_offset_ns = offset;
  if (Process* const process = host.process()) process->set_wall_offset_ns(offset);
}

void Faults::fail_disk(const Op& op) {
  Host& host = *hosts_[op.host];
  states_[op.host].disk_failed = true;
  if (op.kind == OpKind::kFullDisk) {
    host.disk().set_capacity_bytes(host.disk().capacity_bytes() - host.disk().free_bytes());
    return later(op, [&host] { host.disk().set_capacity_bytes(kDiskBytes); });
  }
  host.mount().write_error = EIO;
  if (op.lasts_ms % 3 == 0) host.mount().sync_error = EIO;
  later(op, [&host] { host.mount().write_error = host.mount().sync_error = 0; });
}

void Faults::supervise() {
  while (!stops_all_) {
    for (size_t i = 0; i < hosts_.size(); ++i) {
      HostState& state = states_[i];
      if (hosts_[i]->running() || stops_all_) continue;
      if (state.down && now_ns() < state.down_until_ns) continue;
      state.down = false;
      const absl::Status status = hosts_[i]->status();
      if (absl::IsDataLoss(status) || absl::IsFailedPrecondition(status) ||
          absl::IsInvalidArgument(status)) {
        fail(fmt::format("I9: {}: {}", hosts_[i]->name(), status.ToString()));
      }
      trace(fmt::format("{} is started; it ended with {}", hosts_[i]->name(), status.ToString()));
      hosts_[i]->start(state.data_lost);
    }
    sleep_ms(kSuperviseMs);
  }
}

void Faults::heal() {
  trace("everything is healed");
  healed_ = true;
  world_.calls().faults = {};
  world_.client_block_faults = {};
  world_.heal_partitions();
  for (Process* const process : paused_) process->resume();
  for (size_t i = 0; i < hosts_.size(); ++i) {
    Host& host = *hosts_[i];
    host.block_faults = {};
    host.wall_offset_ns = 0;
    if (Process* const process = host.process()) process->set_wall_offset_ns(0);
    host.mount().write_error = host.mount().sync_error = 0;
    host.mount().slowest_sync_ns = kSlowestSyncNs;
    host.disk().set_capacity_bytes(kDiskBytes);
    states_[i].down = false;
  }
  // An operator's part.
  for (size_t i = 0; i < hosts_.size(); ++i) {
    if (states_[i].disk_failed) hosts_[i]->stop();
  }
  wait_until_all_serve();
}

void Faults::wait_until_all_serve() {
  for (Host& host : world_.all_hosts()) {
    if (!wait_until(
            kServeMs, [&] { return host.serving(); }, 50)) {
      fail(fmt::format("I8: {} does not serve: {}\n{}", host.name(), host.status().ToString(),
                       describe_threads()));
    }
  }
}

void Faults::stop_all() {
  stops_all_ = true;
  sleep_ms(2 * kSuperviseMs);
  for (Host& host : world_.all_hosts()) host.stop();
}

}  // namespace sluice::simulation

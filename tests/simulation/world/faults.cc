#include "tests/simulation/world/faults.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

constexpr int64_t kServeMs = 120'000;
constexpr uint64_t kDiskBytes = uint64_t{1} << 40;
constexpr int64_t kSlowestSyncNs = 200'000;
constexpr uint64_t kMomentNs = 40'000'000;
// Once nothing troubles it any more.
constexpr int64_t kHealedNs = 3'000'000'000;

}  // namespace

Faults::Faults(World& world, const Scenario& scenario, Oracle& oracle, std::vector<Host*> hosts)
    : world_(world),
      scenario_(scenario),
      oracle_(oracle),
      hosts_(std::move(hosts)),
      random_(Random::mix(scenario.seed ^ 0xfa)),
      states_(hosts_.size()) {}

void Faults::begin() {
  for (Host* const host : hosts_) host->block_faults = scenario_.block;
  world_.client_block_faults = scenario_.block;
  world_.calls().faults = scenario_.calls;
  spawn([this] { supervise(); });
}

void Faults::later(const Op& op, std::function<void()> undo) {
  at(now_ns() + op.lasts_ms * 1'000'000, std::move(undo));
}

void Faults::hold_down(size_t host, int64_t ms) {
  states_[host].down = true;
  states_[host].down_until_ns = now_ns() + ms * 1'000'000;
}

void Faults::strike(const Op& op) {
  if (healed_) return;
  ++fired_[op.kind];
  trace(describe(op));
  if (op.host >= hosts_.size() || op.other >= hosts_.size()) return;
  for (const size_t struck : {op.host, op.other}) {
    if (op.kind == OpKind::kDataCopied) break;
    int64_t& until_ns = states_[struck].trouble_until_ns;
    until_ns = std::max(until_ns, now_ns() + op.lasts_ms * 1'000'000 + kTroubleNs);
    if (op.kind != OpKind::kDataSetBack) states_[struck].kept_from_answering_until_ns = until_ns;
  }
  Host& host = *hosts_[op.host];
  switch (op.kind) {
    case OpKind::kCrash:
    case OpKind::kPowerLoss:
      return crash(op);
    case OpKind::kBlackout:
      return black_out(op);
    case OpKind::kRestart:
      hold_down(op.host, op.lasts_ms);
      return at(now_ns(), [&host] { spawn([&host] { host.stop(); }); });
    case OpKind::kPause:
      return pause(op);
    case OpKind::kPauseCoordinator:
      return at(now_ns() + static_cast<int64_t>(random_.below(kMomentNs)),
                [this, op] { pause(op); });
    case OpKind::kSlowNode:
      return slow_down(op.host, now_ns() + op.lasts_ms * 1'000'000);
    case OpKind::kPartition:
      if (op.host == op.other) return;
      at(now_ns(), [this, op, &host] {
        if (!healed_) world_.partition(host.name(), hosts_[op.other]->name());
      });
      return later(op, [this] { world_.heal_partitions(); });
    case OpKind::kCutStreams:
      // While what triggered it is under way.
      return at(now_ns() + static_cast<int64_t>(random_.below(kMomentNs)), [this, op, &host] {
        if (!healed_) world_.fabric().cut(host.name(), hosts_[op.other]->name());
      });
    case OpKind::kNoBlock:
      host.block_faults.unreachable = true;
      return later(op, [&host] { host.block_faults.unreachable = false; });
    case OpKind::kClockJump:
      return jump_clock(op);
    case OpKind::kDiskError:
    case OpKind::kFullDisk:
      return fail_disk(op);
    case OpKind::kSlowDisk:
      host.mount().slowest_sync_ns = op.lasts_ms * 100'000;
      // Stores read while others wait for them: those would be slow nodes.
      host.mount().slow_path = "/archives/";
      host.mount().slowest_read_ns = op.lasts_ms * 10'000;
      return later(op, [&host] {
        host.mount().slowest_sync_ns = kSlowestSyncNs;
        host.mount().slowest_read_ns = 0;
      });
    case OpKind::kDataGone:
      return lose_data(op);
    case OpKind::kDataCopied:
      return copy_data(op);
    case OpKind::kDataSetBack:
      return set_data_back(op);
    case OpKind::kArchiveRot:
    case OpKind::kArchiveGone:
    case OpKind::kArchiveSetBack:
    case OpKind::kArchiveSwap:
      return damage_archives(op);
    default:
      fail("not a fault of hosts");
  }
}

void Faults::crash(const Op& op) {
  hold_down(op.host, op.lasts_ms);
  hosts_[op.host]->crash(/*power=*/op.kind == OpKind::kPowerLoss);
  if (op.lasts_ms % 4 == 0) hosts_[op.host]->give_address_to(*hosts_[op.other]);
}

void Faults::black_out(const Op& op) {
  for (size_t i = 0; i < hosts_.size(); ++i) {
    const int64_t later_ms = static_cast<int64_t>(random_.below(4)) * op.lasts_ms / 2;
    hold_down(i, op.lasts_ms + later_ms);
    hosts_[i]->crash(/*power=*/true);
    // A clock whose battery is empty begins with an earlier time.
    if (op.lasts_ms % 4 == 0) hosts_[i]->wall_offset_ns = -random_hours_ns();
  }
}

int64_t Faults::random_hours_ns() {
  return static_cast<int64_t>(random_.below(7'200)) * 1'000'000'000;
}

void Faults::pause(const Op& op) {
  if (healed_) return;
  Process* const process = hosts_[op.host]->process();
  if (process == nullptr) return;
  process->pause();
  paused_.push_back(process);
  states_[op.host].paused_until_ns = now_ns() + op.lasts_ms * 1'000'000;
  later(op, [process] { process->resume(); });
}

void Faults::slow_down(size_t host, int64_t until_ns) {
  Process* const process = hosts_[host]->process();
  if (process == nullptr || healed_ || now_ns() >= until_ns) return;
  process->pause();
  paused_.push_back(process);
  const int64_t resumes_ns = now_ns() + 5'000'000 + static_cast<int64_t>(random_.below(30'000'000));
  at(resumes_ns, [process] { process->resume(); });
  const int64_t pauses_ns = resumes_ns + 1'000'000 + static_cast<int64_t>(random_.below(5'000'000));
  at(pauses_ns, [this, host, until_ns] { slow_down(host, until_ns); });
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
  oracle_.disks_fail(true);
  if (op.kind == OpKind::kFullDisk) {
    host.disk().set_capacity_bytes(host.disk().capacity_bytes() - host.disk().free_bytes());
    return later(op, [&host] { host.disk().set_capacity_bytes(kDiskBytes); });
  }
  host.mount().write_error = EIO;
  if (op.lasts_ms % 3 == 0) host.mount().sync_error = EIO;
  later(op, [&host] { host.mount().write_error = host.mount().sync_error = 0; });
}

bool Faults::is_well(const Host& host) const {
  for (size_t i = 0; i < hosts_.size(); ++i) {
    if (hosts_[i] == &host) return now_ns() > states_[i].kept_from_answering_until_ns;
  }
  return false;
}

bool Faults::disk_fails(Host& host) {
  return host.mount().write_error != 0 || host.mount().sync_error != 0 ||
         host.disk().capacity_bytes() != kDiskBytes;
}

// --- Starting ---

void Faults::judge_end(size_t host) {
  HostState& state = states_[host];
  const absl::Status status = hosts_[host]->status();
  if (absl::IsFailedPrecondition(status) && state.data != Data::kNewest &&
      state.data != Data::kAccepted) {
    if (now_ns() >= state.accepted_from_ns || healed_) {
      state.data = Data::kAccepted;
      oracle_.data_lost(state.lost_from_ns, state.lost_until_ns);
    }
  } else if (absl::IsDataLoss(status) || absl::IsFailedPrecondition(status) ||
             absl::IsInvalidArgument(status)) {
    fail(fmt::format("I9: {}: {}", hosts_[host]->name(), status.ToString()));
  }
  trace(fmt::format("{} is started; it ended with {}", hosts_[host]->name(), status.ToString()));
}

void Faults::judge_start(size_t host) {
  HostState& state = states_[host];
  if (state.replaced != nullptr && state.replaced == hosts_[host]->process() &&
      hosts_[host]->serving() && now_ns() > state.lost_until_ns + kTroubleNs &&
      now_ns() > state.trouble_until_ns) {
    fail(fmt::format("I11: {} serves on, though a copy of its data has served in its place",
                     hosts_[host]->name()));
  }
  if (state.data == Data::kNewest || state.data == Data::kOvertaken) return;
  if (!hosts_[host]->serving()) return;
  if (state.data == Data::kGone) {
    fail(fmt::format("I11: {} serves without its data", hosts_[host]->name()));
  }
  // What it has not served from since lacks nothing.
  const int64_t served_until_ns = std::min(state.served_ns, state.lost_until_ns);
  if (state.data == Data::kSetBack && served_until_ns - state.lost_from_ns > kUnpublishedNs) {
    fail(fmt::format("I11: {} serves with the data that it had {} s before", hosts_[host]->name(),
                     (state.lost_until_ns - state.lost_from_ns) / 1'000'000'000));
  }
  state.data = Data::kNewest;
}

void Faults::start(size_t host) {
  judge_end(host);
  states_[host].down = false;
  if (states_[host].data == Data::kOvertaken) states_[host].data = Data::kSetBack;
  // A store takes writes once it is opened again.
  if (!disk_fails(*hosts_[host])) states_[host].disk_failed = false;
  oracle_.disks_fail(std::any_of(states_.begin(), states_.end(),
                                 [](const HostState& state) { return state.disk_failed; }));
  hosts_[host]->start(/*accept_data_loss=*/states_[host].data == Data::kAccepted);
}

void Faults::supervise() {
  while (!stops_all_) {
    for (size_t i = 0; i < hosts_.size(); ++i) {
      judge_start(i);
      if (hosts_[i]->serving() && !hosts_[i]->block_faults.unreachable && !states_[i].disk_failed) {
        states_[i].served_ns = now_ns();
      }
      if (hosts_[i]->running() || stops_all_) continue;
      if (states_[i].down && now_ns() < states_[i].down_until_ns) continue;
      start(i);
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
    host.mount().slowest_read_ns = 0;
    host.disk().set_capacity_bytes(kDiskBytes);
    states_[i].down = false;
    states_[i].trouble_until_ns = std::min(states_[i].trouble_until_ns, now_ns() + kHealedNs);
  }
  // An operator's part.
  for (size_t i = 0; i < hosts_.size(); ++i) {
    if (states_[i].disk_failed) hosts_[i]->stop();
  }
}

void Faults::wait_until_all_serve() {
  for (Host* const host : hosts_) {
    if (wait_until(
            kServeMs, [&] { return host->serving(); }, 50)) {
      continue;
    }
    fail(fmt::format("I8: {} does not serve: {}\n{}", host->name(), host->status().ToString(),
                     describe_threads()));
  }
}

void Faults::stop_all() {
  stops_all_ = true;
  sleep_ms(2 * kSuperviseMs);
  for (Host* const host : hosts_) host->stop();
}

}  // namespace sluice::simulation

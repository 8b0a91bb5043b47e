// What stays lost or changed: data directories and archives.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "tests/simulation/simulation.h"
#include "tests/simulation/world/archive_damage.h"
#include "tests/simulation/world/faults.h"

namespace sluice::simulation {
namespace {

// From joining to serving, on a slow disk.
constexpr int64_t kJoiningNs = 1'000'000'000;
constexpr int64_t kCopyStepMs = 50;

// By name. A store's files only grow, or are replaced.
std::map<std::string, uint64_t> sizes_of_data(Host& host) {
  std::map<std::string, uint64_t> sizes;
  for (const std::string& file : host.disk().files("/data")) {
    InodePtr inode;
    if (host.disk().find(host.disk().root(), file, &inode) == 0) {
      sizes[file] = inode->content.size();
    }
  }
  return sizes;
}

}  // namespace

// The whole of it, or all but what it had a while ago. A node that lost its data is not to serve
// until that is accepted; what was acknowledged before may be gone then.
void Faults::lose_data(const Op& op) {
  HostState& state = states_[op.host];
  if (state.data != Data::kNewest) return;
  hold_down(op.host, op.lasts_ms);
  hosts_[op.host]->crash(/*power=*/true);
  hosts_[op.host]->disk().restore("/data", nullptr);
  if (op.lasts_ms % 2 == 0) hosts_[op.host]->wall_offset_ns = -random_hours_ns();
  state.data = Data::kGone;
  state.accepted_from_ns = now_ns() + 2 * op.lasts_ms * 1'000'000;
  state.lost_from_ns = 0;
  state.lost_until_ns = now_ns();
}

void Faults::set_data_back(const Op& op) {
  Host& host = *hosts_[op.host];
  const int64_t taken_ns = now_ns();
  // As a snapshot of a volume has it.
  const Disk::Tree data = host.disk().snapshot("/data");
  later(op, [this, op, &host, data, taken_ns, sizes = sizes_of_data(host)] {
    HostState& state = states_[op.host];
    if (healed_ || state.data != Data::kNewest) return;
    // An earlier state of data that has not changed is the same.
    if (sizes_of_data(host) == sizes) return;
    hold_down(op.host, kSuperviseMs);
    host.crash(/*power=*/true);
    host.disk().restore("/data", data);
    state.data = Data::kSetBack;
    state.accepted_from_ns = now_ns() + op.lasts_ms * 1'000'000 / 4;
    state.lost_from_ns = taken_ns;
    state.lost_until_ns = now_ns();
    // Even if it is not refused: what it could not publish, or only just before.
    oracle_.data_lost(std::max(taken_ns, state.served_ns - kUnpublishedNs), now_ns());
  });
}

void Faults::copy_data(const Op& op) {
  // Of a node that has not joined yet, whichever joins first may.
  if (!hosts_[op.host]->serving() || states_[op.host].data != Data::kNewest) return;
  const Disk::Tree data = hosts_[op.host]->disk().snapshot("/data");
  const int64_t until_ns = now_ns() + op.lasts_ms * 1'000'000;
  at(now_ns(), [this, op, data, until_ns] {
    if (healed_) return;
    Host& copy = world_.make_copy(*hosts_[op.host], data);
    spawn([this, op, &copy, until_ns] { run_copy(op.host, copy, until_ns); });
  });
}

// It may serve in the node's place where that has lost its lease and nothing was written since; the
// node is then the one that has earlier data.
void Faults::run_copy(size_t host, Host& copy, int64_t until_ns) {
  const int64_t from_ns = now_ns();
  joining_[&copy] = from_ns;
  bool has_served = false;
  int64_t alone_ns = from_ns;  // the last time that only one served
  oracle_.archives_elsewhere(copy);
  copy.start();
  // One that is refused stays away; while the name is in use, it tries again.
  while (now_ns() < until_ns && !healed_ && !absl::IsFailedPrecondition(copy.status())) {
    if (!copy.running()) copy.start();
    // It may have joined before it is seen to serve.
    if (states_[host].data == Data::kNewest) overtake(host, has_served ? from_ns : now_ns());
    if (copy.serving() && !has_served) copy_serves(host, from_ns);
    has_served = has_served || copy.serving();
    if (!copy.serving() || !hosts_[host]->serving() || now_ns() < states_[host].paused_until_ns) {
      alone_ns = now_ns();
    } else if (now_ns() - alone_ns > kTroubleNs) {
      fail(fmt::format("I11: {} and a copy of its data serve together", copy.node()));
    }
    sleep_ms(kCopyStepMs);
  }
  const bool may_have_joined = !has_served && copy.running();
  copy.crash(/*power=*/true);
  if (may_have_joined) {
    const int64_t joined_ns = std::max(from_ns, now_ns() - kJoiningNs);
    if (states_[host].data == Data::kNewest) overtake(host, joined_ns);
    oracle_.data_lost(joined_ns, now_ns());
  }
  if (!has_served) return;
  states_[host].lost_until_ns = now_ns();
  oracle_.data_lost(from_ns, now_ns());
  // It may have been a target.
  oracle_.archives_damaged(*hosts_[host], backups_of(copy));
}

// From here on it may answer with what it has, whether or not it is seen to serve.
void Faults::copy_joins(const Host& copy) {
  const auto joins = joining_.find(&copy);
  if (joins == joining_.end()) return;
  oracle_.data_lost(joins->second, now_ns());
  joining_.erase(joins);
}

void Faults::copy_serves(size_t host, int64_t from_ns) {
  if (now_ns() > states_[host].trouble_until_ns) {
    fail(fmt::format("I11: a copy of the data of {} serves in its place", hosts_[host]->name()));
  }
  overtake(host, from_ns);
  // One that is only starting finds the name taken.
  states_[host].replaced = hosts_[host]->serving() ? hosts_[host]->process() : nullptr;
  oracle_.data_lost(from_ns, now_ns());
}

void Faults::overtake(size_t host, int64_t from_ns) {
  states_[host].data = Data::kOvertaken;
  states_[host].lost_from_ns = from_ns;
  states_[host].lost_until_ns = now_ns();
}

void Faults::damage_archives(const Op& op) {
  Host& host = *hosts_[op.host];
  Host& other = *hosts_[op.other];
  if (op.kind == OpKind::kArchiveRot) return rot(host, oracle_, random_);
  if (op.kind == OpKind::kArchiveSwap) {
    hold_down(op.host, op.lasts_ms);
    host.crash(/*power=*/true);
    if (op.host == op.other) return swap_backups(host, oracle_);
    hold_down(op.other, op.lasts_ms);
    other.crash(/*power=*/true);
    return swap_archives(host, other, oracle_);
  }
  const bool gone = op.kind == OpKind::kArchiveGone;
  const Disk::Tree archives = gone ? nullptr : host.disk().snapshot("/archives");
  later(op, [this, op, &host, archives] {
    if (healed_) return;
    hold_down(op.host, kSuperviseMs);
    host.crash(/*power=*/true);
    oracle_.archives_damaged(host, backups_of(host));
    host.disk().restore("/archives", archives);
    oracle_.archives_damaged(host, backups_of(host));
  });
}

}  // namespace sluice::simulation

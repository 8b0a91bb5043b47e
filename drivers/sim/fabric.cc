#include "drivers/sim/fabric.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <limits>

#include "base/clock.h"

namespace sluice {

SimFabric::SimFabric(uint64_t seed, const SimOptions& options)
    : options_(options), random_(seed), began_ns_(system_clock().monotonic_ns()) {
  assert(options_.bytes_per_second > 0);
}

bool SimFabric::step() {
  assert(!options_.free_running);
  std::lock_guard lock(mutex_);
  return run_next(std::numeric_limits<int64_t>::max());
}

void SimFabric::advance(int64_t duration_ns) {
  assert(!options_.free_running);
  std::lock_guard lock(mutex_);
  const int64_t until = virtual_now_ns_ + duration_ns;
  while (run_next(until)) {
  }
  move_time_to(until);
}

int64_t SimFabric::now_ns() const {
  std::lock_guard lock(mutex_);
  return now_locked();
}

int64_t SimFabric::now_locked() const {
  return options_.free_running ? system_clock().monotonic_ns() - began_ns_ : virtual_now_ns_;
}

void SimFabric::move_time_to(int64_t at_ns) { virtual_now_ns_ = std::max(virtual_now_ns_, at_ns); }

bool SimFabric::run_next(int64_t until_ns) {
  if (events_.empty() || events_.top().at_ns > until_ns) return false;
  // The queue only lends its top as const; the order does not look at the event itself.
  Scheduled next = std::move(const_cast<Scheduled&>(events_.top()));
  events_.pop();
  move_time_to(next.at_ns);
  next.event();
  return true;
}

void SimFabric::run_due() {
  const int64_t now = now_locked();
  while (run_next(now)) {
  }
}

void SimFabric::wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                     const std::function<bool()>& done, int64_t timeout_ns) {
  const int64_t now = now_locked();
  const int64_t until = timeout_ns > std::numeric_limits<int64_t>::max() - now
                            ? std::numeric_limits<int64_t>::max()
                            : now + timeout_ns;
  if (!options_.free_running) {
    while (!done() && run_next(until)) {
    }
    if (!done()) move_time_to(until);
    return;
  }
  while (true) {
    run_due();
    const int64_t time = now_locked();
    if (done() || time >= until) return;
    // Events that other threads cause meanwhile are run by them or, at the latest, after a
    // millisecond.
    int64_t sleep = std::min<int64_t>(until - time, 1'000'000);
    if (!events_.empty()) sleep = std::min(sleep, std::max<int64_t>(events_.top().at_ns - time, 0));
    changed.wait_for(lock, std::chrono::nanoseconds(sleep));
  }
}

void SimFabric::schedule(int64_t at_ns, Event event) {
  events_.push({at_ns, next_sequence_++, std::move(event)});
}

void SimFabric::transmit(const std::string& from, const std::string& to, size_t bytes,
                         Event event) {
  if (crashed(from)) return;
  const Pair direction(from, to);
  if (partitions_.contains(unordered(from, to))) {
    paths_[direction].parked.emplace_back(bytes, std::move(event));
  } else {
    put_on_wire(direction, bytes, std::move(event));
  }
}

void SimFabric::put_on_wire(const Pair& direction, size_t bytes, Event event) {
  Path& path = paths_[direction];
  const double wire_ns =
      static_cast<double>(bytes) * 1e9 / static_cast<double>(options_.bytes_per_second);
  path.free_at_ns = std::max(path.free_at_ns, now_locked()) + static_cast<int64_t>(wire_ns);
  int64_t arrival = path.free_at_ns + options_.delay_ns;
  if (options_.jitter_ns > 0) {
    arrival += static_cast<int64_t>(random_.below(static_cast<uint64_t>(options_.jitter_ns) + 1));
  }
  path.last_at_ns = std::max(path.last_at_ns, arrival);
  schedule(path.last_at_ns, std::move(event));
}

void SimFabric::partition(const std::string& a, const std::string& b) {
  std::lock_guard lock(mutex_);
  const uint64_t number = next_partition_++;
  const Pair pair = unordered(a, b);
  if (!partitions_.emplace(pair, number).second) return;
  schedule(now_locked() + options_.dead_peer_timeout_ns, [this, pair, number] {
    const auto found = partitions_.find(pair);
    if (found != partitions_.end() && found->second == number) cut_locked(pair.first, pair.second);
  });
}

void SimFabric::heal(const std::string& a, const std::string& b) {
  std::lock_guard lock(mutex_);
  partitions_.erase(unordered(a, b));
  for (const Pair& direction : {Pair(a, b), Pair(b, a)}) {
    std::deque<std::pair<size_t, Event>> parked = std::move(paths_[direction].parked);
    paths_[direction].parked.clear();
    for (auto& [bytes, event] : parked) put_on_wire(direction, bytes, std::move(event));
  }
}

void SimFabric::cut(const std::string& a, const std::string& b) {
  std::lock_guard lock(mutex_);
  cut_locked(a, b);
}

void SimFabric::cut_locked(const std::string& a, const std::string& b) {
  for (const auto& [node, participant] : participants_) {
    if (node == a) participant->on_cut(b);
    if (node == b && a != b) participant->on_cut(a);
  }
}

void SimFabric::crash(const std::string& node) {
  std::lock_guard lock(mutex_);
  // Marked after the participants have heard of it: the resets that they send are still from the
  // living.
  for (const auto& [name, participant] : participants_) {
    if (name == node) participant->on_crash();
  }
  crashed_.insert(node);
}

void SimFabric::restart(const std::string& node) {
  std::lock_guard lock(mutex_);
  crashed_.erase(node);
}

void SimFabric::attach(const std::string& node, SimParticipant* participant) {
  participants_.emplace_back(node, participant);
}

void SimFabric::detach(SimParticipant* participant) {
  std::erase_if(participants_,
                [participant](const auto& entry) { return entry.second == participant; });
}

}  // namespace sluice

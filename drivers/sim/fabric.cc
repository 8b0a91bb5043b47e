#include "drivers/sim/fabric.h"

#include <algorithm>
#include <cassert>
#include <chrono>

namespace sluice {

namespace {
// A condition variable's limit is not far beyond.
constexpr int64_t kLongestWaitNs = int64_t{3600} * 1'000'000'000;
}  // namespace

SimFabric::SimFabric(uint64_t seed, const SimOptions& options) : options_(options), random_(seed) {
  assert(options_.bytes_per_second > 0);
}

SimFabric::~SimFabric() {
  if (options_.time != nullptr) options_.time->forget();
}

bool SimFabric::step() {
  assert(options_.time == nullptr);
  std::lock_guard lock(mutex_);
  return run_next(kNever);
}

void SimFabric::advance(int64_t duration_ns) {
  assert(options_.time == nullptr);
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
  return options_.time != nullptr ? options_.time->now_ns() : virtual_now_ns_;
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
  const std::lock_guard lock(mutex_);
  asked_for_ns_ = kNever;
  const int64_t now = now_locked();
  while (run_next(now)) {
  }
  if (!events_.empty()) ask_for(events_.top().at_ns);
}

void SimFabric::ask_for(int64_t at_ns) {
  if (at_ns >= asked_for_ns_) return;
  asked_for_ns_ = at_ns;
  options_.time->call_at(at_ns, [this] { run_due(); });
}

void SimFabric::wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                     const std::function<bool()>& done, int64_t timeout_ns) {
  const int64_t now = now_locked();
  const int64_t until = timeout_ns > kNever - now ? kNever : now + timeout_ns;
  if (options_.time != nullptr) {
    changed.wait_for(lock, std::chrono::nanoseconds(std::min(timeout_ns, kLongestWaitNs)), done);
    return;
  }
  while (!done() && run_next(until)) {
  }
  if (!done()) move_time_to(until);
}

void SimFabric::schedule(int64_t at_ns, Event event) {
  events_.push({at_ns, next_sequence_++, std::move(event)});
  if (options_.time != nullptr) ask_for(at_ns);
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

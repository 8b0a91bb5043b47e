#include "control/records/clock_monitor.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/guard.h"
#include "base/mutex.h"
#include "base/status.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {

constexpr int64_t kAnswerMs = 500;
constexpr int64_t kIntervalMs = 1'000;
constexpr int64_t kRetryMs = 100;
constexpr char kStamps[] = "stamps";

// The next live nodes by number, in a ring.
std::vector<std::string> neighbours(const Directory::Snapshot& snapshot, const std::string& self) {
  std::vector<std::string> before, after;
  bool passed = false;
  for (const Member& member : snapshot.members) {
    if (member.info.name == self) {
      passed = true;
    } else if (member.live) {
      (passed ? after : before).push_back(member.info.name);
    }
  }
  after.insert(after.end(), before.begin(), before.end());
  if (after.size() > ClockMonitor::kPeers) after.resize(ClockMonitor::kPeers);
  return after;
}

// The calls of one measurement. Outlives the caller's wait: each call holds a share.
struct Round {
  struct Call {
    grpc::ClientContext context;
    v1::Empty request;
    v1::ClockReply reply;
    std::shared_ptr<PeerNode> node;
    ClusterClock::Reading sent;
  };
  Mutex mutex;
  Condition done;
  size_t open SLUICE_GUARDED_BY(mutex) = 0;
  std::vector<std::pair<std::string, int64_t>> ahead_ms SLUICE_GUARDED_BY(mutex);
};

std::string seconds_off(int64_t offset_ms) {
  return fmt::format("{:.1f} s {}", static_cast<double>(std::abs(offset_ms)) / 1000,
                     offset_ms > 0 ? "ahead of" : "behind");
}

}  // namespace

ClockMonitor::ClockMonitor(const NodeContext& context, ClusterClock& clock)
    : context_(context), clock_(clock) {}

ClockMonitor::~ClockMonitor() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ClockMonitor::start() {
  thread_ = guarded_thread("comparing clocks", [this] { run(); });
}

void ClockMonitor::run() {
  std::vector<std::string> live = context_.directory->snapshot()->live_names();
  MutexLock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    guarded("comparing clocks", [this] { measure(); }).IgnoreError();  // logged, and done again
    lock.lock();
    // Clocks that did not answer, and nodes that have just come, are not waited a whole interval
    // for.
    for (int64_t waited = 0; !stopping_ && waited < kIntervalMs; waited += kRetryMs) {
      wake_.wait_for(lock, std::chrono::milliseconds(kRetryMs),
                     [this]() SLUICE_REQUIRES(mutex_) { return stopping_; });
      std::vector<std::string> now = context_.directory->snapshot()->live_names();
      const bool changed = now != live;
      live = std::move(now);
      if (changed || !complete_) break;
    }
  }
}

std::vector<ClockMonitor::Answer> ClockMonitor::ask_peers(uint64_t* steps, size_t* asked) const {
  const auto names = neighbours(*context_.directory->snapshot(), context_.name);
  const auto round = std::make_shared<Round>();
  *steps = clock_.read().steps;
  *asked = names.size();
  for (const std::string& name : names) {
    auto peer = context_.peers->find(name);
    if (!peer.ok()) continue;
    auto* call = new Round::Call;
    call->node = *std::move(peer);
    set_timeout(call->context, kAnswerMs);
    {
      const MutexLock lock(round->mutex);
      ++round->open;
    }
    call->sent = clock_.read();
    call->node->peer().async()->ReadClock(
        &call->context, &call->request, &call->reply,
        [round, call, &clock = clock_](const grpc::Status& status) {
          const std::unique_ptr<Round::Call> owned(call);
          const MutexLock lock(round->mutex);
          if (status.ok()) {
            // The answer was given at some moment of the call: the difference is certain but for
            // half of the call's time.
            const ClusterClock::Reading got = clock.read();
            const int64_t half_ms = (got.monotonic_ns - call->sent.monotonic_ns) / 2'000'000;
            const int64_t ahead = call->reply.machine_ms() - (got.machine_ms - half_ms);
            round->ahead_ms.emplace_back(call->node->name(),
                                         ahead > 0 ? std::max<int64_t>(0, ahead - half_ms)
                                                   : std::min<int64_t>(0, ahead + half_ms));
          }
          --round->open;
          round->done.notify_all();
        });
  }
  // Every call ends by its deadline.
  MutexLock lock(round->mutex);
  round->done.wait(lock, [&]() SLUICE_REQUIRES(round->mutex) { return round->open == 0; });
  std::vector<Answer> answers;
  for (const auto& [node, ahead] : round->ahead_ms) answers.push_back({node, ahead});
  return answers;
}

void ClockMonitor::measure() {
  uint64_t steps = 0;
  size_t asked = 0;
  const std::vector<Answer> answers = ask_peers(&steps, &asked);
  {
    const MutexLock lock(mutex_);
    complete_ = answers.size() == asked;
  }
  // Nobody answers although there are others: what was measured before is the best there is.
  if (answers.empty() && asked > 0) return;
  std::vector<int64_t> others;
  others.reserve(answers.size());
  for (const Answer& answer : answers) others.push_back(answer.ahead_ms);
  const int64_t median = median_ahead_ms(others);
  if (!clock_.set_measured(median, steps)) {
    const MutexLock lock(mutex_);
    complete_ = false;
    return;
  }
  {
    const MutexLock lock(mutex_);
    view_.offset_ms = -median;
    view_.clocks = others.size() + 1;
  }
  report(median, answers);
}

void ClockMonitor::report(int64_t median_ms, const std::vector<Answer>& answers) {
  report_one(context_.name, -median_ms, "this machine's clock");
  for (const Answer& answer : answers) {
    report_one(answer.node, answer.ahead_ms - median_ms,
               fmt::format("the clock of node {}", answer.node));
  }
  const int64_t ahead = context_.store->clock().ahead_ms();
  const bool far = ahead > context_.cluster().max_clock_offset_ms;
  const auto known = reported_.find(kStamps);
  if (far && known == reported_.end()) {
    reported_[kStamps] = ahead;
    spdlog::warn(
        "{}: stamps are {:.1f} s ahead of the cluster's clock, because of records from a clock "
        "that "
        "was ahead; they count on from there until the clock has caught up",
        context_.name, static_cast<double>(ahead) / 1000);
  } else if (ahead == 0 && known != reported_.end()) {
    reported_.erase(known);
    spdlog::info("{}: stamps follow the cluster's clock again", context_.name);
  }
}

void ClockMonitor::report_one(const std::string& key, int64_t offset_ms, const std::string& whose) {
  const int64_t allowed = context_.cluster().max_clock_offset_ms;
  const std::string name = "node/" + key;
  const auto known = reported_.find(name);
  if (std::abs(offset_ms) <= allowed) {
    if (known == reported_.end()) return;
    reported_.erase(known);
    spdlog::info("{}: {} agrees with the cluster's again", context_.name, whose);
    return;
  }
  if (known != reported_.end() && std::abs(offset_ms - known->second) <= allowed) return;
  reported_[name] = offset_ms;
  spdlog::warn(
      "{}: {} is {} the cluster's (the median of the nodes' clocks); its node's stamps follow the "
      "cluster's until it is right: check that machine's time service",
      context_.name, whose, seconds_off(offset_ms));
}

ClockMonitor::View ClockMonitor::view() const {
  View view;
  {
    const MutexLock lock(mutex_);
    view = view_;
  }
  view.stamps_ahead_ms = context_.store->clock().ahead_ms();
  return view;
}

}  // namespace sluice

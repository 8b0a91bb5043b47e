// Sleeping and waking.

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/clock.h"
#include "drivers/rdma/endpoint.h"

namespace sluice::rdma {
namespace {

// Naps of a receiver (see next_nap_ns).
constexpr int64_t kLook = 8 * kMs;       // how often it is asked what streams in
constexpr int64_t kStreamGap = 2 * kMs;  // a stream has a block in this, on average
constexpr uint64_t kStreamBlocks = 4;    // and so many in one look
constexpr int64_t kShortestNap = 50'000;
constexpr int64_t kLongestNap = kMs;
constexpr int64_t kNapPause = 100 * kMs;

}  // namespace

// Whether blocks stream in and none go out. By their rate, not by how many each wait finds: being
// told of every block makes a stream look like single blocks.
void RdmaEndpoint::look_for_stream(int64_t now_ns) {
  const int64_t passed = now_ns - looked_ns_;
  if (passed < kLook) return;
  const TransportCounters& counters = shared_.counters;
  const uint64_t received =
      counters.received_messages - std::exchange(seen_received_, counters.received_messages);
  const uint64_t sent = counters.sent_messages - std::exchange(seen_sent_, counters.sent_messages);
  streams_in_ = sent == 0 && received >= kStreamBlocks &&
                static_cast<int64_t>(received) >= passed / kStreamGap;
  looked_ns_ = now_ns;
}

// How long an endpoint that only receives may sleep without being told of completions; 0: not.
// While blocks stream in, a sleep for a small part of the time that the peer's credits last costs
// nothing, takes many blocks with one wake-up, and leaves the processor to those who need it: the
// peer, or the device where it is software. A nap after which the peer had few credits left was too
// long; a device so fast that the shortest one is gets polled.
int64_t RdmaEndpoint::next_nap_ns(int64_t now_ns) {
  look_for_stream(now_ns);
  const bool ran_low = std::exchange(shared_.ran_low, false);
  if (!streams_in_ || now_ns < no_nap_until_ns_) return 0;
  if (!ran_low) {
    nap_ns_ = std::min(nap_ns_ + nap_ns_ / 8, kLongestNap);
    return nap_ns_;
  }
  nap_ns_ /= 2;
  if (nap_ns_ >= kShortestNap) return nap_ns_;
  nap_ns_ = kShortestNap;
  no_nap_until_ns_ = now_ns + kNapPause;
  return 0;
}

void RdmaEndpoint::wait(int64_t timeout_ns) {
  if (!shared_.completions.empty()) return;
  int64_t now = system_clock().monotonic_ns();
  if (const int64_t nap = next_nap_ns(now); nap > 0 && work_.empty()) {
    if (unsaid_since_ns_ != 0 && now >= unsaid_since_ns_ + kTellWithin) {
      polls_ = kPollsPerLook - 1;  // the next poll looks at the time
    }
    if (collect_events(std::clamp<int64_t>(timeout_ns, 0, nap))) take_wake_ups();
    return;
  }
  const int64_t spin_until = now + std::min(shared_.options.spin_ns, timeout_ns);
  do {
    if (progress() > 0 || !shared_.completions.empty()) return;
    now = system_clock().monotonic_ns();
  } while (now < spin_until);
  shared_.now_ns = now;
  bool armed = true;
  for (const auto& device : devices_) armed = device->arm() && armed;
  // A completion that came before the queues were armed makes no event.
  if (progress() > 0 || !shared_.completions.empty() || !work_.empty()) return;
  int64_t timeout = std::max<int64_t>(timeout_ns, 0);
  if (const int64_t deadline = next_deadline_ns(); deadline != 0) {
    timeout = std::clamp<int64_t>(deadline - now, 0, timeout);
  }
  if (unsaid_since_ns_ != 0) {
    timeout = std::clamp<int64_t>(unsaid_since_ns_ + kTellWithin - now, 0, timeout);
    polls_ = kPollsPerLook - 1;  // the next poll looks at the time
  }
  if (!armed) timeout = std::min(timeout, kMs);
  if (collect_events(timeout)) take_wake_ups();
}

// Only wait() takes wake-ups back, so that one that came during a poll ends the next wait.
void RdmaEndpoint::take_wake_ups() {
  uint64_t count = 0;
  ++shared_.counters.system_calls;
  while (read(wake_.get(), &count, sizeof(count)) < 0 && errno == EINTR) {
  }
}

void RdmaEndpoint::wake() {
  wakes_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t one = 1;
  while (write(wake_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

}  // namespace sluice::rdma

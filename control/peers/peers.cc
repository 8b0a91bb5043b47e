#include "control/peers/peers.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/status.h"

namespace sluice {

namespace {
constexpr int64_t kFirstPauseNs = 100'000'000;
constexpr int64_t kLongestPauseNs = 2'000'000'000;
}  // namespace

PeerNode::PeerNode(std::string name, std::string address, std::unique_ptr<PeerLink> link,
                   Clock& clock)
    : name_(std::move(name)), address_(std::move(address)), clock_(clock), link_(std::move(link)) {}

void PeerNode::note(const grpc::Status& status) {
  const bool absent = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  if (!absent) {
    pause_ns_ = 0;
    resume_ns_ = 0;
    return;
  }
  const int64_t pause = std::clamp(pause_ns_.load() * 2, kFirstPauseNs, kLongestPauseNs);
  pause_ns_ = pause;
  resume_ns_ = clock_.monotonic_ns() + pause;
}

void PeerNode::remember(std::string_view token, uint64_t sequence) {
  const MutexLock lock(mutex_);
  if (token_ != token) {
    token_ = token;
    sequence_ = 0;
  }
  sequence_ = std::max(sequence_, sequence);
}

uint64_t PeerNode::recall(std::string_view token) const {
  const MutexLock lock(mutex_);
  return token_ == token ? sequence_ : 0;
}

bool PeerNode::reserve(int64_t bytes) {
  MutexLock lock(mutex_);
  const bool crowded = clock_.monotonic_ns() < crowded_until_ns_;
  const bool room = room_.wait_for(
      lock, std::chrono::milliseconds(crowded ? 0 : kRoomWaitMs), [&]() SLUICE_REQUIRES(mutex_) {
        return in_flight_ == 0 || in_flight_ + bytes <= kMaxBytesInFlight;
      });
  if (room) {
    in_flight_ += bytes;
  } else if (!crowded) {
    crowded_until_ns_ = clock_.monotonic_ns() + kCrowdedMs * 1'000'000;
  }
  return room;
}

void PeerNode::release(int64_t bytes) {
  {
    const MutexLock lock(mutex_);
    in_flight_ -= bytes;
  }
  room_.notify_all();
}

absl::StatusOr<std::shared_ptr<PeerNode>> Peers::find(std::string_view name) {
  const auto snapshot = directory_.snapshot();
  const Member* member = snapshot->find(name);
  if (member == nullptr) return not_found("no node {} in this cluster", name);
  const MutexLock lock(mutex_);
  auto& node = nodes_[std::string(name)];
  if (node == nullptr || node->address() != member->info.control_address) {
    const std::string& address = member->info.control_address;
    node = std::make_shared<PeerNode>(
        std::string(name), address,
        dialer_.dial({directory_.cluster().uuid, std::string(name)}, address), clock_);
  }
  return node;
}

std::vector<std::string> by_rank(std::vector<std::pair<int, std::string>> ranked) {
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  names.reserve(ranked.size());
  for (auto& [rank, name] : ranked) names.push_back(std::move(name));
  return names;
}

}  // namespace sluice

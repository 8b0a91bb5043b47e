// Links to the cluster's nodes, with a memory of which ones do not answer.
//
// Thread-safe. A node that failed is not asked again before its pause is over (100 ms, doubling to
// 2 s), so that one dead node costs its callers one timeout and not one each; what cannot do
// without it may still ask.
#ifndef SLUICE_CONTROL_PEERS_PEERS_H_
#define SLUICE_CONTROL_PEERS_PEERS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "control/peers/directory.h"
#include "control/peers/peer_link.h"

namespace sluice {

class PeerNode {
 public:
  PeerNode(std::string name, std::string address, std::unique_ptr<PeerLink> link, Clock& clock);

  const std::string& name() const { return name_; }
  const std::string& address() const { return address_; }
  PeerLink& link() { return *link_; }
  v1::Peer::StubInterface& peer() { return link_->peer(); }
  v1::Sluice::StubInterface& serving() { return link_->serving(); }

  // Waits until there is a connection, at most `timeout_ms`.
  bool connect(int64_t timeout_ms) { return link_->connect(timeout_ms); }
  // The same for the first connection alone, which all callers wait for: later ones fail fast.
  void connect_first() {
    std::call_once(first_, [this] { connect(kFirstConnectMs); });
  }
  static constexpr int64_t kFirstConnectMs = 2'000;

  // False while it pauses after a failure.
  bool available() const { return clock_.monotonic_ns() >= resume_ns_.load(); }
  // What a call to it came to. Errors that the node itself gave count as success: it is there.
  void note(const grpc::Status& status);

  // The largest durable sequence that the node answered with, since the join `token`.
  void remember(std::string_view token, uint64_t sequence);
  uint64_t recall(std::string_view token) const;

  // Bytes of requests that have not been answered, at most kMaxBytesInFlight (one request always
  // goes). Waits for room: a node that is only slower than the others slows its callers down
  // instead of missing writes. False when there was none for kRoomWaitMs; for kCrowdedMs
  // after that nobody else waits.
  static constexpr int64_t kMaxBytesInFlight = int64_t{32} << 20;
  static constexpr int64_t kRoomWaitMs = 3'000;
  static constexpr int64_t kCrowdedMs = 2'000;
  bool reserve(int64_t bytes);
  void release(int64_t bytes);

 private:
  const std::string name_;
  const std::string address_;
  Clock& clock_;
  const std::unique_ptr<PeerLink> link_;
  std::once_flag first_;
  std::atomic<int64_t> resume_ns_{0};
  std::atomic<int64_t> pause_ns_{0};
  mutable Mutex mutex_;
  Condition room_;
  std::string token_ SLUICE_GUARDED_BY(mutex_);
  uint64_t sequence_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t in_flight_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t crowded_until_ns_ SLUICE_GUARDED_BY(mutex_) = 0;
};

// The names, those of the least rank first; of equal ranks as they come.
std::vector<std::string> by_rank(std::vector<std::pair<int, std::string>> ranked);

class Peers {
 public:
  // The dialer outlives it, and whoever holds one of its nodes.
  Peers(Directory& directory, Clock& clock, PeerDialer& dialer = grpc_dialer())
      : directory_(directory), clock_(clock), dialer_(dialer) {}
  // NOT_FOUND for a name that is no member. A node that came back under another address gets a new
  // link.
  absl::StatusOr<std::shared_ptr<PeerNode>> find(std::string_view name);
  Directory& directory() { return directory_; }
  Clock& clock() { return clock_; }
  PeerDialer& dialer() { return dialer_; }

 private:
  Directory& directory_;
  Clock& clock_;
  PeerDialer& dialer_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<PeerNode>, std::less<>> nodes_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_PEERS_H_

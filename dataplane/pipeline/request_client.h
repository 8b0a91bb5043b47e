// Sends data writing requests to several nodes and matches their replies: one stream to each node,
// opened when needed and again after it broke. Streams that no call uses are closed where there
// would be more than 64, so that buffers do not grow with the cluster. Used by restores, imports
// and coordinating replicas.
#ifndef SLUICE_DATAPLANE_PIPELINE_REQUEST_CLIENT_H_
#define SLUICE_DATAPLANE_PIPELINE_REQUEST_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "dataplane/pipeline/slot_router.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

// Thread-safe. The number of calls at a time is the caller's to bound.
class RequestClient {
 public:
  static constexpr size_t kStreams = 64;
  struct Options {
    StreamKind kind = StreamKind::kWrite;
    std::string cluster;  // the exchange's own when empty
    std::string job;
    uint64_t attempt = 0;
    size_t receive_blocks = 1;  // of a stream; replies are small
    // The least recently used one is closed before another is opened beyond that. More only where
    // calls use all of them.
    size_t streams = kStreams;
    int64_t tick_ms = 200;  // how often time limits are looked at
    int64_t connect_timeout_ms = 3'000;
    int64_t unreachable_ms = 200;  // after a failed connect, further calls fail at once for so long
    int64_t crowded_ms = 2'000;    // likewise after one that took nothing
  };
  struct Call;
  using CallPtr = std::shared_ptr<Call>;
  // What became of a request: the payload of its reply.
  struct Outcome {
    bool sent = false;  // whether it may have been carried out
    absl::StatusOr<std::string> reply;
  };
  // Called once, on a thread of the client or the caller's own. Must be quick, and not send.
  using Done = std::function<void(Outcome outcome)>;

  RequestClient(Exchange& exchange, const Options& options);
  ~RequestClient();

  uint64_t next_sequence() { return next_sequence_.fetch_add(1) + 1; }
  // Sends a sealed request of this sequence. UNAVAILABLE or the like when the node cannot be
  // reached, or takes nothing for timeout_ms.
  absl::StatusOr<CallPtr> begin(const SlotRoute::Replica& to, BlockBuffer message, uint32_t bytes,
                                uint64_t sequence, int64_t timeout_ms);
  // The same, for who does not wait: `done` is told the outcome, DEADLINE_EXCEEDED when there is no
  // reply for reply_timeout_ms.
  void send(const SlotRoute::Replica& to, BlockBuffer message, uint32_t bytes, uint64_t sequence,
            int64_t timeout_ms, int64_t reply_timeout_ms, Done done);
  // The reply's payload, or why there is none: DEADLINE_EXCEEDED (the stream is closed then, and
  // the next request opens another), or the reason for which the stream broke. The request may then
  // have been carried out or not.
  absl::StatusOr<std::string> finish(const CallPtr& call, int64_t timeout_ms);

 private:
  struct Node;
  Node& node_of(const SlotRoute::Replica& replica);
  // Gives the call a stream to the node, which stays open as long as the call lives.
  absl::Status open_stream(Node& node, const std::string& address, Call& call);
  void close_idle(const Node& but);
  absl::Status post(const CallPtr& call, BlockBuffer message, uint32_t bytes, int64_t timeout_ms);
  void run();
  void expire();
  void on_reply(Inbox::Delivery& delivery);
  void on_closed(const std::shared_ptr<Stream>& stream);

  Exchange& exchange_;
  const Options options_;
  const std::shared_ptr<Inbox> inbox_ = Inbox::create();
  std::atomic<uint64_t> next_sequence_{0};
  std::atomic<bool> stopping_{false};

  Mutex mutex_;
  std::map<std::string, std::unique_ptr<Node>> nodes_ SLUICE_GUARDED_BY(mutex_);
  using CallKey = std::pair<uint64_t, uint64_t>;  // its stream's number, its sequence
  std::map<CallKey, CallPtr> calls_ SLUICE_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_REQUEST_CLIENT_H_

// Sends data writing requests to several nodes and matches their replies: one stream to each node,
// opened when needed and again after it broke. Used by a restore and by a coordinating replica.
// Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_REQUEST_CLIENT_H_
#define SLUICE_DATAPLANE_PIPELINE_REQUEST_CLIENT_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "dataplane/pipeline/slot_router.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

// Thread-safe. The number of calls at a time is the caller's to bound.
class RequestClient {
 public:
  struct Options {
    StreamKind kind = StreamKind::kWrite;
    std::string cluster;  // the exchange's own when empty
    std::string job;
    uint64_t attempt = 0;
    size_t receive_blocks = 2;
    int64_t connect_timeout_ms = 3'000;
    int64_t unreachable_ms = 200;  // after a failed connect, further calls fail at once for so long
  };
  struct Call;
  using CallPtr = std::shared_ptr<Call>;

  RequestClient(Exchange& exchange, const Options& options);
  ~RequestClient();

  uint64_t next_sequence() { return next_sequence_.fetch_add(1) + 1; }
  // Sends a sealed kWriteRequest of this sequence. UNAVAILABLE or the like when the node cannot be
  // reached.
  absl::StatusOr<CallPtr> begin(const SlotRoute::Replica& to, BlockBuffer message, uint32_t bytes,
                                uint64_t sequence, int64_t timeout_ms);
  // The reply, or why there is none: DEADLINE_EXCEEDED (the stream is closed then, and the next
  // request opens another), or the reason for which the stream broke.
  // The request may then have been carried out or not.
  absl::StatusOr<WriteReply> finish(const CallPtr& call, int64_t timeout_ms);

 private:
  struct Node;
  Node& node_of(const SlotRoute::Replica& replica);
  absl::StatusOr<std::shared_ptr<Stream>> stream_to(Node& node, const std::string& address);
  void run();
  void on_reply(Inbox::Delivery& delivery);
  void on_closed(const std::shared_ptr<Stream>& stream);

  Exchange& exchange_;
  const Options options_;
  const std::shared_ptr<Inbox> inbox_ = Inbox::create();
  std::atomic<uint64_t> next_sequence_{0};
  std::atomic<bool> stopping_{false};

  std::mutex mutex_;
  std::condition_variable changed_;  // a call was answered
  std::map<std::string, std::unique_ptr<Node>> nodes_;
  std::map<std::pair<const Stream*, uint64_t>, CallPtr> calls_;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_REQUEST_CLIENT_H_

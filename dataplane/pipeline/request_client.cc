#include "dataplane/pipeline/request_client.h"

#include <chrono>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kTakeMs = 200;

}  // namespace

struct RequestClient::Call {
  std::shared_ptr<Stream> stream;
  uint64_t sequence = 0;
  // Under the client's mutex:
  bool done = false;
  absl::StatusOr<WriteReply> reply = absl::UnknownError("no reply");
};

struct RequestClient::Node {
  std::string name;
  std::mutex mutex;  // held while connecting: who else wants the stream waits for it
  std::shared_ptr<Stream> stream;
  std::string address;
  absl::Status failure;
  int64_t failed_ns = 0;
};

RequestClient::RequestClient(Exchange& exchange, const Options& options)
    : exchange_(exchange), options_(options) {
  thread_ = std::thread([this] { run(); });
}

RequestClient::~RequestClient() {
  stopping_ = true;
  inbox_->shut_down();
  thread_.join();
  for (auto& [name, node] : nodes_) {
    if (node->stream != nullptr) node->stream->close(absl::OkStatus());
  }
}

RequestClient::Node& RequestClient::node_of(const SlotRoute::Replica& replica) {
  std::lock_guard lock(mutex_);
  std::unique_ptr<Node>& node = nodes_[replica.node];
  if (node == nullptr) {
    node = std::make_unique<Node>();
    node->name = replica.node;
  }
  return *node;
}

absl::StatusOr<std::shared_ptr<Stream>> RequestClient::stream_to(Node& node,
                                                                 const std::string& address) {
  std::lock_guard lock(node.mutex);
  if (node.stream != nullptr && !node.stream->closed() && node.address == address) {
    return node.stream;
  }
  if (!node.failure.ok() && node.address == address &&
      exchange_.clock().monotonic_ns() - node.failed_ns < options_.unreachable_ms * kMs) {
    return node.failure;
  }
  node.stream.reset();
  node.address = address;
  Exchange::ConnectOptions options;
  options.address = address;
  options.kind = options_.kind;
  options.cluster = options_.cluster;
  options.target = node.name;
  options.job = options_.job;
  options.attempt = options_.attempt;
  options.receive_blocks = options_.receive_blocks;
  options.inbox = inbox_;
  options.timeout_ms = options_.connect_timeout_ms;
  absl::StatusOr<std::shared_ptr<Stream>> stream = exchange_.connect(options);
  node.failure = stream.status();
  node.failed_ns = exchange_.clock().monotonic_ns();
  if (stream.ok()) node.stream = *stream;
  return stream;
}

absl::StatusOr<RequestClient::CallPtr> RequestClient::begin(const SlotRoute::Replica& to,
                                                            BlockBuffer message, uint32_t bytes,
                                                            uint64_t sequence, int64_t timeout_ms) {
  auto call = std::make_shared<Call>();
  SLUICE_ASSIGN_OR_RETURN(call->stream, stream_to(node_of(to), to.address));
  call->sequence = sequence;
  const std::pair<const Stream*, uint64_t> key{call->stream.get(), sequence};
  {
    std::lock_guard lock(mutex_);
    calls_.emplace(key, call);
  }
  if (absl::Status status = call->stream->send(std::move(message), bytes, timeout_ms);
      !status.ok()) {
    std::lock_guard lock(mutex_);
    calls_.erase(key);
    return status;
  }
  if (call->stream->closed())
    on_closed(call->stream);  // its last delivery may have come before the call
  return call;
}

absl::StatusOr<WriteReply> RequestClient::finish(const CallPtr& call, int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return call->done; })) {
    calls_.erase({call->stream.get(), call->sequence});
    lock.unlock();
    // A stream that is stuck stays so, and would hold up every further request to its node.
    const absl::Status stuck = deadline_exceeded("no reply for {} ms", timeout_ms);
    call->stream->close(stuck);
    return stuck;
  }
  return std::move(call->reply);
}

void RequestClient::run() {
  Inbox::Delivery delivery;
  while (!stopping_) {
    if (!inbox_->take(kTakeMs, &delivery)) continue;
    if (delivery.closed) {
      on_closed(delivery.stream);
    } else {
      on_reply(delivery);
    }
    delivery = {};
  }
}

void RequestClient::on_reply(Inbox::Delivery& delivery) {
  const Envelope& envelope = delivery.message.envelope;
  if (envelope.kind != MessageKind::kWriteReply) {
    delivery.stream->close(
        data_loss("a message of kind {} where replies are due", static_cast<int>(envelope.kind)));
    return;
  }
  absl::StatusOr<WriteReply> reply = WriteReply::decode(as_string_view(delivery.message.payload()));
  std::lock_guard lock(mutex_);
  const auto found = calls_.find({delivery.stream.get(), envelope.sequence});
  if (found == calls_.end()) return;  // nobody waits any more
  found->second->reply = std::move(reply);
  found->second->done = true;
  calls_.erase(found);
  changed_.notify_all();
}

void RequestClient::on_closed(const std::shared_ptr<Stream>& stream) {
  const absl::Status reason = stream->closed_reason();
  std::lock_guard lock(mutex_);
  auto at = calls_.lower_bound({stream.get(), 0});
  while (at != calls_.end() && at->first.first == stream.get()) {
    at->second->reply = reason;
    at->second->done = true;
    at = calls_.erase(at);
  }
  changed_.notify_all();
}

}  // namespace sluice

#include "dataplane/pipeline/request_client.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"

namespace sluice {

struct RequestClient::Call {
  Call() = default;
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  Node* node = nullptr;  // whose stream it uses
  std::shared_ptr<Stream> stream;
  uint64_t sequence = 0;
  int64_t deadline_ns = 0;  // of one with on_done
  Done on_done;
  // With the client's mutex held:
  Condition answered;
  bool done = false;
  absl::StatusOr<std::string> reply = absl::UnknownError("no reply");
};

struct RequestClient::Node {
  std::string name;
  std::atomic<size_t> calls{0};  // that use its stream; raised under the mutex
  std::atomic<bool> open{false};
  std::atomic<int64_t> used_ns{0};
  Mutex mutex;  // held while connecting: who else wants the stream waits for it
  std::shared_ptr<Stream> stream SLUICE_GUARDED_BY(mutex);
  std::string address SLUICE_GUARDED_BY(mutex);
  absl::Status failure SLUICE_GUARDED_BY(mutex);
  int64_t failed_ns SLUICE_GUARDED_BY(mutex) = 0;
  bool crowded SLUICE_GUARDED_BY(mutex) = false;  // the failure is that it took nothing
};

RequestClient::Call::~Call() {
  if (node != nullptr) node->calls.fetch_sub(1);
}

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
  for (auto& [key, call] : calls_) {
    if (call->on_done) call->on_done({true, cancelled("the client of requests has ended")});
  }
}

RequestClient::Node& RequestClient::node_of(const SlotRoute::Replica& replica) {
  const MutexLock lock(mutex_);
  std::unique_ptr<Node>& node = nodes_[replica.node];
  if (node == nullptr) {
    node = std::make_unique<Node>();
    node->name = replica.node;
  }
  return *node;
}

absl::Status RequestClient::open_stream(Node& node, const std::string& address, Call& call) {
  const MutexLock lock(node.mutex);
  const int64_t now = exchange_.clock().monotonic_ns();
  const int64_t since_ms = (now - node.failed_ns) / kMs;
  const int64_t pause_ms = node.crowded ? options_.crowded_ms : options_.unreachable_ms;
  const bool failed = !node.failure.ok() && node.address == address && since_ms < pause_ms;
  if (failed && node.crowded) return node.failure;
  if (node.stream == nullptr || node.stream->closed() || node.address != address) {
    if (failed) return node.failure;
    node.stream.reset();
    node.open = false;
    node.address = address;
    close_idle(node);
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
    node.crowded = false;
    node.failed_ns = exchange_.clock().monotonic_ns();
    SLUICE_RETURN_IF_ERROR(stream.status());
    node.stream = *std::move(stream);
    node.open = true;
  }
  node.used_ns = now;
  call.stream = node.stream;
  call.node = &node;
  ++node.calls;
  return absl::OkStatus();
}

// Makes room for one more stream, to `but`.
void RequestClient::close_idle(const Node& but) {
  std::vector<Node*> idle;
  size_t open = 0;
  {
    const MutexLock lock(mutex_);
    for (const auto& [name, node] : nodes_) {
      if (node.get() == &but || !node->open) continue;
      ++open;
      if (node->calls == 0) idle.push_back(node.get());
    }
  }
  std::sort(idle.begin(), idle.end(),
            [](const Node* a, const Node* b) { return a->used_ns < b->used_ns; });
  for (Node* node : idle) {
    if (open < options_.streams) return;
    // One that somebody is about to use is not idle.
    if (!node->mutex.try_lock()) continue;
    if (node->calls == 0 && node->stream != nullptr) {
      node->stream->close(absl::OkStatus());
      node->stream.reset();
      node->open = false;
      --open;
    }
    node->mutex.unlock();
  }
}

absl::StatusOr<RequestClient::CallPtr> RequestClient::begin(const SlotRoute::Replica& to,
                                                            BlockBuffer message, uint32_t bytes,
                                                            uint64_t sequence, int64_t timeout_ms) {
  auto call = std::make_shared<Call>();
  SLUICE_RETURN_IF_ERROR(open_stream(node_of(to), to.address, *call));
  call->sequence = sequence;
  SLUICE_RETURN_IF_ERROR(post(call, std::move(message), bytes, timeout_ms));
  return call;
}

void RequestClient::send(const SlotRoute::Replica& to, BlockBuffer message, uint32_t bytes,
                         uint64_t sequence, int64_t timeout_ms, int64_t reply_timeout_ms,
                         Done done) {
  Node& node = node_of(to);
  auto call = std::make_shared<Call>();
  if (absl::Status status = open_stream(node, to.address, *call); !status.ok()) {
    return done({false, status});
  }
  call->sequence = sequence;
  call->deadline_ns = exchange_.clock().monotonic_ns() + reply_timeout_ms * kMs;
  call->on_done = std::move(done);
  const absl::Status status = post(call, std::move(message), bytes, timeout_ms);
  if (status.ok()) return;
  // One that takes nothing is not waited for by each request after this one.
  {
    const MutexLock lock(node.mutex);
    node.failure = status;
    node.failed_ns = exchange_.clock().monotonic_ns();
    node.crowded = true;
  }
  call->on_done({false, status});
}

absl::Status RequestClient::post(const CallPtr& call, BlockBuffer message, uint32_t bytes,
                                 int64_t timeout_ms) {
  const CallKey key{call->stream->number(), call->sequence};
  {
    const MutexLock lock(mutex_);
    calls_.emplace(key, call);
  }
  if (absl::Status status = call->stream->send(std::move(message), bytes, timeout_ms);
      !status.ok()) {
    const MutexLock lock(mutex_);
    // Its stream may have closed meanwhile, which has answered it.
    return calls_.erase(key) > 0 || !call->on_done ? status : absl::OkStatus();
  }
  if (call->stream->closed())
    on_closed(call->stream);  // its last delivery may have come before the call
  return absl::OkStatus();
}

absl::StatusOr<std::string> RequestClient::finish(const CallPtr& call, int64_t timeout_ms) {
  MutexLock lock(mutex_);
  if (!call->answered.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                               [&] { return call->done; })) {
    calls_.erase({call->stream->number(), call->sequence});
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
  int64_t expired_ns = exchange_.clock().monotonic_ns();
  while (!stopping_) {
    const bool taken = inbox_->take(options_.tick_ms, &delivery);
    if (const int64_t now = exchange_.clock().monotonic_ns();
        now - expired_ns >= options_.tick_ms * kMs) {
      expired_ns = now;
      expire();
    }
    if (!taken) continue;
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
  CallPtr call;
  {
    const MutexLock lock(mutex_);
    const auto found = calls_.find({delivery.stream->number(), envelope.sequence});
    if (found == calls_.end()) return;  // nobody waits any more
    call = found->second;
    calls_.erase(found);
    call->reply = std::string(as_string_view(delivery.message.payload()));
    call->done = true;
    call->answered.notify_one();
  }
  if (call->on_done) call->on_done({true, std::move(call->reply)});
}

// Requests of which nobody waits for the reply. Their stream stays: who is slow answers others.
void RequestClient::expire() {
  const int64_t now = exchange_.clock().monotonic_ns();
  std::vector<CallPtr> late;
  {
    const MutexLock lock(mutex_);
    for (auto at = calls_.begin(); at != calls_.end();) {
      const bool over = at->second->on_done && at->second->deadline_ns <= now;
      if (over) late.push_back(at->second);
      at = over ? calls_.erase(at) : std::next(at);
    }
  }
  for (const CallPtr& call : late) {
    call->on_done({true, deadline_exceeded("no reply in time")});
  }
}

void RequestClient::on_closed(const std::shared_ptr<Stream>& stream) {
  const absl::Status reason = stream->closed_reason();
  std::vector<CallPtr> ended;
  {
    const MutexLock lock(mutex_);
    auto at = calls_.lower_bound({stream->number(), 0});
    while (at != calls_.end() && at->first.first == stream->number()) {
      at->second->reply = reason;
      at->second->done = true;
      at->second->answered.notify_one();
      ended.push_back(at->second);
      at = calls_.erase(at);
    }
  }
  for (const CallPtr& call : ended) {
    if (call->on_done) call->on_done({true, reason});
  }
}

}  // namespace sluice

#include "drivers/sim/sim_endpoint.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "drivers/sim/sim.h"

namespace sluice {
namespace sim {
namespace {

std::string node_of(std::string_view address) {
  return std::string(address.substr(0, address.find(':')));
}

}  // namespace

SimEndpoint::SimEndpoint(SimFabric& fabric, std::string node, Arena& arena, std::string address)
    : fabric_(fabric),
      node_(std::move(node)),
      address_(std::move(address)),
      max_message_bytes_(std::min(arena.buffer_bytes(), kBufferBytes)),
      counters_(std::make_shared<TransportCounters>()) {}

SimEndpoint::~SimEndpoint() {
  std::lock_guard lock(fabric_.mutex());
  fabric_.detach(this);
  for (auto& [id, half] : halves_) {
    half->owner = nullptr;
    half->finished = true;
    half->in_flight = {};
    half->receives = {};
    const HalfPtr peer = std::exchange(half->peer, nullptr);
    if (peer == nullptr) continue;
    transmit(fabric_, half, peer, 0, [peer, node = node_] {
      finish(peer,
             unavailable("connection to {} lost: the peer closed it without the closing handshake",
                         node));
    });
  }
}

SimEndpoint::HalfPtr SimEndpoint::find(ConnectionId id) const {
  const auto found = halves_.find(id);
  return found == halves_.end() ? nullptr : found->second;
}

SimEndpoint::HalfPtr SimEndpoint::make_half(const std::string& peer_node) {
  auto half = std::make_shared<Half>();
  half->owner = this;
  half->counters = counters_;
  half->id = next_id_++;
  half->node = node_;
  half->peer_node = peer_node;
  halves_.emplace(half->id, half);
  return half;
}

void SimEndpoint::push(Completion completion) {
  completions_.push_back(std::move(completion));
  something_.notify_all();
}

void SimEndpoint::transmit(SimFabric& fabric, const HalfPtr& from, const HalfPtr& to, size_t bytes,
                           SimFabric::Event event) {
  from->counters->sent_bytes += bytes;
  fabric.transmit(from->node, to->node, bytes, [to, bytes, event = std::move(event)] {
    to->counters->received_bytes += bytes;
    event();
  });
}

void SimEndpoint::announce(const HalfPtr& half, CompletionKind kind) {
  half->open = true;
  Completion completion;
  completion.kind = kind;
  completion.connection = half->id;
  completion.peer = half->peer_node;
  half->owner->push(std::move(completion));
}

absl::StatusOr<ConnectionId> SimEndpoint::connect(std::string_view address) {
  const std::string node = node_of(address);
  if (node.empty()) return invalid_argument("address \"{}\": give NODE or NODE:SERVICE", address);
  std::lock_guard lock(fabric_.mutex());
  const HalfPtr half = make_half(node);
  if (dead_) {
    finish(half, unavailable("connect to {}: node {} has crashed", address, node_));
    return half->id;
  }
  counters_->sent_bytes += kPreambleBytes;
  fabric_.transmit(node_, node, kPreambleBytes,
                   [&fabric = fabric_, half, text = std::string(address),
                    max = max_message_bytes_] { arrive_connect(fabric, half, text, max); });
  fabric_.schedule(fabric_.now_locked() + kConnectTimeoutNs, [half, text = std::string(address)] {
    if (!half->open) finish(half, deadline_exceeded("connect to {}: no answer in time", text));
  });
  something_.notify_all();
  return half->id;
}

SimEndpoint* SimEndpoint::find_listener(SimFabric& fabric, std::string_view address) {
  for (const auto& [node, participant] : fabric.participants()) {
    auto* endpoint = dynamic_cast<SimEndpoint*>(participant);
    if (endpoint != nullptr && endpoint->listens_on(address)) return endpoint;
  }
  return nullptr;
}

// At the called node.
void SimEndpoint::arrive_connect(SimFabric& fabric, const HalfPtr& caller,
                                 const std::string& address, size_t caller_max) {
  if (caller->finished) return;
  SimEndpoint* listener = find_listener(fabric, address);
  if (listener != nullptr) {
    listener->counters_->received_bytes += kPreambleBytes;
    listener->accept(caller, caller_max);
    return;
  }
  // Not by transmit(): a machine refuses for a process that has crashed, too.
  fabric.schedule(fabric.now_locked() + fabric.options().delay_ns, [caller, address] {
    finish(caller, unavailable("connect to {}: nobody listens there", address));
  });
}

void SimEndpoint::accept(const HalfPtr& caller, size_t caller_max) {
  const HalfPtr half = make_half(caller->node);
  if (caller_max != max_message_bytes_) {
    const absl::Status status = failed_precondition(
        "peers {} and {} have largest messages of {} and {} bytes; give both the same arena "
        "buffer size",
        caller->node, node_, caller_max, max_message_bytes_);
    transmit(fabric_, half, caller, kPreambleBytes, [caller, status] { finish(caller, status); });
    finish(half, status);
    return;
  }
  half->peer = caller;
  transmit(fabric_, half, caller, kPreambleBytes, [&fabric = fabric_, half, caller] {
    if (caller->finished) {
      if (half->finished) return;
      transmit(fabric, caller, half, 0, [half] {
        finish(half,
               unavailable("connection to {} lost: the peer closed it at once", half->peer_node));
      });
      return;
    }
    caller->peer = half;
    announce(caller, CompletionKind::kConnected);
    if (!caller->receives.empty()) grant(fabric, caller, caller->receives.size());
  });
  announce(half, CompletionKind::kAccepted);
}

void SimEndpoint::grant(SimFabric& fabric, const HalfPtr& from, size_t count) {
  const HalfPtr to = from->peer;
  transmit(fabric, from, to, kControlBytes, [to, count] {
    to->credits += count;
    if (to->owner != nullptr) to->owner->something_.notify_all();
  });
}

size_t SimEndpoint::post_recv(ConnectionId id, std::span<BlockBuffer> buffers) {
  std::lock_guard lock(fabric_.mutex());
  const HalfPtr half = find(id);
  if (half == nullptr || half->closing || half->peer_closed) return 0;
  const size_t accepted = std::min(buffers.size(), kDepth - half->receives.size());
  for (size_t i = 0; i < accepted; ++i) half->receives.push_back(std::move(buffers[i]));
  if (accepted > 0 && half->open && half->peer != nullptr) grant(fabric_, half, accepted);
  return accepted;
}

size_t SimEndpoint::credits(ConnectionId id) const {
  std::lock_guard lock(fabric_.mutex());
  const HalfPtr half = find(id);
  if (half == nullptr || !half->open || half->closing || half->peer_closed) return 0;
  return std::min(half->credits, kDepth - half->in_flight.size());
}

size_t SimEndpoint::post_send(ConnectionId id, std::span<SendRequest> requests) {
  const size_t allowed = credits(id);
  std::lock_guard lock(fabric_.mutex());
  const HalfPtr half = find(id);
  // What credits() saw may be over by now, by another thread's events; it cannot have become less
  // otherwise.
  if (half == nullptr || half->closing || half->peer_closed || half->peer == nullptr) return 0;
  const size_t accepted = std::min(allowed, requests.size());
  for (size_t i = 0; i < accepted; ++i) {
    assert(requests[i].buffer && requests[i].bytes >= 1 && requests[i].bytes <= max_message_bytes_);
    const size_t bytes = requests[i].bytes;
    half->in_flight.push_back(std::move(requests[i]));
    --half->credits;
    ++counters_->sent_messages;
    transmit(fabric_, half, half->peer, kHeaderBytes + bytes,
             [&fabric = fabric_, half, to = half->peer] { deliver(fabric, half, to); });
  }
  return accepted;
}

// At the receiving node. The sender's memory is read now: until then a broken connection may take
// it back.
void SimEndpoint::deliver(SimFabric& fabric, const HalfPtr& from, const HalfPtr& to) {
  if (from->finished || to->finished) return;
  const SendRequest& request = from->in_flight[from->delivered++];
  assert(!to->receives.empty());
  Completion completion;
  completion.kind = CompletionKind::kReceived;
  completion.connection = to->id;
  completion.bytes = request.bytes;
  completion.buffer = to->receives.pop_front();
  std::memcpy(completion.buffer.data(), request.buffer.data(), request.bytes);
  ++to->counters->received_messages;
  to->owner->push(std::move(completion));
  transmit(fabric, to, from, kControlBytes, [from] {
    if (from->finished) return;
    SendRequest sent = from->in_flight.pop_front();
    --from->delivered;
    Completion done;
    done.kind = CompletionKind::kSent;
    done.connection = from->id;
    done.bytes = sent.bytes;
    done.buffer = std::move(sent.buffer);
    from->owner->push(std::move(done));
    check_finished(from);
  });
}

void SimEndpoint::close(ConnectionId id) {
  std::lock_guard lock(fabric_.mutex());
  const HalfPtr half = find(id);
  if (half == nullptr || half->closing) return;
  if (!half->open) {
    finish_with(half, absl::OkStatus(),
                cancelled("the connection was closed before it was established"));
    return;
  }
  send_close(fabric_, half);
  check_finished(half);
}

void SimEndpoint::abort(ConnectionId id) {
  std::lock_guard lock(fabric_.mutex());
  const HalfPtr half = find(id);
  if (half == nullptr) return;
  if (const HalfPtr peer = half->peer; peer != nullptr) {
    transmit(fabric_, half, peer, 0, [peer, node = node_] {
      finish(peer, unavailable("connection to {} lost: the peer aborted it", node));
    });
  }
  finish(half, cancelled("the connection to {} was aborted", half->peer_node));
}

// Behind all that was sent before, since a path keeps the order.
void SimEndpoint::send_close(SimFabric& fabric, const HalfPtr& half) {
  half->closing = true;
  transmit(fabric, half, half->peer, kControlBytes, [&fabric, half, to = half->peer] {
    if (to->finished) return;
    to->peer_closed = true;
    if (!to->closing && to->peer != nullptr) send_close(fabric, to);
    check_finished(to);
  });
}

void SimEndpoint::check_finished(const HalfPtr& half) {
  if (half->finished || !half->closing || !half->peer_closed || !half->in_flight.empty()) return;
  finish_with(half, absl::OkStatus(),
              cancelled("the connection to {} was closed", half->peer_node));
}

void SimEndpoint::finish(const HalfPtr& half, const absl::Status& status) {
  finish_with(half, status, status);
}

void SimEndpoint::finish_with(const HalfPtr& half, const absl::Status& status,
                              const absl::Status& buffers) {
  if (half->finished) return;
  half->finished = true;
  half->peer = nullptr;
  SimEndpoint* owner = half->owner;
  auto give_back = [&](CompletionKind kind, BlockBuffer buffer) {
    Completion completion;
    completion.kind = kind;
    completion.connection = half->id;
    completion.buffer = std::move(buffer);
    completion.status = buffers;
    owner->push(std::move(completion));
  };
  while (!half->in_flight.empty())
    give_back(CompletionKind::kSent, half->in_flight.pop_front().buffer);
  while (!half->receives.empty()) give_back(CompletionKind::kReceived, half->receives.pop_front());
  Completion closed;
  closed.kind = CompletionKind::kClosed;
  closed.connection = half->id;
  closed.status = status;
  closed.peer = half->peer_node;
  owner->push(std::move(closed));
  owner->halves_.erase(half->id);
}

size_t SimEndpoint::poll(std::span<Completion> completions) {
  std::lock_guard lock(fabric_.mutex());
  const size_t count = std::min(completions.size(), completions_.size());
  for (size_t i = 0; i < count; ++i) completions[i] = completions_.pop_front();
  return count;
}

void SimEndpoint::wait(int64_t timeout_ns) {
  std::unique_lock lock(fabric_.mutex());
  fabric_.wait(
      lock, something_, [this] { return woken_ || !completions_.empty(); }, timeout_ns);
  woken_ = false;
}

void SimEndpoint::wake() {
  std::lock_guard lock(fabric_.mutex());
  woken_ = true;
  something_.notify_all();
}

TransportCounters SimEndpoint::counters() const {
  std::lock_guard lock(fabric_.mutex());
  return *counters_;
}

void SimEndpoint::on_cut(const std::string& peer_node) {
  std::vector<HalfPtr> cut;
  for (const auto& [id, half] : halves_) {
    if (half->peer_node == peer_node) cut.push_back(half);
  }
  for (const HalfPtr& half : cut)
    finish(half, unavailable("connection to {} lost: cut", peer_node));
}

void SimEndpoint::on_crash() {
  dead_ = true;
  std::vector<HalfPtr> broken;
  for (const auto& [id, half] : halves_) broken.push_back(half);
  for (const HalfPtr& half : broken) {
    if (const HalfPtr peer = half->peer; peer != nullptr) {
      transmit(fabric_, half, peer, 0, [peer, node = node_] {
        finish(peer, unavailable("connection to {} lost: its node crashed", node));
      });
    }
    finish(half, unavailable("node {} crashed", node_));
  }
}

}  // namespace sim

TransportLimits SimTransport::limits() const {
  TransportLimits limits;
  limits.max_message_bytes = kBufferBytes;
  limits.receive_depth = sim::kDepth;
  limits.send_depth = sim::kDepth;
  limits.copies_on_send = false;
  limits.copies_on_receive = true;
  return limits;
}

absl::StatusOr<std::unique_ptr<Endpoint>> SimTransport::open(Arena& arena,
                                                             std::string_view listen) {
  std::lock_guard lock(fabric_.mutex());
  if (fabric_.crashed(node_)) return unavailable("node {} has crashed", node_);
  if (!listen.empty() && sim::node_of(listen) != node_) {
    return invalid_argument("listen on \"{}\": give {} or {}:SERVICE", listen, node_, node_);
  }
  for (const auto& [node, participant] : fabric_.participants()) {
    const auto* other = dynamic_cast<const sim::SimEndpoint*>(participant);
    if (other != nullptr && other->listens_on(listen)) {
      return failed_precondition("listen on {}: another endpoint does", listen);
    }
  }
  auto endpoint = std::make_unique<sim::SimEndpoint>(fabric_, node_, arena, std::string(listen));
  fabric_.attach(node_, endpoint.get());
  return absl::StatusOr<std::unique_ptr<Endpoint>>(std::move(endpoint));
}

}  // namespace sluice

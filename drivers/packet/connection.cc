#include "drivers/packet/connection.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/status.h"

namespace sluice::packet {
namespace {

constexpr int64_t kFirstGreeting = 50 * kMillisecond;
// A peer's depth above this is broken: no endpoint posts so many.
constexpr uint32_t kMaxDepth = 1 << 20;
// A device that reads a block for so long after the connection's end will not give it back.
constexpr int64_t kDrainFor = 5 * kSecond;

}  // namespace

void Outbox::flush(PacketPort* port, TransportCounters* counters) {
  if (count_ == 0) return;
  for (size_t i = 0; i < count_; ++i) {
    burst_[i] = places_[i].packet;
    burst_[i].header = places_[i].header.data();
  }
  size_t sent = 0;
  while (sent < count_) {
    const size_t accepted = port->send_burst(std::span(burst_).subspan(sent, count_ - sent));
    if (accepted == 0) break;
    for (size_t i = sent; i < sent + accepted; ++i) {
      counters->sent_bytes += burst_[i].header_bytes + burst_[i].payload_bytes;
      if (places_[i].queued != nullptr) --*places_[i].queued;
    }
    sent += accepted;
  }
  if (sent == 0) return;
  for (size_t i = sent; i < count_; ++i) places_[i - sent] = places_[i];
  count_ -= sent;
}

void Outbox::forget(const void* owner) {
  size_t kept = 0;
  for (size_t i = 0; i < count_; ++i) {
    // What has no payload may as well go out: it may be the peer's reset.
    if (places_[i].owner == owner && places_[i].queued != nullptr) {
      --*places_[i].queued;
      continue;
    }
    if (kept != i) places_[kept] = places_[i];
    ++kept;
  }
  count_ = kept;
}

Connection::Connection(Shared* shared, ConnectionId id, uint64_t wire_id, const PeerAddress& peer,
                       std::string peer_text, bool initiator)
    : shared_(shared),
      id_(id),
      wire_id_(wire_id),
      peer_(peer),
      peer_text_(std::move(peer_text)),
      initiator_(initiator),
      state_(initiator ? State::kConnecting : State::kGreeting),
      began_ns_(shared->now_ns),
      greeting_at_ns_(shared->now_ns),
      receives_(shared->options.receive_depth),
      heard_ns_(shared->now_ns),
      progress_ns_(shared->now_ns) {}

Completion Connection::completion(CompletionKind kind) const {
  Completion made;
  made.kind = kind;
  made.connection = id_;
  if (kind != CompletionKind::kReceived && kind != CompletionKind::kSent) made.peer = peer_text_;
  return made;
}

bool Connection::begin(Frame* frame, Type type) {
  if (shared_->outbox.full()) shared_->outbox.flush(shared_->port, &shared_->counters);
  if (shared_->outbox.full()) return false;
  frame->type = type;
  frame->connection = peer_wire_id_;
  frame->from = wire_id_;
  return true;
}

void Connection::post(const Frame& frame) {
  Outbox::Place& place = shared_->outbox.next();
  place.packet = {};
  place.packet.to = peer_;
  place.packet.header_bytes = static_cast<uint32_t>(encode(frame, place.header.data()));
  place.queued = nullptr;
  place.owner = this;
  shared_->outbox.push();
}

// ---- the handshake

void Connection::send_hello() {
  Frame frame;
  if (!begin(&frame, Type::kHello)) return;
  frame.connection = 0;
  frame.cookie = cookie_;
  frame.max_message_bytes = shared_->max_message_bytes;
  frame.receive_depth = static_cast<uint32_t>(receives_.size());
  frame.max_packet_bytes = shared_->max_packet_bytes;
  post(frame);
}

void Connection::greet(const Frame& hello) {
  peer_wire_id_ = hello.from;
  peer_depth_ = hello.receive_depth;
  agreed_packet_bytes_ = std::min(shared_->max_packet_bytes, hello.max_packet_bytes);
}

void Connection::send_welcome() {
  Frame frame;
  if (!begin(&frame, Type::kWelcome)) return;
  frame.max_message_bytes = shared_->max_message_bytes;
  frame.receive_depth = static_cast<uint32_t>(receives_.size());
  frame.max_packet_bytes = agreed_packet_bytes_;
  post(frame);
}

void Connection::take_cookie(const Frame& frame) {
  if (state_ != State::kConnecting || frame.cookie == 0 || frame.cookie == cookie_) return;
  cookie_ = frame.cookie;
  send_hello();
}

void Connection::take_welcome(const Frame& frame) {
  if (state_ == State::kOpen && frame.from == peer_wire_id_) {
    ack_now_ = true;  // it has not heard from this side yet
    return;
  }
  if (state_ != State::kConnecting) return;
  if (frame.max_message_bytes != shared_->max_message_bytes || frame.receive_depth == 0 ||
      frame.receive_depth > kMaxDepth || frame.max_packet_bytes < kMinPacketBytes ||
      frame.max_packet_bytes > shared_->max_packet_bytes) {
    peer_wire_id_ = frame.from;
    broken(aborted("its welcome cannot be: messages of {} bytes, receive depth {}, packets of {}",
                   frame.max_message_bytes, frame.receive_depth, frame.max_packet_bytes));
    return;
  }
  peer_wire_id_ = frame.from;
  heard_ns_ = shared_->now_ns;
  open(frame.max_packet_bytes, frame.receive_depth);
  ping_due_ = true;  // the responder opens with the first packet that it gets
}

void Connection::take_refusal(const Frame& frame) {
  if (state_ != State::kConnecting) return;
  absl::Status why;
  switch (static_cast<RefusalCode>(frame.code)) {
    case RefusalCode::kVersion:
      why = failed_precondition(
          "connect to {}: it speaks packet protocol version {}, this node {}; run the same release "
          "on both",
          peer_text_, frame.version, kProtocolVersion);
      break;
    case RefusalCode::kMessageLimit:
      why = failed_precondition(
          "connect to {}: its largest message is {} bytes, this node's {}; give both the same "
          "arena buffer size",
          peer_text_, frame.max_message_bytes, shared_->max_message_bytes);
      break;
    case RefusalCode::kBusy:
      why =
          resource_exhausted("connect to {}: it has as many connections as it allows", peer_text_);
      break;
    case RefusalCode::kPacketLimit:
      why = failed_precondition(
          "connect to {}: it finds packets of {} bytes too small; use a larger MTU on this node",
          peer_text_, shared_->max_packet_bytes);
      break;
    default:
      why = failed_precondition("connect to {}: it refused with unknown code {}", peer_text_,
                                frame.code);
  }
  peer_wire_id_ = 0;
  fail(why, ResetCode::kGone);
}

void Connection::open(uint32_t max_packet_bytes, uint32_t peer_depth) {
  agreed_packet_bytes_ = max_packet_bytes;
  peer_depth_ = peer_depth;
  fragment_bytes_ = fragment_bytes(max_packet_bytes);
  const size_t fragments = (shared_->max_message_bytes + fragment_bytes_ - 1) / fragment_bytes_;
  words_per_block_ = (fragments + 63) / 64;
  sends_ = std::vector<SendSlot>(shared_->options.send_depth);
  sent_bits_.resize(sends_.size() * words_per_block_);
  received_bits_.resize(receives_.size() * words_per_block_);
  CongestionOptions options;
  options.packet_bytes = max_packet_bytes;
  options.base_target_ns = shared_->options.queue_target_ns;
  options.max_window_packets = static_cast<double>(SentLog::kMaxSpan) / 2;
  congestion_ = std::make_unique<Congestion>(options);
  state_ = State::kOpen;
  progress_ns_ = heard_ns_ = paced_ns_ = shared_->now_ns;
  if (posted_receives_ > 0) news_at_ns_ = shared_->now_ns;
  shared_->completions.push_back(
      completion(initiator_ ? CompletionKind::kConnected : CompletionKind::kAccepted));
}

void Connection::advance_greeting() {
  const int64_t now = shared_->now_ns;
  if (now - began_ns_ >= shared_->options.connect_timeout_ms * kMillisecond) {
    if (initiator_) {
      fail(deadline_exceeded("connect to {}: no answer within {} ms; check the address, and that "
                             "nothing between the nodes drops its packets",
                             peer_text_, shared_->options.connect_timeout_ms),
           ResetCode::kGone);
    } else {
      fail(deadline_exceeded("{} asked to connect, and then said nothing for {} ms", peer_text_,
                             shared_->options.connect_timeout_ms),
           ResetCode::kLost);
    }
    return;
  }
  if (now < greeting_at_ns_) return;
  greeting_at_ns_ = now + std::min(kFirstGreeting << std::min(greetings_, 10u), kSecond);
  ++greetings_;
  if (initiator_) {
    send_hello();
  } else {
    send_welcome();
  }
}

// ---- life

void Connection::take(const Frame& frame) {
  if (state_ == State::kDraining || state_ == State::kFinished) return;
  switch (frame.type) {
    case Type::kCookie:
      take_cookie(frame);
      return;
    case Type::kWelcome:
      take_welcome(frame);
      return;
    case Type::kRefusal:
      take_refusal(frame);
      return;
    case Type::kReset:
      take_reset(frame);
      return;
    case Type::kHello:
      return;
    case Type::kControl:
    case Type::kData:
      break;
  }
  // Before the welcome, this side does not know who the peer is.
  if (state_ == State::kConnecting) return;
  if (frame.type == Type::kControl && frame.from != peer_wire_id_) return;
  if (state_ == State::kGreeting) open(agreed_packet_bytes_, peer_depth_);
  heard_ns_ = shared_->now_ns;
  if (frame.type == Type::kData) {
    take_data(frame);
  } else {
    take_control(frame);
  }
  if (state_ == State::kOpen) check_closed();
}

void Connection::advance() {
  switch (state_) {
    case State::kConnecting:
    case State::kGreeting:
      advance_greeting();
      break;
    case State::kOpen:
      advance_open();
      break;
    case State::kDraining:
      drain();
      break;
    case State::kFinished:
      break;
  }
}

void Connection::start_close() {
  if (state_ == State::kConnecting) {
    end_ = absl::OkStatus();
    end_of_buffers_ = cancelled("the connection was closed before it was established");
    state_ = State::kDraining;
    return;
  }
  if (state_ != State::kOpen || closing()) return;
  close_requested_ = true;
  progress_ns_ = shared_->now_ns;
}

bool Connection::all_said_and_done() const {
  return closing() && close_acked_ && peer_closed_ && returned_ == posted_ &&
         delivered_ == peer_sent_;
}

void Connection::check_closed() {
  if (!all_said_and_done()) return;
  // The peer waits for this one; if it is lost, it asks again, and the endpoint answers.
  if (ack_pending_ > 0 || ack_now_) {
    ack_now_ = true;
    send_control();
  }
  in_order_ = true;
  end_ = absl::OkStatus();
  end_of_buffers_ = cancelled("the connection to {} was closed", peer_text_);
  state_ = State::kDraining;
  drain_until_ns_ = shared_->now_ns + kDrainFor;
  drain();
}

void Connection::take_reset(const Frame& frame) {
  if (frame.from != peer_wire_id_ || peer_wire_id_ == 0) return;
  const auto code = static_cast<ResetCode>(frame.code);
  if (state_ == State::kGreeting) {  // an old hello came twice, or it has given up
    peer_wire_id_ = 0;
    end_is_silent_ = true;
    fail(absl::OkStatus(), ResetCode::kGone);
    return;
  }
  if (state_ != State::kOpen) return;
  peer_wire_id_ = 0;
  if (closing() && peer_closed_ && returned_ == posted_ && delivered_ == peer_sent_) {
    // It has all, and has said all: only the last acknowledgement was lost.
    close_acked_ = true;
    check_closed();
    return;
  }
  std::string_view why = "the peer closed it without the closing handshake";
  if (code == ResetCode::kUnknown) why = "the peer does not know it any more; it was restarted";
  if (code == ResetCode::kBroken) why = "the peer says that this node broke the protocol";
  if (code == ResetCode::kLost) why = "the peer did not hear from this node for too long";
  fail(unavailable("connection to {} lost: {}", peer_text_, why), ResetCode::kGone);
}

void Connection::send_reset(ResetCode code) {
  if (peer_wire_id_ == 0) return;
  Frame frame;
  if (!begin(&frame, Type::kReset)) return;
  frame.code = static_cast<uint32_t>(code);
  post(frame);
}

void Connection::broken(const absl::Status& what) {
  fail(with_context(what, fmt::format("connection to {}: the peer broke the protocol", peer_text_)),
       ResetCode::kBroken);
}

void Connection::fail(const absl::Status& status, ResetCode code) {
  if (state_ == State::kDraining || state_ == State::kFinished) return;
  shared_->outbox.forget(this);
  send_reset(code);
  end_ = status;
  end_of_buffers_ = status;
  state_ = State::kDraining;
  drain_until_ns_ = shared_->now_ns + kDrainFor;
  drain();
}

// The blocks go back when the device has let go of them.
void Connection::drain() {
  bool reading = false;
  for (const SendSlot& slot : sends_) reading = reading || slot.device_reads > 0 || slot.queued > 0;
  if (reading) shared_->outbox.forget(this);
  if (reading && shared_->now_ns < drain_until_ns_) return;
  finish();
  if (!reading) state_ = State::kFinished;
}

void Connection::finish() {
  if (buffers_returned_) return;
  buffers_returned_ = true;
  auto give_back = [this](CompletionKind kind, BlockBuffer* buffer) {
    Completion done = completion(kind);
    done.buffer = std::move(*buffer);
    done.status = end_of_buffers_;
    shared_->completions.push_back(std::move(done));
  };
  for (; returned_ < posted_; ++returned_) {
    give_back(CompletionKind::kSent, &send_slot(returned_).buffer);
  }
  for (uint64_t n = delivered_; n < posted_receives_; ++n) {
    give_back(CompletionKind::kReceived, &receive_slot(n).buffer);
  }
  if (end_is_silent_) return;
  Completion closed = completion(CompletionKind::kClosed);
  closed.status = end_;
  shared_->completions.push_back(std::move(closed));
}

}  // namespace sluice::packet

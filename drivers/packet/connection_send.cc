// A connection's leaving side: what is sent, and when.
#include <algorithm>
#include <cassert>
#include <utility>

#include "base/status.h"
#include "drivers/packet/connection.h"

namespace sluice::packet {
namespace {

// Sent at once however long the pause before was; more is spread over the round trip.
constexpr double kBurstPackets = 16;
constexpr double kBurstSeconds = 0.000'5;
// Packets of one advance(). Few, so that what arrives is looked at between.
constexpr int kSendBudget = 32;
constexpr uint32_t kProbes = 2;  // RFC 9002, 6.2.4
constexpr uint32_t kSilentTimeouts = 3;

}  // namespace

size_t Connection::credits() const {
  if (state_ != State::kOpen || closing()) return 0;
  return std::min(peer_granted_ - posted_, sends_.size() - (posted_ - returned_));
}

size_t Connection::post_send(std::span<SendRequest> requests) {
  const size_t accepted = std::min(requests.size(), credits());
  if (accepted > 0 && returned_ == posted_) progress_ns_ = shared_->now_ns;
  for (size_t i = 0; i < accepted; ++i) {
    assert(requests[i].buffer && requests[i].bytes >= 1 &&
           requests[i].bytes <= shared_->max_message_bytes);
    SendSlot& slot = send_slot(posted_);
    slot.buffer = std::move(requests[i].buffer);
    slot.bytes = requests[i].bytes;
    slot.fragments = (slot.bytes + fragment_bytes_ - 1) / fragment_bytes_;
    slot.acked = 0;
    std::fill_n(send_bits(posted_), words_per_block_, 0);
    ++posted_;
    ++shared_->counters.sent_messages;
  }
  return accepted;
}

int64_t Connection::next_timer() const {
  if (state_ == State::kConnecting || state_ == State::kGreeting) {
    const int64_t end = began_ns_ + shared_->options.connect_timeout_ms * kMillisecond;
    return std::min(greeting_at_ns_, end);
  }
  if (state_ == State::kDraining) return shared_->now_ns + kMillisecond;
  if (state_ != State::kOpen) return kNever;
  int64_t next = std::min({timeout_at_ns_, log_.loss_time(), ack_at_ns_, pace_at_ns_});
  if (news_at_ns_ < next && granted_told_ < posted_receives_) next = news_at_ns_;
  return next;
}

bool Connection::idle() const {
  return state_ == State::kOpen && !closing() && returned_ == posted_ && !ack_now_ &&
         ack_pending_ == 0 && !ping_due_ && log_.packets_in_flight() == 0 &&
         granted_told_ == posted_receives_;
}

void Connection::advance_open() {
  check_timers();
  if (state_ != State::kOpen) return;
  if (control_due() && !send_control()) return;
  if (has_fragments()) send_blocks();
  if (posted_ != returned_ && send_slot(returned_).acked == send_slot(returned_).fragments) {
    return_sent();  // it may have waited for the device
  }
  if (state_ == State::kOpen) check_closed();
}

void Connection::check_timers() {
  const int64_t now = shared_->now_ns;
  if (now >= log_.loss_time()) {
    log_.find_losses(now, std::max(round_trip_.smoothed(), round_trip_.latest()),
                     [this](const SentPacket& packet) { on_lost(packet); });
    arm_timeout();
  }
  if (now >= timeout_at_ns_) on_timeout();
  const bool waiting = posted_ != returned_ || log_.packets_in_flight() > 0;
  if (!waiting && !closing()) progress_ns_ = now;
  const int64_t patience = shared_->options.dead_peer_ms * kMillisecond;
  if (now - heard_ns_ >= patience) {
    fail(unavailable("connection to {} lost: nothing was heard from it for {} ms", peer_text_,
                     shared_->options.dead_peer_ms),
         ResetCode::kLost);
    return;
  }
  if (waiting && now - progress_ns_ >= patience) {
    fail(unavailable("connection to {} lost: it answers, but packets of {} bytes did not get "
                     "through for {} ms; give both nodes an MTU that the network between them "
                     "carries",
                     peer_text_, agreed_packet_bytes_, shared_->options.dead_peer_ms),
         ResetCode::kLost);
    return;
  }
  if (closing() && now - progress_ns_ >= shared_->options.close_timeout_ms * kMillisecond) {
    fail(deadline_exceeded("closing the connection to {} made no progress for {} ms", peer_text_,
                           shared_->options.close_timeout_ms),
         ResetCode::kLost);
    return;
  }
  const int64_t keepalive = shared_->options.keepalive_ms * kMillisecond;
  if (now - heard_ns_ >= keepalive && now - pinged_ns_ >= keepalive &&
      log_.packets_in_flight() == 0) {
    ping_due_ = true;
    pinged_ns_ = now;
  }
}

void Connection::arm_timeout() {
  timeout_at_ns_ =
      log_.packets_in_flight() == 0 ? kNever : shared_->now_ns + round_trip_.timeout(timeouts_);
}

// Nothing was acknowledged for a while: something is sent again to learn what has arrived. What was
// lost is found by its acknowledgement, so the timeout itself declares nothing lost.
void Connection::on_timeout() {
  ++timeouts_;
  ++shared_->probes;
  if (timeouts_ == kSilentTimeouts) congestion_->on_silence();
  // Both have all and have said all; only the acknowledgement of this side's close is missing, and
  // the peer may have stopped listening after it sent it. If it has not, what lingers answers it.
  if (timeouts_ >= kSilentTimeouts && close_told_ && peer_closed_ && returned_ == posted_ &&
      delivered_ == peer_sent_) {
    close_acked_ = true;
  }
  probes_ = kProbes;
  uint64_t number = 0;
  for (uint32_t i = 0; i < kProbes; ++i, ++number) {
    const SentPacket* const oldest = log_.oldest_outstanding(&number);
    if (oldest == nullptr) break;
    if (oldest->control) {
      ping_due_ = true;
    } else if (repeats_.size() < kProbes) {
      const FragmentRef ref{oldest->block, oldest->fragment};
      if (!is_acked(ref)) repeats_.push_back(ref);
    }
  }
  // A peer that was restarted can tell from a control packet that it does not know this side.
  if (timeouts_ >= kSilentTimeouts) ping_due_ = true;
  arm_timeout();
}

// ---- control packets

// Credits the peer should hear of in a packet that is repeated until acknowledged: when it has
// hardly more than there are new ones, or after a while.
bool Connection::news_due() const {
  if (granted_told_ >= posted_receives_) return false;
  const uint64_t used = std::max(highest_block_, delivered_);
  const uint64_t left = granted_told_ > used ? granted_told_ - used : 0;
  return left <= posted_receives_ - granted_told_ || shared_->now_ns >= news_at_ns_;
}

bool Connection::control_due() const {
  return ack_now_ || shared_->now_ns >= ack_at_ns_ || ping_due_ || news_due() ||
         (closing() && !close_told_);
}

bool Connection::send_control() {
  Frame frame;
  if (!begin(&frame, Type::kControl)) return false;
  const bool numbered = ping_due_ || news_due() || (closing() && !close_told_);
  if (numbered && log_.full()) return false;
  frame.granted = posted_receives_;
  frame.received = delivered_;
  if (closing()) {
    frame.flags = kClosing;
    frame.sent = posted_;
  }
  std::array<uint64_t, kMaxAckWords> words;
  frame.largest = numbers_.largest();
  frame.word_count = numbers_.ack_words(words.data());
  frame.words = reinterpret_cast<const uint8_t*>(words.data());
  if (frame.largest != 0) {
    const int64_t delay = (shared_->now_ns - largest_at_ns_) / kMicrosecond;
    frame.ack_delay_us = static_cast<uint32_t>(std::clamp<int64_t>(delay, 0, 1'000'000));
  }
  if (numbered) {
    SentPacket packet;
    packet.sent_ns = shared_->now_ns;
    packet.block = posted_receives_;
    packet.fragment = closing() ? 1 : 0;
    packet.bytes = static_cast<uint16_t>(kControlBytes + 8 * frame.word_count);
    packet.control = true;
    frame.number = log_.add(packet);
    granted_told_ = posted_receives_;
    news_at_ns_ = kNever;
    close_told_ = closing();
    ping_due_ = false;
    if (timeout_at_ns_ == kNever) arm_timeout();
  }
  post(frame);
  ++shared_->packets_sent;
  ack_pending_ = 0;
  ack_now_ = false;
  ack_at_ns_ = kNever;
  return true;
}

// ---- blocks

bool Connection::window_open() const {
  if (probes_ > 0) return true;
  if (log_.packets_in_flight() < static_cast<uint64_t>(Congestion::kMinWindow)) return true;
  return log_.bytes_in_flight() + agreed_packet_bytes_ <= congestion_->window_bytes();
}

bool Connection::next_fragment(FragmentRef* ref, bool* repeat) {
  while (!repeats_.empty()) {
    *ref = repeats_.front();
    *repeat = true;
    if (!is_acked(*ref)) return true;
    repeats_.pop_front();
  }
  if (next_block_ == posted_) return false;
  *ref = {next_block_, next_fragment_};
  *repeat = false;
  return true;
}

void Connection::send_blocks() {
  const double rate = round_trip_.known() ? congestion_->pacing_rate(round_trip_.smoothed()) : 0;
  const double burst = std::max(kBurstPackets * agreed_packet_bytes_, rate * kBurstSeconds);
  if (rate > 0) {
    const auto passed = static_cast<double>(shared_->now_ns - paced_ns_);
    pacing_bytes_ = std::min(burst, pacing_bytes_ + passed * rate / 1e9);
  }
  paced_ns_ = shared_->now_ns;
  pace_at_ns_ = kNever;
  FragmentRef ref;
  bool repeat = false;
  for (int left = kSendBudget; next_fragment(&ref, &repeat); --left) {
    if (left == 0) {
      pace_at_ns_ = shared_->now_ns;
      return;
    }
    if (log_.full()) return;
    if (!window_open()) {
      window_limited_ = true;
      return;
    }
    if (rate > 0 && pacing_bytes_ < agreed_packet_bytes_ && probes_ == 0) {
      const double missing = agreed_packet_bytes_ - pacing_bytes_;
      pace_at_ns_ = shared_->now_ns + static_cast<int64_t>(missing * 1e9 / rate) + 1;
      window_limited_ = true;  // pacing is the window, spread over the round trip
      return;
    }
    const bool last = repeats_.size() + (next_block_ < posted_ ? 1 : 0) == 1 &&
                      (repeat || (next_block_ + 1 == posted_ &&
                                  next_fragment_ + 1 == send_slot(next_block_).fragments));
    const bool fills =
        log_.bytes_in_flight() + 2 * uint64_t{agreed_packet_bytes_} > congestion_->window_bytes();
    if (!send_fragment(ref, last || fills || probes_ > 0)) return;
    pacing_bytes_ -= agreed_packet_bytes_;
    if (probes_ > 0) --probes_;
    if (repeat) {
      repeats_.pop_front();
      ++shared_->packets_repeated;
    } else if (++next_fragment_ == send_slot(next_block_).fragments) {
      ++next_block_;
      next_fragment_ = 0;
    }
  }
  probes_ = 0;
}

bool Connection::send_fragment(const FragmentRef& ref, bool ack_now) {
  Frame frame;
  if (!begin(&frame, Type::kData)) {
    pace_at_ns_ = shared_->now_ns + 10 * kMicrosecond;  // the device's queue is full
    return false;
  }
  SendSlot& slot = send_slot(ref.block);
  frame.flags = ack_now ? kAckNow : 0;
  frame.block = ref.block;
  frame.offset = ref.fragment * fragment_bytes_;
  frame.length = slot.bytes;
  const uint32_t bytes = std::min(fragment_bytes_, slot.bytes - frame.offset);
  frame.payload = {slot.buffer.data() + frame.offset, bytes};
  SentPacket packet;
  packet.sent_ns = shared_->now_ns;
  packet.block = ref.block;
  packet.fragment = ref.fragment;
  packet.bytes = static_cast<uint16_t>(kDataBytes + bytes);
  frame.number = log_.add(packet);
  post(frame);
  // post() has filled the place before the next one.
  shared_->outbox.attach_payload(frame.payload, &slot.queued, &slot.device_reads);
  ++shared_->packets_sent;
  if (timeout_at_ns_ == kNever) arm_timeout();
  return true;
}

}  // namespace sluice::packet

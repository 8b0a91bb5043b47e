// A connection's arriving side: blocks put together, acknowledgements taken.
#include <algorithm>
#include <utility>

#include "base/status.h"
#include "base/stream_copy.h"
#include "drivers/packet/connection.h"

namespace sluice::packet {
namespace {

// An acknowledgement waits for so many packets, or so long; for a gap, the end of a block that the
// sender waits for, or a repeat it does not wait.
constexpr uint32_t kAckEvery = 8;
constexpr int64_t kAckWithin = 100 * kMicrosecond;
// Credits that the peer does not need at once are told after so long.
constexpr int64_t kTellWithin = 5 * kMillisecond;

}  // namespace

size_t Connection::post_recv(std::span<BlockBuffer> buffers) {
  if (state_ == State::kDraining || state_ == State::kFinished || closing()) return 0;
  const size_t room = receives_.size() - (posted_receives_ - delivered_);
  const size_t accepted = std::min(buffers.size(), room);
  for (size_t i = 0; i < accepted; ++i) {
    ReceiveSlot& slot = receive_slot(posted_receives_++);
    slot.buffer = std::move(buffers[i]);
    slot.bytes = 0;
  }
  if (accepted > 0 && news_at_ns_ == kNever) news_at_ns_ = shared_->now_ns + kTellWithin;
  return accepted;
}

// Whether the packet is a new one.
bool Connection::take_number(uint64_t number, bool at_once) {
  if (numbers_.seen(number)) {
    ++shared_->duplicates;
    ack_now_ = true;  // the sender may have missed the first acknowledgement
    return false;
  }
  const bool out_of_order = numbers_.add(number);
  if (numbers_.largest() == number) {
    largest_at_ns_ = shared_->now_ns - shared_->host_delay_ns;
  }
  ++ack_pending_;
  if (out_of_order || at_once || ack_pending_ >= kAckEvery) ack_now_ = true;
  if (ack_at_ns_ == kNever) ack_at_ns_ = shared_->now_ns + kAckWithin;
  return true;
}

void Connection::take_data(const Frame& frame) {
  if (frame.block >= posted_receives_) {
    broken(aborted("it sent block {} with {} credits", frame.block, posted_receives_));
    return;
  }
  if (frame.length > shared_->max_message_bytes || frame.offset % fragment_bytes_ != 0 ||
      frame.payload.size() != std::min(fragment_bytes_, frame.length - frame.offset)) {
    broken(aborted("it sent {} bytes at {} of a block of {}, in fragments of {} bytes",
                   frame.payload.size(), frame.offset, frame.length, fragment_bytes_));
    return;
  }
  if (peer_closed_ && frame.block >= peer_sent_) {
    broken(aborted("it sent block {} after it closed with {}", frame.block, peer_sent_));
    return;
  }
  if (!take_number(frame.number, (frame.flags & kAckNow) != 0)) return;
  if (frame.block >= delivered_) place(frame);
}

void Connection::place(const Frame& frame) {
  ReceiveSlot& slot = receive_slot(frame.block);
  uint64_t* const bits = receive_bits(frame.block);
  if (slot.bytes == 0) {
    slot.bytes = frame.length;
    slot.missing = (frame.length + fragment_bytes_ - 1) / fragment_bytes_;
    std::fill(bits, bits + words_per_block_, 0);
    highest_block_ = std::max(highest_block_, frame.block + 1);
  }
  if (slot.bytes != frame.length) {
    broken(aborted("it says that block {} has {} bytes after {}", frame.block, frame.length,
                   slot.bytes));
    return;
  }
  const uint32_t fragment = frame.offset / fragment_bytes_;
  const uint64_t bit = uint64_t{1} << (fragment % 64);
  if ((bits[fragment / 64] & bit) != 0) return;
  bits[fragment / 64] |= bit;
  // The one copy. What is copied has been checked where it is.
  stream_copy(slot.buffer.data() + frame.offset, frame.payload.data(), frame.payload.size());
  if (--slot.missing == 0 && frame.block == delivered_) deliver();
}

void Connection::deliver() {
  while (delivered_ < posted_receives_) {
    ReceiveSlot& slot = receive_slot(delivered_);
    if (slot.bytes == 0 || slot.missing != 0) return;
    Completion received = completion(CompletionKind::kReceived);
    received.bytes = slot.bytes;
    received.buffer = std::move(slot.buffer);
    slot.bytes = 0;
    ++delivered_;
    ++shared_->counters.received_messages;
    shared_->completions.push_back(std::move(received));
  }
}

// Control packets may come late and twice, so totals that are lower than known ones are old, not
// wrong.
void Connection::take_control(const Frame& frame) {
  if (frame.largest >= log_.next()) {
    broken(aborted("it acknowledges packet {} of {}", frame.largest, log_.next() - 1));
    return;
  }
  if (frame.received > posted_ || frame.granted < frame.received ||
      frame.granted - frame.received > peer_depth_) {
    broken(aborted("it says it has {} blocks of {} sent, and grants {}; its depth is {}",
                   frame.received, posted_, frame.granted, peer_depth_));
    return;
  }
  const bool closes = (frame.flags & kClosing) != 0;
  if (closes && (frame.sent < highest_block_ || frame.sent > posted_receives_ ||
                 (peer_closed_ && frame.sent != peer_sent_))) {
    broken(aborted("it closes with {} blocks sent; {} were begun, {} allowed", frame.sent,
                   highest_block_, posted_receives_));
    return;
  }
  if (frame.number != 0 && !take_number(frame.number, closes)) return;
  peer_granted_ = std::max(peer_granted_, frame.granted);
  peer_received_ = std::max(peer_received_, frame.received);
  if (closes && !peer_closed_) {
    peer_closed_ = true;
    peer_sent_ = frame.sent;
    progress_ns_ = shared_->now_ns;
  }
  take_acknowledgement(frame);
}

void Connection::take_acknowledgement(const Frame& frame) {
  const uint64_t acked_before = log_.packets_in_flight();
  if (frame.largest > 0) {
    int64_t sent_ns = -1;
    const bool limited = window_limited_;
    const uint64_t largest = frame.largest;
    // The sample is of the largest, if this is the first to acknowledge it (RFC 9002, 5.1).
    for (size_t k = 0; k < frame.word_count; ++k) {
      log_.acknowledge(largest, k, frame.word(k),
                       [&](uint64_t number, const SentPacket& packet, bool was_lost) {
                         if (number == largest) sent_ns = packet.sent_ns;
                         on_acked(packet);
                         if (was_lost) return;
                         congestion_->on_acked(limited);
                       });
    }
    if (sent_ns >= 0) {
      const int64_t sample = shared_->now_ns - sent_ns;
      const int64_t hosts = int64_t{frame.ack_delay_us} * kMicrosecond + shared_->host_delay_ns;
      round_trip_.sample(sample, hosts, shared_->now_ns);
      congestion_->on_sample(largest, log_.next(), round_trip_.network(), round_trip_.smallest());
    }
    log_.find_losses(shared_->now_ns, std::max(round_trip_.smoothed(), round_trip_.latest()),
                     [this](const SentPacket& packet) { on_lost(packet); });
  }
  if (log_.packets_in_flight() != acked_before) {
    timeouts_ = 0;
    progress_ns_ = shared_->now_ns;
    window_limited_ = false;
    arm_timeout();
  }
  return_sent();
}

void Connection::on_acked(const SentPacket& packet) {
  if (packet.control) {
    granted_acked_ = std::max(granted_acked_, packet.block);
    if (packet.fragment != 0) close_acked_ = true;
    return;
  }
  if (packet.block < returned_) return;
  uint64_t* const bits = send_bits(packet.block);
  const uint64_t bit = uint64_t{1} << (packet.fragment % 64);
  if ((bits[packet.fragment / 64] & bit) != 0) return;
  bits[packet.fragment / 64] |= bit;
  ++send_slot(packet.block).acked;
}

void Connection::on_lost(const SentPacket& packet) {
  congestion_->on_lost(log_.next());
  if (packet.control) {
    granted_told_ = granted_acked_;
    close_told_ = close_acked_;
    if (news_at_ns_ > shared_->now_ns) news_at_ns_ = shared_->now_ns;
    return;
  }
  const FragmentRef ref{packet.block, packet.fragment};
  if (!is_acked(ref)) repeats_.push_back(ref);
}

bool Connection::is_acked(const FragmentRef& ref) const {
  if (ref.block < returned_ || ref.block < peer_received_) return true;
  return (send_bits(ref.block)[ref.fragment / 64] >> (ref.fragment % 64) & 1) != 0;
}

void Connection::return_sent() {
  while (returned_ < posted_) {
    SendSlot& slot = send_slot(returned_);
    const bool there = returned_ < peer_received_ || slot.acked == slot.fragments;
    if (!there || slot.queued > 0) return;
    if (slot.device_reads > 0) {
      shared_->port->reclaim();
      if (slot.device_reads > 0) return;
    }
    // What the peer says it has, it has been sent.
    if (next_block_ <= returned_) {
      broken(aborted("it says it has block {}, which was not sent yet", returned_));
      return;
    }
    Completion sent = completion(CompletionKind::kSent);
    sent.bytes = slot.bytes;
    sent.buffer = std::move(slot.buffer);
    ++returned_;
    shared_->completions.push_back(std::move(sent));
  }
}

}  // namespace sluice::packet

// Receiving: bytes of the socket become frames, and frames of data fill posted buffers.

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "drivers/tcp/connection.h"

namespace sluice::tcp {
namespace {

// What one connection reads before the others have their turn, and before what came is handed up: a
// block is checked while it is in the processor's cache.
constexpr size_t kReadBudgetBytes = size_t{1} << 20;
constexpr int kReadBudgetCalls = 64;

// Within a large message the kernel need not wake us for less than this.
constexpr size_t kWakeBytes = size_t{256} << 10;

// A peer that grants more than this at once is broken: no endpoint posts so many.
constexpr uint64_t kMaxCredits = 1 << 20;

}  // namespace

size_t Connection::post_recv(std::span<BlockBuffer> buffers) {
  if (finished() || closing()) return 0;
  const size_t room = shared_->options.receive_depth - receives_.size();
  const size_t accepted = std::min(room, buffers.size());
  for (size_t i = 0; i < accepted; ++i) {
    assert(buffers[i]);
    receives_.push_back(std::move(buffers[i]));
  }
  granted_ += accepted;
  return accepted;
}

void Connection::read() {
  size_t bytes = 0;
  for (int call = 0; call < kReadBudgetCalls && bytes < kReadBudgetBytes; ++call) {
    if (finished()) return;
    if (!readable_) break;
    size_t asked = 0;
    const size_t got = read_some(&asked);
    bytes += got;
    // A short read means that the socket is empty and epoll will tell of more, except at the
    // stream's end.
    if (got < asked && !hung_up_) readable_ = false;
    if (got > 0) {
      made_progress();
      consume_stage();
      // Before the next read: a peer that has finished the orderly close ends the stream right
      // after.
      if (!finished()) check_closed();
    }
  }
  if (!finished() && !readable_) set_wake_bytes();
}

void Connection::set_wake_bytes() {
  size_t wanted = 1;
  if (reading_ == Reading::kPayload) {
    wanted = std::min<size_t>(incoming_.length - incoming_got_, kWakeBytes);
    // A call to save a wake-up or two is not worth it.
    if (wanted < kWakeBytes / 2) wanted = 1;
  }
  if (wanted == wake_bytes_) return;
  wake_bytes_ = wanted;
  const int value = static_cast<int>(wanted);
  ++shared_->counters.system_calls;
  setsockopt(fd_.get(), SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value));
}

// Reads the payload's rest straight into the posted buffer, and what follows it into the stage.
size_t Connection::read_some(size_t* asked) {
  iovec pieces[2];
  int count = 0;
  *asked = 0;
  size_t rest = 0;
  if (reading_ == Reading::kPayload) {
    rest = incoming_.length - incoming_got_;
    pieces[count++] = {receives_.front().data() + incoming_got_, rest};
    *asked += rest;
  }
  pieces[count++] = {stage_.data() + stage_end_, kStageBytes - stage_end_};
  *asked += kStageBytes - stage_end_;
  ++shared_->counters.system_calls;
  const ssize_t got = readv(fd_.get(), pieces, count);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) {
      readable_ = errno == EINTR;
    } else {
      fail(lost(message_of(errno_status(errno, "receive"))));
    }
    return 0;
  }
  if (got == 0) {
    fail(state_ == State::kGreeting ? lost("the peer closed it before its preamble was complete")
                                    : lost("the peer closed it without the closing handshake"));
    return 0;
  }
  const auto size = static_cast<size_t>(got);
  shared_->counters.received_bytes += size;
  const size_t direct = std::min(rest, size);
  incoming_got_ += static_cast<uint32_t>(direct);
  stage_end_ += size - direct;
  if (rest > 0 && direct == rest) finish_message();
  return size;
}

void Connection::consume_stage() {
  bool took = true;
  while (took && !finished()) {
    switch (reading_) {
      case Reading::kPreamble:
        took = take_preamble();
        break;
      case Reading::kHeader:
        took = take_header();
        break;
      case Reading::kTotals:
        took = take_totals();
        break;
      case Reading::kPayload:
        took = take_payload();
        break;
    }
  }
  // What is left is less than a preamble.
  std::memmove(stage_.data(), stage_.data() + stage_begin_, stage_end_ - stage_begin_);
  stage_end_ -= stage_begin_;
  stage_begin_ = 0;
}

bool Connection::take_preamble() {
  if (stage_end_ - stage_begin_ < kPreambleBytes) return false;
  const absl::Status status =
      check_preamble(stage_.data() + stage_begin_, shared_->max_message_bytes);
  if (!status.ok()) {
    fail(with_context(status, fmt::format("peer {} refused", peer_address_)));
    return false;
  }
  stage_begin_ += kPreambleBytes;
  reading_ = Reading::kHeader;
  open();
  return true;
}

bool Connection::take_header() {
  if (stage_end_ - stage_begin_ < kHeaderBytes) return false;
  incoming_ = decode_header(stage_.data() + stage_begin_);
  stage_begin_ += kHeaderBytes;
  absl::Status status = check_header(incoming_, shared_->max_message_bytes);
  const bool data = incoming_.is(FrameType::kData) || incoming_.is(FrameType::kHeld);
  if (status.ok() && data && peer_closed_) status = aborted("a message after its close frame");
  if (status.ok() && data && received_ >= announced_.granted) {
    status = aborted("message {} with {} credits granted", received_ + 1, announced_.granted);
  }
  if (!status.ok()) {
    fail(broken_protocol(status));
    return false;
  }
  incoming_got_ = 0;
  reading_ = data ? Reading::kPayload : Reading::kTotals;
  return true;
}

bool Connection::take_totals() {
  if (stage_end_ - stage_begin_ < kTotalsBytes) return false;
  const Totals totals = decode_totals(stage_.data() + stage_begin_);
  stage_begin_ += kTotalsBytes;
  reading_ = Reading::kHeader;
  if (incoming_.is(FrameType::kClose)) {
    if (peer_closed_) {
      fail(broken_protocol(aborted("a second close frame")));
      return false;
    }
    peer_closed_ = true;
    begin_closing();
  }
  apply_totals(totals);
  return true;
}

void Connection::apply_totals(const Totals& totals) {
  if (totals.received < peer_totals_.received || totals.granted < peer_totals_.granted) {
    fail(broken_protocol(aborted("totals that go back")));
    return;
  }
  if (totals.received > written_total()) {
    fail(broken_protocol(
        aborted("it says it has {} messages of {} sent", totals.received, written_total())));
    return;
  }
  if (totals.granted > totals.received + kMaxCredits) {
    fail(broken_protocol(aborted("{} credits at once", totals.granted - totals.received)));
    return;
  }
  peer_totals_ = totals;
  return_sent();
}

bool Connection::take_payload() {
  const size_t size = std::min<size_t>(stage_end_ - stage_begin_, incoming_.length - incoming_got_);
  std::memcpy(receives_.front().data() + incoming_got_, stage_.data() + stage_begin_, size);
  stage_begin_ += size;
  incoming_got_ += static_cast<uint32_t>(size);
  if (incoming_got_ < incoming_.length) return false;
  finish_message();
  return true;
}

void Connection::finish_message() {
  Completion completion;
  completion.kind = CompletionKind::kReceived;
  completion.connection = id_;
  completion.buffer = receives_.pop_front();
  completion.bytes = incoming_.length;
  shared_->completions.push_back(std::move(completion));
  ++received_;
  if (incoming_.is(FrameType::kHeld)) received_held_ = received_;
  ++shared_->counters.received_messages;
  reading_ = Reading::kHeader;
}

}  // namespace sluice::tcp

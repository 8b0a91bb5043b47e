// Sending: control frames, and posted buffers by the gathering write or by sendfile.

#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <utility>

#include "base/status.h"
#include "drivers/tcp/connection.h"

namespace sluice::tcp {
namespace {

// What one connection writes before the others have their turn.
constexpr size_t kWriteBudgetBytes = size_t{8} << 20;

}  // namespace

size_t Connection::credits() const {
  if (state_ != State::kOpen || closing()) return 0;
  assert(peer_totals_.granted >= posted_);
  return std::min<uint64_t>(peer_totals_.granted - posted_,
                            shared_->options.send_depth - sends_.size());
}

size_t Connection::post_send(std::span<SendRequest> requests) {
  const size_t accepted = std::min(credits(), requests.size());
  for (size_t i = 0; i < accepted; ++i) {
    SendRequest& request = requests[i];
    assert(request.buffer && request.bytes >= 1 && request.bytes <= shared_->max_message_bytes);
    PendingSend send;
    send.bytes = request.bytes;
    send.by_reference = shared_->sendfile && request.bytes >= shared_->options.sendfile_from_bytes;
    encode_header(send.header.data(), send.by_reference ? FrameType::kHeld : FrameType::kData,
                  request.bytes);
    send.buffer = std::move(request.buffer);
    sends_.push_back(std::move(send));
  }
  posted_ += accepted;
  return accepted;
}

bool Connection::something_to_write() const {
  if (control_left_ > 0) return true;
  return state_ == State::kOpen && (written_ < sends_.size() || update_due() || close_due());
}

void Connection::write() {
  if (state_ != State::kGreeting && state_ != State::kOpen) return;
  size_t bytes = 0;
  while (writable_ && !finished() && something_to_write() && bytes < kWriteBudgetBytes) {
    const bool in_payload = written_ < sends_.size() && frame_offset_ >= kHeaderBytes;
    bytes += in_payload && sends_[written_].by_reference ? send_by_reference() : gather_and_send();
  }
  if (bytes > 0) made_progress();
  if (!finished()) return_sent();
  check_closed();
}

// A control frame goes out between two messages, ahead of what is posted: the peer may wait for its
// credits. One that is not due yet goes along with a message.
void Connection::prepare_control() {
  if (state_ != State::kOpen || control_left_ > 0 || frame_offset_ > 0) return;
  const bool close = close_due();
  const bool along = written_ < sends_.size() && update_pending();
  if (!close && !update_due() && !along) return;
  announced_ = {received_, closing() ? announced_.granted : granted_};
  encode_control(control_.data(), close ? FrameType::kClose : FrameType::kUpdate, announced_);
  control_size_ = control_left_ = kControlBytes;
  if (close) close_queued_ = true;
}

// Fills `pieces` with what comes next; `more` says that a payload sent by reference follows.
size_t Connection::gather(std::span<iovec> pieces, size_t* total, bool* more) {
  size_t count = 0;
  auto add = [&](uint8_t* data, size_t size) {
    pieces[count++] = {data, size};
    *total += size;
  };
  if (control_left_ > 0) add(control_.data() + control_size_ - control_left_, control_left_);
  size_t offset = frame_offset_;
  for (size_t i = written_; i < sends_.size() && count + 2 <= pieces.size(); ++i, offset = 0) {
    PendingSend& send = sends_[i];
    if (offset < kHeaderBytes) {
      add(send.header.data() + offset, kHeaderBytes - offset);
      offset = kHeaderBytes;
    }
    if (send.by_reference) {
      *more = true;
      break;
    }
    add(send.buffer.data() + (offset - kHeaderBytes), send.bytes - (offset - kHeaderBytes));
    if (*total >= kWriteBudgetBytes) break;
  }
  return count;
}

size_t Connection::gather_and_send() {
  prepare_control();
  iovec pieces[kMaxPieces];
  size_t total = 0;
  bool more = false;
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = gather(pieces, &total, &more);
  ++shared_->counters.system_calls;
  const ssize_t sent = sendmsg(fd_.get(), &message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
  if (sent < 0) {
    handle_write_error("send");
    return 0;
  }
  account_written(static_cast<size_t>(sent));
  return static_cast<size_t>(sent);
}

size_t Connection::send_by_reference() {
  PendingSend& send = sends_[written_];
  const size_t done = frame_offset_ - kHeaderBytes;
  auto offset = static_cast<off_t>(send.buffer.offset() + done);
  ++shared_->counters.system_calls;
  const ssize_t sent = sendfile(fd_.get(), shared_->memfd, &offset, send.bytes - done);
  if (sent < 0) {
    handle_write_error("sendfile");
    return 0;
  }
  account_written(static_cast<size_t>(sent));
  return static_cast<size_t>(sent);
}

void Connection::handle_write_error(std::string_view call) {
  if (errno == EINTR) return;
  if (errno == EAGAIN) {
    writable_ = false;
    return;
  }
  fail(lost(message_of(errno_status(errno, call))));
}

void Connection::account_written(size_t bytes) {
  shared_->counters.sent_bytes += bytes;
  const size_t control = std::min(bytes, control_left_);
  control_left_ -= control;
  bytes -= control;
  while (bytes > 0) {
    const size_t frame = kHeaderBytes + sends_[written_].bytes;
    const size_t part = std::min(bytes, frame - frame_offset_);
    frame_offset_ += part;
    bytes -= part;
    if (frame_offset_ == frame) {
      frame_offset_ = 0;
      ++written_;
      ++shared_->counters.sent_messages;
    }
  }
}

// Buffers go back in the order they came, once the kernel has a copy or the peer has the message.
void Connection::return_sent() {
  while (written_ > 0 && (!sends_.front().by_reference || peer_totals_.received > returned_)) {
    PendingSend send = sends_.pop_front();
    --written_;
    ++returned_;
    Completion completion;
    completion.kind = CompletionKind::kSent;
    completion.connection = id_;
    completion.buffer = std::move(send.buffer);
    completion.bytes = send.bytes;
    shared_->completions.push_back(std::move(completion));
  }
}

}  // namespace sluice::tcp

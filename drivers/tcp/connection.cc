#include "drivers/tcp/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "drivers/tcp/socket_options.h"

namespace sluice::tcp {
Connection::Connection(Shared* shared, ConnectionId id, UniqueFd fd, const SocketAddress& peer,
                       bool connecting)
    : shared_(shared),
      id_(id),
      fd_(std::move(fd)),
      peer_address_(to_string(peer)),
      initiator_(connecting),
      state_(State::kConnecting) {
  if (connecting) {
    deadline_ns_ = shared_->now_ns + shared_->options.connect_timeout_ms * kMs;
  } else {
    readable_ = writable_ = true;
    greet();
  }
}

Connection::~Connection() {
  if (!sends_.empty()) reset_on_close(fd_.get());
}

void Connection::on_events(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) writable_ = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP)) != 0) hung_up_ = true;
  if ((events & EPOLLERR) != 0) broken_ = true;
}

bool Connection::advance() {
  if (state_ == State::kConnecting && writable_) finish_connecting();
  if (state_ == State::kConnecting || finished()) return false;
  if (broken_) {
    // Not read to its end: see tcp.h on buffers of a broken connection.
    int error = 0;
    socklen_t length = sizeof(error);
    ++shared_->counters.system_calls;
    getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error == 0) error = ECONNRESET;
    fail(lost(message_of(errno_status(error, "socket error"))));
    return false;
  }
  // The preamble first: a peer that is refused shall see why.
  if (state_ == State::kGreeting) write();
  read();
  write();
  return !finished() && (readable_ || (writable_ && something_to_write()));
}

void Connection::finish_connecting() {
  int error = 0;
  socklen_t length = sizeof(error);
  ++shared_->counters.system_calls;
  getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  SocketAddress ours;
  SocketAddress theirs;
  if (error == 0) {
    shared_->counters.system_calls += 2;
    if (getpeername(fd_.get(), theirs.get(), &theirs.length) != 0) error = errno;
    getsockname(fd_.get(), ours.get(), &ours.length);
  }
  if (error == 0 && ours == theirs) error = ECONNREFUSED;  // TCP's simultaneous open, with itself
  if (error != 0) {
    fail(unavailable("{}",
                     message_of(errno_status(error, fmt::format("connect to {}", peer_address_)))));
    return;
  }
  readable_ = true;
  greet();
}

void Connection::greet() {
  state_ = State::kGreeting;
  deadline_ns_ = shared_->now_ns + shared_->options.handshake_timeout_ms * kMs;
  encode_preamble(control_.data(), shared_->max_message_bytes);
  control_size_ = control_left_ = kPreambleBytes;
}

void Connection::open() {
  state_ = State::kOpen;
  deadline_ns_ = 0;
  shared_->counters.system_calls +=
      static_cast<uint64_t>(leave_out_pacing_on_one_machine(fd_.get()));
  Completion completion;
  completion.kind = initiator_ ? CompletionKind::kConnected : CompletionKind::kAccepted;
  completion.connection = id_;
  completion.peer = peer_address_;
  shared_->completions.push_back(std::move(completion));
}

void Connection::start_close() {
  if (close_requested_ || finished()) return;
  close_requested_ = true;
  if (state_ == State::kOpen) {
    if (!peer_closed_) begin_closing();
  } else {
    // Nothing was sent yet, so there is nothing to deliver.
    finish(absl::OkStatus(), cancelled("the connection was closed before it was established"));
  }
}

// Nothing of the buffers is under way but what the kernel holds of sent ones, which the reset
// drops.
void Connection::abort() { cut_off(cancelled("the connection to {} was aborted", peer_address_)); }

void Connection::begin_closing() {
  deadline_ns_ = shared_->now_ns + shared_->options.close_timeout_ms * kMs;
}

void Connection::made_progress() {
  if (state_ == State::kOpen && closing()) begin_closing();
}

void Connection::check_closed() {
  if (state_ != State::kOpen || !close_queued_ || !peer_closed_ || control_left_ != 0) return;
  if (!sends_.empty() || peer_totals_.received != posted_ || announced_.received != received_)
    return;
  finish(absl::OkStatus(), cancelled("the connection to {} was closed", peer_address_));
}

void Connection::check_deadline() {
  if (finished() || deadline_ns_ == 0 || shared_->now_ns < deadline_ns_) return;
  switch (state_) {
    case State::kConnecting:
      fail(deadline_exceeded("connect to {}: no answer within {} ms", peer_address_,
                             shared_->options.connect_timeout_ms));
      break;
    case State::kGreeting:
      fail(deadline_exceeded("{}: no complete preamble within {} ms", peer_address_,
                             shared_->options.handshake_timeout_ms));
      break;
    default:
      fail(deadline_exceeded("close of the connection to {}: no progress for {} ms", peer_address_,
                             shared_->options.close_timeout_ms));
  }
}

void Connection::fail(const absl::Status& status) { finish(status, status); }

void Connection::finish(const absl::Status& connection_status, const absl::Status& buffer_status,
                        bool reset) {
  if (finished()) return;
  if (reset || !sends_.empty()) {
    ++shared_->counters.system_calls;
    reset_on_close(fd_.get());
  }
  state_ = State::kFinished;
  deadline_ns_ = 0;
  auto give_back = [this, &buffer_status](CompletionKind kind, BlockBuffer buffer) {
    Completion completion;
    completion.kind = kind;
    completion.connection = id_;
    completion.buffer = std::move(buffer);
    completion.status = buffer_status;
    shared_->completions.push_back(std::move(completion));
  };
  while (!sends_.empty()) give_back(CompletionKind::kSent, sends_.pop_front().buffer);
  while (!receives_.empty()) give_back(CompletionKind::kReceived, receives_.pop_front());
  Completion closed;
  closed.kind = CompletionKind::kClosed;
  closed.connection = id_;
  closed.status = connection_status;
  closed.peer = peer_address_;
  shared_->completions.push_back(std::move(closed));
  ++shared_->counters.system_calls;
  fd_.reset();
}

absl::Status Connection::broken_protocol(const absl::Status& reason) const {
  return make_error(reason.code(), "peer {} broke the protocol: {}", peer_address_,
                    message_of(reason));
}

absl::Status Connection::lost(std::string_view why) const {
  return unavailable("connection to {} lost: {}", peer_address_, why);
}

}  // namespace sluice::tcp

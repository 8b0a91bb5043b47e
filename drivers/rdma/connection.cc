#include "drivers/rdma/connection.h"

#include <utility>

#include "base/clock.h"
#include "base/status.h"

namespace sluice::rdma {
Connection::Connection(Shared* shared, ConnectionId id, uint32_t slot, uint16_t life,
                       UniqueId cm_id, std::string peer, bool initiator)
    : shared_(shared),
      id_(id),
      slot_(slot),
      life_(life),
      cm_id_(std::move(cm_id)),
      peer_(std::move(peer)),
      initiator_(initiator),
      state_(initiator ? State::kConnecting : State::kGreeting),
      receives_(shared->options.receive_depth),
      sends_(shared->options.send_depth) {
  const RdmaOptions& options = shared_->options;
  deadline_ns_ = shared_->now_ns +
                 kMs * (initiator ? options.connect_timeout_ms : options.handshake_timeout_ms);
}

// The device lets go of the buffers before they go home.
Connection::~Connection() { release_pairs(); }

void Connection::release_pairs() {
  data_.reset();
  control_.reset();
  if (queue_ != nullptr) std::exchange(queue_, nullptr)->retire(entries_needed());
}

void Connection::open() {
  if (state_ == State::kOpen || finished()) return;
  state_ = State::kOpen;
  deadline_ns_ = shared_->now_ns + shared_->options.keepalive_ms * kMs;
  Completion completion;
  completion.kind = initiator_ ? CompletionKind::kConnected : CompletionKind::kAccepted;
  completion.connection = id_;
  completion.peer = peer_;
  shared_->completions.push_back(std::move(completion));
}

void Connection::advance(bool idle) {
  if (finished() || data_ == nullptr) return;
  if (given_ != posted_receives_) flush_receives();
  if (handed_ != posted_ && !finished()) flush_sends();
  if (!finished()) write_control(idle);
  if (!finished() && closing()) check_closed();
}

void Connection::start_close() {
  if (close_requested_ || finished()) return;
  close_requested_ = true;
  if (state_ == State::kOpen) {
    made_progress();
  } else {
    // Nothing was sent yet, so there is nothing to deliver.
    finish(absl::OkStatus(), cancelled("the connection was closed before it was established"));
  }
}

// Destroying the queue pairs, which finish() does first, ends all that the device does with the
// buffers; completions of what was flushed name a life of the slot that is over.
void Connection::abort() { fail(cancelled("the connection to {} was aborted", peer_)); }

void Connection::made_progress() {
  if (state_ == State::kOpen && closing()) {
    deadline_ns_ = shared_->now_ns + shared_->options.close_timeout_ms * kMs;
  }
}

bool Connection::all_said_and_done() const {
  return state_ == State::kOpen && close_sent_ && peer_state_.closed() &&
         peer_state_.received() == posted_ && received_ == peer_state_.sent();
}

void Connection::check_closed() {
  if (!all_said_and_done()) return;
  if (returned_ != posted_ || announced_received_ != received_ || control_done_ != control_sent_) {
    return;
  }
  finish(absl::OkStatus(), cancelled("the connection to {} was closed", peer_));
}

void Connection::lose(const absl::Status& why) {
  if (finished()) return;
  if (all_said_and_done()) {
    finish(absl::OkStatus(), cancelled("the connection to {} was closed", peer_));
    return;
  }
  fail(with_context(why, state_ == State::kConnecting
                             ? fmt::format("connect to {}", peer_)
                             : fmt::format("connection to {} lost", peer_)));
}

void Connection::check_deadline() {
  if (finished() || deadline_ns_ == 0 || shared_->now_ns < deadline_ns_) return;
  const RdmaOptions& options = shared_->options;
  if (state_ == State::kConnecting) {
    fail(deadline_exceeded("connect to {}: no answer within {} ms", peer_,
                           options.connect_timeout_ms));
  } else if (state_ == State::kGreeting) {
    fail(deadline_exceeded("{}: the connection was not completed within {} ms", peer_,
                           options.handshake_timeout_ms));
  } else if (closing()) {
    fail(deadline_exceeded("close of the connection to {}: no progress for {} ms", peer_,
                           options.close_timeout_ms));
  } else {
    // A message that the device cannot deliver is what shows that a silent peer is dead.
    ping_due_ = seen_activity_ == posted_ + control_sent_;
    if (ping_due_) write_control(true);
    if (finished()) return;
    ping_due_ = false;
    seen_activity_ = posted_ + control_sent_;
    deadline_ns_ = shared_->now_ns + options.keepalive_ms * kMs;
  }
}

void Connection::finish(const absl::Status& connection_status, const absl::Status& buffer_status) {
  if (finished()) return;
  state_ = State::kFinished;
  deadline_ns_ = 0;
  release_pairs();
  auto give_back = [this, &buffer_status](CompletionKind kind, BlockBuffer buffer) {
    Completion completion;
    completion.kind = kind;
    completion.connection = id_;
    completion.buffer = std::move(buffer);
    completion.status = buffer_status;
    shared_->completions.push_back(std::move(completion));
  };
  for (; returned_ != posted_; ++returned_) {
    give_back(CompletionKind::kSent, std::move(sends_[returned_ % sends_.size()].buffer));
  }
  for (; received_ != posted_receives_; ++received_) {
    give_back(CompletionKind::kReceived, std::move(receives_[received_ % receives_.size()]));
  }
  Completion closed;
  closed.kind = CompletionKind::kClosed;
  closed.connection = id_;
  closed.status = connection_status;
  closed.peer = peer_;
  shared_->completions.push_back(std::move(closed));
}

absl::Status Connection::broken_protocol(const absl::Status& reason) const {
  return make_error(reason.code(), "peer {} broke the protocol: {}", peer_, message_of(reason));
}

}  // namespace sluice::rdma

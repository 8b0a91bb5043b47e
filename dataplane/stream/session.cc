#include "dataplane/stream/session.h"

#include <cassert>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"

namespace sluice {

std::shared_ptr<Inbox> Inbox::create() { return std::make_shared<stream::InboxImpl>(); }

namespace stream {

using std::chrono::milliseconds;

bool InboxImpl::take(int64_t timeout_ms, Delivery* delivery) {
  *delivery = {};  // what it held takes other locks than this one
  MutexLock lock(mutex_);
  if (!available_.wait_for(
          lock, milliseconds(timeout_ms),
          [this]() SLUICE_REQUIRES(mutex_) { return shut_down_ || !waiting_.empty(); }) ||
      shut_down_) {
    return false;
  }
  *delivery = std::move(waiting_.front());
  waiting_.pop_front();
  return true;
}

void InboxImpl::shut_down() {
  std::deque<Delivery>
      dropped;  // let go of outside the lock: a stream's last reference may go with it
  {
    const MutexLock lock(mutex_);
    shut_down_ = true;
    dropped.swap(waiting_);
  }
  available_.notify_all();
}

void InboxImpl::push(Delivery& delivery) {
  {
    const MutexLock lock(mutex_);
    if (shut_down_) return;
    waiting_.push_back(std::move(delivery));
  }
  available_.notify_one();
}

absl::Status Session::send(BlockBuffer message, uint32_t bytes, int64_t timeout_ms) {
  assert(bytes >= Envelope::kBytes && bytes <= message.capacity());
  {
    MutexLock lock(mutex);
    changed.wait_for(lock, milliseconds(timeout_ms), [this]() SLUICE_REQUIRES(mutex) {
      return over || close_requested || outgoing.size() < host->send_queue_limit();
    });
    if (over || close_requested) {
      return reason.ok() ? unavailable("stream is closed") : reason;
    }
    if (outgoing.size() >= host->send_queue_limit()) {
      return deadline_exceeded("{} takes no message for {} ms", peer, timeout_ms);
    }
    outgoing.push_back({std::move(message), bytes});
  }
  host->mark_dirty(this);
  return absl::OkStatus();
}

absl::Status Session::send_control(Envelope envelope, std::string_view payload,
                                   int64_t timeout_ms) {
  assert(payload.size() <= kMaxBlockBytes);
  const Deadline deadline(clock, timeout_ms);
  BlockPool* pool_of_host = nullptr;
  {
    MutexLock lock(mutex);
    changed.wait_for(lock, milliseconds(timeout_ms), [this]() SLUICE_REQUIRES(mutex) {
      return over || close_requested || control_in_flight < kMaxControl;
    });
    if (over || close_requested) return reason.ok() ? unavailable("stream is closed") : reason;
    if (control_in_flight >= kMaxControl) {
      return deadline_exceeded("{} takes no message for {} ms", peer, timeout_ms);
    }
    ++control_in_flight;
    pool_of_host = &host->control_pool();
  }
  BlockBuffer buffer = pool_of_host->take(deadline.left_ms());
  if (!buffer) {
    // For who waits; the one that is called on changes is this caller, and would be at once again.
    const MutexLock lock(mutex);
    --control_in_flight;
    changed.notify_all();
    return deadline_exceeded("no control buffer free for {} ms", timeout_ms);
  }
  if (!payload.empty()) std::memcpy(buffer.data(), payload.data(), payload.size());
  envelope.payload_bytes = static_cast<uint32_t>(payload.size());
  const uint32_t bytes = Envelope::seal(envelope, buffer);
  {
    // Past the queue's limit: control messages have their own, kMaxControl.
    const MutexLock lock(mutex);
    if (over || close_requested) {
      --control_in_flight;
      return reason.ok() ? unavailable("stream is closed") : reason;
    }
    host->note_control(buffer);
    outgoing.push_back({std::move(buffer), bytes});
  }
  host->mark_dirty(this);
  return absl::OkStatus();
}

absl::StatusOr<Message> Session::receive(int64_t timeout_ms) {
  MutexLock lock(mutex);
  changed.wait_for(lock, milliseconds(timeout_ms), [this]() SLUICE_REQUIRES(mutex) {
    return over || close_requested || !incoming.empty();
  });
  if (!incoming.empty()) {
    Message message = std::move(incoming.front());
    incoming.pop_front();
    return message;
  }
  if (over || close_requested) return reason.ok() ? unavailable("stream is closed") : reason;
  return deadline_exceeded("nothing from {} for {} ms", peer, timeout_ms);
}

void Session::request_close(const absl::Status& why) {
  std::deque<Message> dropped;  // their buffers' hook takes other locks than this one
  {
    const MutexLock lock(mutex);
    dropped.swap(incoming);
    if (over || close_requested) return;
    close_requested = true;
    reason = why;
    notify_locked();
  }
  host->mark_dirty(this);
}

void Session::deliver(Message message) {
  if (inbox != nullptr) {
    if (std::shared_ptr<Stream> stream = handle.lock(); stream != nullptr) {
      Inbox::Delivery delivery{std::move(stream), std::move(message), false};
      inbox->push(delivery);
    }
    return;
  }
  {
    const MutexLock lock(mutex);
    if (close_requested || over) return;
    incoming.push_back(std::move(message));
    notify_locked();
  }
}

std::deque<Outgoing> Session::end(const absl::Status& why) {
  std::deque<Outgoing> dropped;
  {
    const MutexLock lock(mutex);
    if (over) return dropped;
    over = true;
    if (!close_requested) reason = why.ok() ? unavailable("closed by peer") : why;
    dropped.swap(outgoing);
    notify_locked();
  }
  if (inbox != nullptr) {
    if (std::shared_ptr<Stream> stream = handle.lock(); stream != nullptr) {
      Inbox::Delivery delivery{std::move(stream), Message{}, true};
      inbox->push(delivery);
    }
  }
  return dropped;
}

void Session::control_released() {
  const MutexLock lock(mutex);
  --control_in_flight;
  notify_locked();
}

bool Session::has_outgoing() {
  const MutexLock lock(mutex);
  return !outgoing.empty();
}

void StreamHandle::on_change(std::function<void()> hook) {
  const MutexLock lock(session_->mutex);
  session_->on_change = std::move(hook);
  if (session_->on_change) session_->on_change();
}

bool StreamHandle::closed() const {
  const MutexLock lock(session_->mutex);
  return session_->over || session_->close_requested;
}

absl::Status StreamHandle::closed_reason() const {
  const MutexLock lock(session_->mutex);
  if (!session_->over && !session_->close_requested) return absl::OkStatus();
  return session_->reason.ok() ? unavailable("stream is closed") : session_->reason;
}

Stream::Counters StreamHandle::counters() const {
  const MutexLock lock(session_->mutex);
  return session_->counters;
}

}  // namespace stream
}  // namespace sluice

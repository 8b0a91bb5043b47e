#include "dataplane/stream/local_stream.h"

#include <cassert>
#include <chrono>
#include <cstring>

#include "base/deadline.h"
#include "base/status.h"

namespace sluice::stream {

using std::chrono::milliseconds;

namespace {

// A credit's kind: which end it was for, and whether of a control message.
size_t kind_of(size_t to, bool control) { return to * 2 + (control ? 1 : 0); }

}  // namespace

LocalLink::Ends LocalLink::make(std::shared_ptr<LocalHost> host, const Hello& hello,
                                std::string peer, EndOptions connecting, EndOptions accepting) {
  auto link = std::make_shared<LocalLink>(std::move(host), hello, std::move(peer));
  link->host_->open += 2;
  const auto end = [&](size_t index) {
    return std::make_shared<LocalStream>(link, index, ++link->host_->streams);
  };
  Ends ends{end(0), end(1)};
  const MutexLock lock(link->mutex_);
  link->ends_[0].options = std::move(connecting);
  link->ends_[1].options = std::move(accepting);
  link->ends_[0].handle = ends.first;
  link->ends_[1].handle = ends.second;
  return ends;
}

absl::Status LocalLink::send(size_t from, BlockBuffer message, uint32_t bytes, int64_t timeout_ms,
                             bool control) {
  assert(bytes >= Envelope::kBytes && bytes <= message.capacity());
  SLUICE_ASSIGN_OR_RETURN(const Envelope envelope, Envelope::open({message.data(), bytes}));
  const size_t to = 1 - from;
  Inbox::Delivery delivery;  // taken or not, it goes behind the lock
  MutexLock lock(mutex_);
  if (!changed_.wait_for(lock, milliseconds(timeout_ms), [&]() SLUICE_REQUIRES(mutex_) {
        return closed_ || has_room(to, control);
      })) {
    return deadline_exceeded("{} takes no message for {} ms", peer_, timeout_ms);
  }
  if (closed_) return told(ends_[from].reason);
  End& there = ends_[to];
  delivery.stream = there.handle.lock();
  if (delivery.stream == nullptr) return unavailable("stream is closed");
  ++there.waiting[control];
  if (!control && host_->limit != nullptr) {
    host_->limit->in.take(bytes);
    may_pass_ = false;
  }
  Stream::Counters& sent = ends_[from].counters;
  sent.sent_bytes += bytes;
  ++sent.sent_messages;
  there.counters.received_bytes += bytes;
  ++there.counters.received_messages;
  host_->bytes.fetch_add(bytes, std::memory_order_relaxed);
  delivery.message = Message{envelope, std::move(message),
                             DeliveryCredit(shared_from_this(), kind_of(to, control))};
  if (there.options.inbox != nullptr) {
    // Under the lock, so that messages keep their order and none comes after the close.
    there.options.inbox->push(delivery);
  } else {
    there.incoming.push_back(std::move(delivery.message));
    notify_locked(there);
  }
  return absl::OkStatus();
}

absl::Status LocalLink::send_control(size_t from, Envelope envelope, std::string_view payload,
                                     int64_t timeout_ms) {
  assert(payload.size() <= kMaxBlockBytes);
  const Deadline deadline(*host_->clock, timeout_ms);
  {
    MutexLock lock(mutex_);
    const size_t to = 1 - from;
    changed_.wait_for(lock, milliseconds(timeout_ms), [&]() SLUICE_REQUIRES(mutex_) {
      return closed_ || ends_[to].waiting[true] < limit(to, true);
    });
    if (closed_) return told(ends_[from].reason);
  }
  BlockBuffer buffer = host_->control_pool->take(deadline.left_ms());
  if (!buffer) return deadline_exceeded("no control buffer free for {} ms", timeout_ms);
  if (!payload.empty()) std::memcpy(buffer.data(), payload.data(), payload.size());
  envelope.payload_bytes = static_cast<uint32_t>(payload.size());
  const uint32_t bytes = Envelope::seal(envelope, buffer);
  return send(from, std::move(buffer), bytes, deadline.left_ms(), /*control=*/true);
}

absl::StatusOr<Message> LocalLink::receive(size_t end, int64_t timeout_ms) {
  MutexLock lock(mutex_);
  End& here = ends_[end];
  changed_.wait_for(lock, milliseconds(timeout_ms),
                    [&]() SLUICE_REQUIRES(mutex_) { return closed_ || !here.incoming.empty(); });
  if (!here.incoming.empty()) {
    Message message = std::move(here.incoming.front());
    here.incoming.pop_front();
    return message;
  }
  if (closed_) return told(here.reason);
  return deadline_exceeded("nothing from {} for {} ms", peer_, timeout_ms);
}

void LocalLink::on_change(size_t end, std::function<void()> hook) {
  const MutexLock lock(mutex_);
  ends_[end].on_change = std::move(hook);
  if (ends_[end].on_change) ends_[end].on_change();
}

void LocalLink::close(size_t end, const absl::Status& reason) {
  std::deque<Message> dropped;  // their credits take the lock
  Last last;
  const MutexLock lock(mutex_);
  dropped.swap(ends_[end].incoming);
  if (closed_) return;
  std::array<absl::Status, 2> reasons;
  reasons[end] = reason;
  reasons[1 - end] = reason.ok() ? absl::UnavailableError("closed by peer") : reason;
  end_both(reasons, &last);
}

// Each end is told once, behind the messages that came before.
void LocalLink::end_both(const std::array<absl::Status, 2>& reasons, Last* last) {
  closed_ = true;
  host_->open -= 2;
  for (size_t end = 0; end < 2; ++end) {
    ends_[end].reason = reasons[end];
    if (ends_[end].options.inbox == nullptr) continue;
    Inbox::Delivery& delivery = (*last)[end];
    delivery.stream = ends_[end].handle.lock();
    delivery.closed = true;
    if (delivery.stream != nullptr) ends_[end].options.inbox->push(delivery);
  }
  for (const End& end : ends_) notify_locked(end);
}

bool LocalLink::closed() const {
  const MutexLock lock(mutex_);
  return closed_;
}

absl::Status LocalLink::closed_reason(size_t end) const {
  const MutexLock lock(mutex_);
  return closed_ ? told(ends_[end].reason) : absl::OkStatus();
}

Stream::Counters LocalLink::counters(size_t end) const {
  const MutexLock lock(mutex_);
  return ends_[end].counters;
}

bool LocalLink::has_room(size_t to, bool control) {
  if (ends_[to].waiting[control] >= limit(to, control)) return false;
  if (control || host_->limit == nullptr || may_pass_) return true;
  if (!host_->others_wait.load() && host_->limit->in.ready()) return true;
  if (!host_->held_back.exchange(true)) host_->wake();
  return false;
}

void LocalLink::limit_lifted() {
  const MutexLock lock(mutex_);
  if (closed_) return;
  may_pass_ = true;
  for (const End& end : ends_) notify_locked(end);
}

void LocalLink::shut_down(const absl::Status& reason) {
  Last last;
  const MutexLock lock(mutex_);
  if (!closed_) end_both({reason, reason}, &last);
}

void LocalLink::credit_returned(size_t kind) {
  const MutexLock lock(mutex_);
  const size_t to = kind / 2;
  --ends_[to].waiting[kind % 2];
  notify_locked(ends_[1 - to]);
}

}  // namespace sluice::stream

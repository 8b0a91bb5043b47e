// How an exchange keeps its node's BulkLimit. Everything here runs on the exchange's thread.
#include <algorithm>

#include "dataplane/stream/exchange_impl.h"

namespace sluice::stream {
namespace {

constexpr int64_t kNoWaitNs = INT64_MAX;

bool is_bulk(const Envelope& envelope) {
  return envelope.carries_block() || envelope.kind == MessageKind::kSummaries;
}

}  // namespace

// Whether the message may go now; it is charged then.
bool ExchangeImpl::may_send(const Outgoing& next) {
  if (is_control_[next.buffer.index()] != 0) return true;
  if (!options_.limit->out.ready()) {
    send_held_back_ = true;
    return false;
  }
  options_.limit->out.take(next.bytes);
  return true;
}

// The endpoint did not accept it.
void ExchangeImpl::take_back(const Outgoing& unsent) {
  if (is_control_[unsent.buffer.index()] == 0) options_.limit->out.give_back(unsent.bytes);
}

// What a credit was charged is settled with what came for it.
void ExchangeImpl::charge_received(Session& session, const Envelope& envelope, uint32_t bytes) {
  const uint64_t bulk = is_bulk(envelope) ? bytes : 0;
  if (bulk > 0) session.bulk_bytes = bytes;
  uint64_t charge = 0;
  if (session.charged > 0) {
    charge = session.charged_bytes / session.charged;
    --session.charged;
    session.charged_bytes -= charge;
  }
  if (charge > bulk) options_.limit->in.give_back(charge - bulk);
  if (charge < bulk) options_.limit->in.take(bulk - charge);
}

// Its credits count when they are used.
void ExchangeImpl::uncharge(Session& session) {
  options_.limit->in.give_back(session.charged_bytes);
  session.charged = 0;
  session.charged_bytes = 0;
}

void ExchangeImpl::hold_back(Session& session) {
  if (session.held_back || (session.unposted.empty() && session.pool->free() == 0)) return;
  session.held_back = true;
  held_back_.push_back(session.shared_from_this());
  local_->others_wait.store(true);
}

bool ExchangeImpl::grant_held_back() {
  BulkLimit& limit = *options_.limit;
  bool progress = false;
  while (limit.in.ready() && (!held_back_.empty() || local_->held_back.load())) {
    // In turns: a local stream that waits, and one of the others.
    if (local_->held_back.exchange(false)) {
      progress = true;
      lift_local_limit();
    }
    if (held_back_.empty()) break;
    const SessionPtr session = std::move(held_back_.front());
    held_back_.pop_front();
    session->held_back = false;
    progress |= grant_one(*session);
  }
  local_->others_wait.store(!held_back_.empty());
  return progress;
}

void ExchangeImpl::lift_local_limit() {
  const MutexLock lock(links_mutex_);
  for (const auto& weak : links_) {
    if (const auto link = weak.lock()) link->limit_lifted();
  }
}

// Gives one credit, and queues for the next one; false when none could be given.
bool ExchangeImpl::grant_one(Session& session) {
  if (session.pool == nullptr || session.phase == Session::Phase::kOver || session.close_begun) {
    return false;
  }
  if (!fill_unposted(session, 1)) return false;  // one that comes home makes the session dirty
  if (endpoint_->post_recv(session.connection, {&session.unposted.back(), 1}) == 0) {
    refused(session);
    return false;
  }
  session.unposted.pop_back();
  ++session.posted;
  ++session.charged;
  session.charged_bytes += session.bulk_bytes;
  options_.limit->in.take(session.bulk_bytes);
  hold_back(session);
  return true;
}

// How long at most to sleep, so that what is held back goes on in time.
int64_t ExchangeImpl::limit_wait_ns() const {
  if (options_.limit == nullptr) return kNoWaitNs;
  int64_t wait = kNoWaitNs;
  if (!held_back_.empty() || local_->held_back.load()) wait = options_.limit->in.wait_ns();
  if (send_held_back_) wait = std::min(wait, options_.limit->out.wait_ns());
  return wait;
}

}  // namespace sluice::stream

// What happens on the exchange's connections: connecting, messages, closes and time limits.
// Everything here runs on the exchange's thread.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"
#include "dataplane/stream/exchange_impl.h"

namespace sluice::stream {
namespace {

// How long a closing session may take to hand over what it has queued.
constexpr int64_t kLingerNs = 5'000 * kMs;
constexpr size_t kConnectTries = 4;
// A credit that is not used for so long costs the others nothing more.
constexpr int64_t kUnusedCreditNs = 200 * kMs;

}  // namespace

bool ExchangeImpl::poll_completions() {
  const size_t count = endpoint_->poll(completions_);
  for (size_t i = 0; i < count; ++i) {
    on_completion(completions_[i]);
    completions_[i] = Completion{};
  }
  return count > 0;
}

void ExchangeImpl::on_completion(Completion& completion) {
  if (completion.kind == CompletionKind::kAccepted) {
    on_accepted(completion);
    return;
  }
  const auto found = sessions_.find(completion.connection);
  if (found == sessions_.end())
    return;  // a connection closed at once; its buffers go home from here
  const SessionPtr session = found->second;
  switch (completion.kind) {
    case CompletionKind::kConnected:
      on_connected(*session, completion);
      break;
    case CompletionKind::kReceived:
      on_received(session, completion);
      break;
    case CompletionKind::kSent:
      release(*session, std::move(completion.buffer));
      break;
    case CompletionKind::kClosed:
      on_closed(session, completion.status);
      break;
    case CompletionKind::kAccepted:
      break;
  }
}

void ExchangeImpl::try_connect(const ConnectingPtr& connecting) {
  Session& session = *connecting->session;
  connecting_.emplace(&session, connecting);
  if (connectors_ >= options_.max_streams) {
    finish_connect(session,
                   resource_exhausted("{} streams are connected from here, the most there may be",
                                      options_.max_streams));
    return;
  }
  ++session.tries;
  absl::StatusOr<ConnectionId> id = endpoint_->connect(connecting->address);
  if (!id.ok()) {
    finish_connect(session, id.status());
    return;
  }
  session.connection = *id;
  sessions_.emplace(*id, connecting->session);
  ++connectors_;
}

// A connection that is lost before its hello is answered was one too many for the peer, most often:
// it is made again, while there is time.
bool ExchangeImpl::connect_again(const SessionPtr& session, const absl::Status& status) {
  const auto found = connecting_.find(session.get());
  if (found == connecting_.end() || session->phase != Session::Phase::kAwaitReply ||
      !absl::IsUnavailable(status) || session->tries >= kConnectTries || stopping_.load() ||
      clock_->monotonic_ns() > session->deadline_ns) {
    return false;
  }
  const ConnectingPtr connecting = std::move(found->second);
  connecting_.erase(found);
  sessions_.erase(session->connection);
  --connectors_;
  session->own.clear();
  session->phase = Session::Phase::kConnecting;
  session->posted = 0;
  try_connect(connecting);
  return true;
}

void ExchangeImpl::finish_connect(Session& session, const absl::Status& status) {
  const auto found = connecting_.find(&session);
  if (found == connecting_.end()) return;
  const ConnectingPtr connecting = std::move(found->second);
  connecting_.erase(found);
  std::shared_ptr<Stream> stream;
  if (status.ok()) {
    stream = std::make_shared<StreamHandle>(connecting->session);
    session.handle = stream;
    session.counted = true;
    ++open_streams_;
  }
  if (status.ok()) {
    connecting->done(std::move(stream));
  } else {
    connecting->done(status);
  }
}

void ExchangeImpl::on_connected(Session& session, Completion& completion) {
  if (session.phase != Session::Phase::kConnecting) return;
  if (!completion.peer.empty()) session.peer = completion.peer;
  session.phase = Session::Phase::kAwaitReply;
  session.last_sent_ns = session.last_received_ns = clock_->monotonic_ns();
  post_receives(session);
  session.own.push_back({MessageKind::kHello, session.hello.encode()});
  mark_dirty(&session);
}

void ExchangeImpl::on_received(const SessionPtr& session, Completion& completion) {
  using Phase = Session::Phase;
  if (session->posted > 0) --session->posted;
  if (!completion.status.ok()) return;  // comes back unused; kClosed follows
  if (session->phase == Phase::kClosing || session->phase == Phase::kOver) return;
  session->last_received_ns = clock_->monotonic_ns();
  absl::StatusOr<Envelope> envelope = Envelope::open({completion.buffer.data(), completion.bytes});
  if (!envelope.ok()) {
    begin_close(*session, envelope.status());
    return;
  }
  if (options_.limit != nullptr) charge_received(*session, *envelope, completion.bytes);
  {
    const MutexLock lock(session->mutex);
    session->counters.received_bytes += completion.bytes;
    ++session->counters.received_messages;
  }
  Message message{*envelope, std::move(completion.buffer), {}};
  switch (session->phase) {
    case Phase::kAwaitHello:
      on_hello(session, message);
      break;
    case Phase::kAwaitReply:
      on_hello_reply(session, message);
      break;
    case Phase::kAwaitHandler:
      begin_close(*session, data_loss("{} goes on before its hello is answered", session->peer));
      break;
    default:
      on_message(session, std::move(message));
  }
}

void ExchangeImpl::open_session(const SessionPtr& session) {
  session->phase = Session::Phase::kOpen;
  session->last_sent_ns = session->last_received_ns = clock_->monotonic_ns();
  post_receives(*session);
}

void ExchangeImpl::on_hello_reply(const SessionPtr& session, const Message& message) {
  if (message.envelope.kind != MessageKind::kHelloReply) {
    begin_close(*session, data_loss("{} answers a hello with another message", session->peer));
    return;
  }
  const absl::Status answer = decode_status(as_string_view(message.payload()));
  if (!answer.ok()) {
    finish_connect(*session, with_context(answer, session->peer));
    begin_close(*session, absl::OkStatus());
    return;
  }
  open_session(session);
  finish_connect(*session, absl::OkStatus());
}

void ExchangeImpl::on_message(const SessionPtr& session, Message message) {
  switch (message.envelope.kind) {
    case MessageKind::kKeepalive:
      return;
    case MessageKind::kHello:
    case MessageKind::kHelloReply:
      begin_close(*session, data_loss("{} says hello again", session->peer));
      return;
    case MessageKind::kError: {
      const absl::Status told = decode_status(as_string_view(message.payload()));
      session->wire_reason = told.ok() ? unavailable("closed by peer") : told;
      begin_close(*session, absl::OkStatus());
      return;
    }
    default:
      session->deliver(std::move(message));
  }
}

// Ends a session for its users, with the first reason given.
void ExchangeImpl::stop_taking(Session& session, const absl::Status& reason) {
  if (session.wire_reason.ok()) session.wire_reason = reason;
  session.phase = Session::Phase::kClosing;
  std::deque<Outgoing> dropped;
  {
    const MutexLock lock(session.mutex);
    if (!session.close_requested) {
      session.close_requested = true;
      session.reason =
          session.wire_reason.ok() ? unavailable("closed by peer") : session.wire_reason;
    }
    if (!reason.ok()) dropped.swap(session.outgoing);
    session.notify_locked();
  }
  for (Outgoing& message : dropped) release(session, std::move(message.buffer));
}

void ExchangeImpl::begin_close(Session& session, const absl::Status& reason) {
  using Phase = Session::Phase;
  if (session.phase == Phase::kClosing || session.phase == Phase::kOver) return;
  const bool was_open = session.phase == Phase::kOpen;
  if (!was_open && !reason.ok()) {
    abort(session, reason);
    return;
  }
  stop_taking(session, reason);
  session.deadline_ns = clock_->monotonic_ns() + kLingerNs;
  session.for_cause = !reason.ok();
  // A peer that gives no credit may never: it is not waited for.
  if (!reason.ok() && endpoint_->credits(session.connection) > 0) {
    session.own.push_back({MessageKind::kError, encode_status(reason)});
  }
  if (has_waiting(session) && was_open) {
    mark_dirty(&session);
  } else {
    session.close_begun = true;
    endpoint_->close(session.connection);
  }
}

void ExchangeImpl::abort(Session& session, const absl::Status& reason) {
  if (session.phase == Session::Phase::kOver || session.aborted) return;
  if (session.stranger) {
    newcomers_.remove(session.connection);
    session.hello_buffer.reset();
    session.buffer_awaited = session.posted > 0;
    if (session.buffer_awaited) ++buffers_awaited_;
  }
  stop_taking(session, reason);
  session.aborted = session.close_begun = true;
  session.own.clear();
  endpoint_->abort(session.connection);
}

void ExchangeImpl::on_closed(const SessionPtr& session, const absl::Status& status) {
  if (session->phase == Session::Phase::kOver || connect_again(session, status)) return;
  if (session->stranger) newcomers_.remove(session->connection);
  if (session->buffer_awaited) --buffers_awaited_;
  if (session->admitted) --admitted_;
  session->phase = Session::Phase::kOver;
  if (session->charged > 0) uncharge(*session);
  const absl::Status reason = !session->wire_reason.ok() ? session->wire_reason : status;
  finish_connect(*session, reason.ok() ? unavailable("{} closed the connection", session->peer)
                                       : with_context(reason, session->peer));
  if (session->counted) --open_streams_;
  session->hello_buffer.reset();
  session->unposted.clear();
  session->own.clear();
  for (Outgoing& message : session->end(reason)) release(*session, std::move(message.buffer));
  if (sessions_.erase(session->connection) > 0 && session->connector) --connectors_;
  if (session->pool != nullptr) retired_.push_back(session);
}

void ExchangeImpl::run_timers() {
  std::erase_if(retired_, [](const SessionPtr& session) {
    if (session->pool->free() != session->pool->size()) return false;
    session->pool.reset();
    return true;
  });
  std::erase_if(waiting_, [](const SessionPtr& session) {
    return session->phase != Session::Phase::kAwaitHandler;
  });
  const int64_t now = clock_->monotonic_ns();
  report_turned_away(now);
  std::vector<SessionPtr> all;
  all.reserve(sessions_.size());
  for (auto& [id, session] : sessions_) all.push_back(session);
  for (const SessionPtr& session : all) check_session_time(*session, now);
  snapshot_counters();
}

void ExchangeImpl::check_session_time(Session& session, int64_t now) {
  using Phase = Session::Phase;
  switch (session.phase) {
    case Phase::kConnecting:
    case Phase::kAwaitReply:
      if (now > session.deadline_ns) {
        const absl::Status late = deadline_exceeded("{} does not answer", session.peer);
        finish_connect(session, late);
        begin_close(session, late);
      }
      break;
    case Phase::kAwaitHello:
      if (now > session.deadline_ns) turn_away(session, deadline_exceeded("no hello came"));
      break;
    case Phase::kAwaitHandler:
      if (now > session.deadline_ns) refuse(session, session.wire_reason);
      break;
    case Phase::kClosing:
      if (now <= session.deadline_ns) break;
      if (session.for_cause) {
        abort(session, session.wire_reason);
      } else if (!session.close_begun) {
        session.close_begun = true;
        endpoint_->close(session.connection);
      }
      break;
    case Phase::kOpen:
      // While nothing is posted the peer cannot say a word, so its silence means nothing.
      if (session.posted == 0) session.last_received_ns = now;
      if (session.charged > 0 && now - session.last_received_ns > kUnusedCreditNs) {
        uncharge(session);
      }
      if (now - session.last_received_ns > options_.idle_timeout_ms * kMs) {
        abort(session, unavailable("nothing from {} for {} s", session.peer,
                                   options_.idle_timeout_ms / 1000));
      } else if (now - session.last_sent_ns > options_.keepalive_ms * kMs && session.own.empty() &&
                 (options_.limit != nullptr || !session.has_outgoing()) &&
                 endpoint_->credits(session.connection) > 0 && own_pool_->free() > 0) {
        // Also while what it has to send is held back by the limit.
        session.own.push_back({MessageKind::kKeepalive, {}});
        mark_dirty(&session);
      }
      break;
    case Phase::kOver:
      break;
  }
}

}  // namespace sluice::stream

// What happens on the exchange's connections: accepting, handshakes, messages, closes and time
// limits. Everything here runs on the exchange's thread.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/stream/exchange_impl.h"

namespace sluice::stream {
namespace {

constexpr int64_t kMs = 1'000'000;
// How long a closing session may take to hand over what it has queued.
constexpr int64_t kLingerNs = 5'000 * kMs;

Envelope envelope_of(MessageKind kind) {
  Envelope envelope;
  envelope.kind = kind;
  return envelope;
}

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

void ExchangeImpl::on_accepted(Completion& completion) {
  BlockBuffer buffer;
  if (awaiting_hello_ < options_.hello_buffers && sessions_.size() < options_.max_streams) {
    buffer = hello_pool_->try_take();
  }
  if (!buffer) {
    endpoint_->close(completion.connection);
    return;
  }
  auto session = std::make_shared<Session>(this, false);
  session->connection = completion.connection;
  session->peer = completion.peer;
  session->phase = Session::Phase::kAwaitHello;
  session->deadline_ns = clock_->monotonic_ns() + options_.hello_timeout_ms * kMs;
  session->hello_buffer = std::move(buffer);
  ++awaiting_hello_;
  post_receives(*session);
  sessions_.emplace(completion.connection, std::move(session));
}

void ExchangeImpl::begin_connect(const ConnectingPtr& connecting) {
  Session& session = *connecting->session;
  connecting_.emplace(&session, connecting);
  if (sessions_.size() >= options_.max_streams) {
    finish_connect(session, resource_exhausted("{} streams are open, the most there may be",
                                               options_.max_streams));
    return;
  }
  absl::StatusOr<ConnectionId> id = endpoint_->connect(connecting->address);
  if (!id.ok()) {
    finish_connect(session, id.status());
    return;
  }
  session.connection = *id;
  sessions_.emplace(*id, connecting->session);
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
  std::lock_guard lock(connecting->mutex);
  connecting->status = status;
  connecting->stream = std::move(stream);
  connecting->done = true;
  connecting->done_changed.notify_all();
}

void ExchangeImpl::on_connected(Session& session, Completion& completion) {
  if (session.phase != Session::Phase::kConnecting) return;
  if (!completion.peer.empty()) session.peer = completion.peer;
  session.phase = Session::Phase::kAwaitReply;
  session.last_sent_ns = session.last_received_ns = clock_->monotonic_ns();
  post_receives(session);
  if (!send_own(session, envelope_of(MessageKind::kHello), session.hello.encode())) {
    begin_close(session, resource_exhausted("no buffer free for a hello"));
  }
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
  {
    std::lock_guard lock(session->mutex);
    session->counters.received_bytes += completion.bytes;
    ++session->counters.received_messages;
  }
  Message message{*envelope, std::move(completion.buffer)};
  switch (session->phase) {
    case Phase::kAwaitHello:
      on_hello(session, std::move(message));
      break;
    case Phase::kAwaitReply:
      on_hello_reply(session, message);
      break;
    default:
      on_message(session, std::move(message));
  }
}

absl::Status ExchangeImpl::check_hello(const Hello& hello) const {
  if (options_.gate) SLUICE_RETURN_IF_ERROR(options_.gate());
  if (!options_.cluster.empty() && hello.cluster != options_.cluster) {
    return failed_precondition("this is cluster {}, not {}", options_.cluster, hello.cluster);
  }
  if (!hello.target.empty() && hello.target != options_.node) {
    return failed_precondition("this is node {}, not {}", options_.node, hello.target);
  }
  return absl::OkStatus();
}

void ExchangeImpl::on_hello(const SessionPtr& session, Message message) {
  --awaiting_hello_;
  session->phase = Session::Phase::kClosing;  // until it is accepted
  absl::Status refusal;
  if (message.envelope.kind != MessageKind::kHello) {
    refusal = data_loss("first message is no hello");
  } else if (absl::StatusOr<Hello> hello = Hello::decode(as_string_view(message.payload()));
             !hello.ok()) {
    refusal = hello.status();
  } else {
    session->hello = *std::move(hello);
    refusal = check_hello(session->hello);
  }
  if (!refusal.ok()) {
    reply_and_close(session, std::move(message.buffer), refusal);
    return;
  }
  // Held over accepted(): after withdraw() a handler is not called any more.
  std::lock_guard lock(handlers_mutex_);
  auto found = handlers_.find({session->hello.kind, session->hello.job});
  if (found == handlers_.end()) found = handlers_.find({session->hello.kind, std::string()});
  if (found == handlers_.end()) {
    reply_and_close(session, std::move(message.buffer),
                    not_found("{} does not serve {} streams of \"{}\" now", options_.node,
                              stream_kind_name(session->hello.kind), session->hello.job));
    return;
  }
  absl::StatusOr<StreamHandler::Admission> admission = found->second->admit(session->hello);
  absl::Status status = admission.status();
  if (status.ok()) {
    const size_t wanted =
        admission->receive_blocks > 0 ? admission->receive_blocks : options_.receive_blocks;
    absl::StatusOr<std::unique_ptr<BlockPool>> pool =
        options_.arena->make_pool("stream from " + session->hello.node,
                                  std::min(wanted, std::max<size_t>(limits_.receive_depth, 1)));
    status = pool.status();
    if (status.ok()) session->pool = *std::move(pool);
  }
  if (!status.ok()) {
    reply_and_close(session, std::move(message.buffer), status);
    return;
  }
  session->inbox = std::static_pointer_cast<InboxImpl>(admission->inbox);
  session->pool->set_home_hook([this, raw = session.get()] { mark_dirty(raw); });
  auto stream = std::make_shared<StreamHandle>(session);
  session->handle = stream;
  session->counted = true;
  ++open_streams_;
  open_session(session);
  Envelope reply = envelope_of(MessageKind::kHelloReply);
  const std::string payload = encode_status(absl::OkStatus());
  std::memcpy(message.buffer.data(), payload.data(), payload.size());
  reply.payload_bytes = static_cast<uint32_t>(payload.size());
  const uint32_t bytes = Envelope::seal(reply, message.buffer);
  {
    std::lock_guard session_lock(session->mutex);
    session->outgoing.push_back({std::move(message.buffer), bytes});
  }
  mark_dirty(session.get());
  found->second->accepted(std::move(stream));
}

void ExchangeImpl::reply_and_close(const SessionPtr& session, BlockBuffer buffer,
                                   const absl::Status& refusal) {
  const std::string payload = encode_status(refusal);
  std::memcpy(buffer.data(), payload.data(), payload.size());
  Envelope reply = envelope_of(MessageKind::kHelloReply);
  reply.payload_bytes = static_cast<uint32_t>(payload.size());
  const uint32_t bytes = Envelope::seal(reply, buffer);
  session->wire_reason = refusal;
  session->phase = Session::Phase::kClosing;
  session->deadline_ns = clock_->monotonic_ns() + kLingerNs;
  {
    std::lock_guard lock(session->mutex);
    session->outgoing.push_back({std::move(buffer), bytes});
  }
  mark_dirty(session.get());
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

bool ExchangeImpl::send_own(Session& session, const Envelope& envelope, std::string_view payload) {
  BlockBuffer buffer = hello_pool_->try_take();
  if (!buffer) return false;
  if (!payload.empty()) std::memcpy(buffer.data(), payload.data(), payload.size());
  Envelope sealed = envelope;
  sealed.payload_bytes = static_cast<uint32_t>(payload.size());
  const uint32_t bytes = Envelope::seal(sealed, buffer);
  {
    std::lock_guard lock(session.mutex);
    session.outgoing.push_back({std::move(buffer), bytes});
  }
  mark_dirty(&session);
  return true;
}

void ExchangeImpl::begin_close(Session& session, const absl::Status& reason) {
  using Phase = Session::Phase;
  if (session.phase == Phase::kClosing || session.phase == Phase::kOver) return;
  if (session.phase == Phase::kAwaitHello) --awaiting_hello_;
  if (session.wire_reason.ok()) session.wire_reason = reason;
  const bool was_open = session.phase == Phase::kOpen;
  session.phase = Phase::kClosing;
  session.deadline_ns = clock_->monotonic_ns() + kLingerNs;
  std::deque<Outgoing> dropped;
  {
    std::lock_guard lock(session.mutex);
    if (!session.close_requested) {
      session.close_requested = true;
      session.reason =
          session.wire_reason.ok() ? unavailable("closed by peer") : session.wire_reason;
    }
    if (!reason.ok()) dropped.swap(session.outgoing);
  }
  session.changed.notify_all();
  if (!reason.ok()) {
    for (Outgoing& message : dropped) release(session, std::move(message.buffer));
    if (was_open) {
      send_own(session, envelope_of(MessageKind::kError), encode_status(reason));
    }
  }
  if (was_open && endpoint_->credits(session.connection) == 0 && !reason.ok()) {
    // A peer that gives no credit may never: do not make others wait for it.
    session.deadline_ns = clock_->monotonic_ns();
  }
  if (!session.has_outgoing() || !was_open) {
    session.close_begun = true;
    endpoint_->close(session.connection);
  }
}

void ExchangeImpl::on_closed(const SessionPtr& session, const absl::Status& status) {
  using Phase = Session::Phase;
  if (session->phase == Phase::kOver) return;
  if (session->phase == Phase::kAwaitHello) --awaiting_hello_;
  session->phase = Phase::kOver;
  const absl::Status reason = !session->wire_reason.ok() ? session->wire_reason : status;
  finish_connect(*session, reason.ok() ? unavailable("{} closed the connection", session->peer)
                                       : with_context(reason, session->peer));
  if (session->counted) --open_streams_;
  session->hello_buffer.reset();
  for (Outgoing& message : session->end(reason)) release(*session, std::move(message.buffer));
  sessions_.erase(session->connection);
  if (session->pool != nullptr) retired_.push_back(session);
}

void ExchangeImpl::run_timers() {
  std::erase_if(retired_, [](const SessionPtr& session) {
    if (session->pool->free() != session->pool->size()) return false;
    session->pool.reset();
    return true;
  });
  const int64_t now = clock_->monotonic_ns();
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
      if (now > session.deadline_ns) begin_close(session, deadline_exceeded("no hello came"));
      break;
    case Phase::kClosing:
      if (now > session.deadline_ns && !session.close_begun) {
        session.close_begun = true;
        endpoint_->close(session.connection);
      }
      break;
    case Phase::kOpen:
      // While nothing is posted the peer cannot say a word, so its silence means nothing.
      if (session.posted == 0) session.last_received_ns = now;
      if (now - session.last_received_ns > options_.idle_timeout_ms * kMs) {
        begin_close(session, unavailable("nothing from {} for {} s", session.peer,
                                         options_.idle_timeout_ms / 1000));
      } else if (now - session.last_sent_ns > options_.keepalive_ms * kMs &&
                 !session.has_outgoing() && endpoint_->credits(session.connection) > 0) {
        send_own(session, envelope_of(MessageKind::kKeepalive), {});
      }
      break;
    case Phase::kOver:
      break;
  }
}

}  // namespace sluice::stream

// Strangers: connections that were accepted and whose hello was not (yet). exchange.h says what
// they may cost. Everything here runs on the exchange's thread.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"
#include "dataplane/stream/exchange_impl.h"

namespace sluice::stream {
namespace {

// How long a refused stranger has to take the reason.
constexpr int64_t kRefusalNs = 2'000 * kMs;
// Strangers that were turned away are told of together.
constexpr int64_t kReportNs = 10'000 * kMs;

}  // namespace

void ExchangeImpl::on_accepted(Completion& completion) {
  auto session = std::make_shared<Session>(this, false, ++local_->streams, *clock_);
  session->connection = completion.connection;
  session->peer = completion.peer;
  session->phase = Session::Phase::kAwaitHello;
  session->stranger = true;
  session->deadline_ns = clock_->monotonic_ns() + options_.hello_timeout_ms * kMs;
  sessions_.emplace(completion.connection, std::move(session));
  newcomers_.add(completion.connection, completion.peer);
  if (newcomers_.overfull()) {
    turn_away(*sessions_.at(newcomers_.to_turn_away()),
              resource_exhausted("too many connections have not said hello"));
  }
  serve_newcomers();
}

// Gives hello buffers to those that wait, and takes some back from those that are silent.
void ExchangeImpl::serve_newcomers() {
  while (newcomers_.waiting() > 0) {
    BlockBuffer buffer = hello_pool_->try_take();
    if (!buffer) break;
    const uint64_t id = newcomers_.next_to_serve();
    Session& session = *sessions_.at(id);
    session.hello_buffer = std::move(buffer);
    newcomers_.hold_place(id, clock_->monotonic_ns());
    post_receives(session);
  }
  if (newcomers_.waiting() <= buffers_awaited_) return;
  const int64_t now = clock_->monotonic_ns();
  while (newcomers_.waiting() > buffers_awaited_) {
    const uint64_t silent = newcomers_.to_evict(now);
    if (silent == 0) return;
    turn_away(*sessions_.at(silent), unavailable("it says no hello, and others wait to"));
  }
}

void ExchangeImpl::turn_away(Session& session, const absl::Status& reason) {
  ++turned_away_;
  last_turned_away_ = session.peer;
  abort(session, reason);
}

void ExchangeImpl::report_turned_away(int64_t now) {
  if (turned_away_ == 0 || now < next_report_ns_) return;
  spdlog::warn(
      "{}: {} connections to {} were closed because they said no hello, the last one from {}; {} "
      "more wait",
      options_.node, turned_away_, address_, last_turned_away_, newcomers_.size());
  turned_away_ = 0;
  next_report_ns_ = now + kReportNs;
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

void ExchangeImpl::on_hello(const SessionPtr& session, const Message& message) {
  absl::Status refusal;
  if (message.envelope.kind != MessageKind::kHello) {
    // Not an exchange: nothing to tell it.
    turn_away(*session, data_loss("expected a hello as the first message"));
    return;
  }
  absl::StatusOr<Hello> hello = Hello::decode(as_string_view(message.payload()));
  refusal = hello.status();
  if (hello.ok()) {
    session->hello = *std::move(hello);
    refusal = check_hello(session->hello);
  }
  if (refusal.ok()) refusal = admit(session);
  if (absl::IsNotFound(refusal) && !session->hello.job.empty()) {
    session->phase = Session::Phase::kAwaitHandler;
    session->wire_reason = refusal;
    session->deadline_ns = clock_->monotonic_ns() + options_.serve_wait_ms * kMs;
    newcomers_.leave(session->connection);
    waiting_.push_back(session);
    return;
  }
  if (!refusal.ok()) refuse(*session, refusal);
}

void ExchangeImpl::admit_waiting() {
  std::vector<SessionPtr> waiting;
  waiting.swap(waiting_);
  for (const SessionPtr& session : waiting) {
    if (session->phase != Session::Phase::kAwaitHandler) continue;
    session->wire_reason = absl::OkStatus();
    const absl::Status refusal = admit(session);
    if (absl::IsNotFound(refusal)) {
      session->wire_reason = refusal;
      waiting_.push_back(session);
    } else if (!refusal.ok()) {
      refuse(*session, refusal);
    }
  }
}

absl::Status ExchangeImpl::admit(const SessionPtr& session) {
  if (admitted_ >= options_.max_streams) {
    return resource_exhausted("{} streams are open on {}, the most there may be", admitted_,
                              options_.node);
  }
  // Held over accepted(): after withdraw() a handler is not called any more.
  const MutexLock lock(handlers_mutex_);
  StreamHandler* const handler = find_handler(session->hello);
  if (handler == nullptr) return not_served(session->hello);
  SLUICE_ASSIGN_OR_RETURN(const StreamHandler::Admission admission, handler->admit(session->hello));
  const size_t wanted =
      admission.receive_blocks > 0 ? admission.receive_blocks : options_.receive_blocks;
  SLUICE_ASSIGN_OR_RETURN(
      session->pool,
      options_.arena->make_pool("stream from " + session->hello.node,
                                std::min(wanted, std::max<size_t>(limits_.receive_depth, 1))));
  session->inbox = std::static_pointer_cast<InboxImpl>(admission.inbox);
  session->pool->set_home_hook([this, raw = session.get()] { mark_dirty(raw); });
  auto stream = std::make_shared<StreamHandle>(session);
  session->handle = stream;
  session->counted = session->admitted = true;
  session->stranger = false;
  newcomers_.remove(session->connection);
  ++open_streams_;
  ++admitted_;
  open_session(session);
  session->own.push_back({MessageKind::kHelloReply, encode_status(absl::OkStatus())});
  mark_dirty(session.get());
  handler->accepted(std::move(stream));
  return absl::OkStatus();
}

// Told why, then closed; cut off when it does not take that.
void ExchangeImpl::refuse(Session& session, const absl::Status& refusal) {
  newcomers_.leave(session.connection);
  session.wire_reason = refusal;
  session.phase = Session::Phase::kClosing;
  session.for_cause = true;
  session.deadline_ns = clock_->monotonic_ns() + kRefusalNs;
  session.own.push_back({MessageKind::kHelloReply, encode_status(refusal)});
  mark_dirty(&session);
}

}  // namespace sluice::stream

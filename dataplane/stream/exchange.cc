#include "dataplane/stream/exchange.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstring>
#include <future>
#include <utility>

#include "base/status.h"
#include "dataplane/stream/exchange_impl.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<Exchange>> Exchange::open(const Options& options) {
  assert(options.arena != nullptr && options.transport != nullptr);
  if (options.receive_blocks == 0 || options.send_queue == 0 || options.control_buffers == 0 ||
      options.hello_buffers == 0 || options.own_buffers == 0 || options.max_streams == 0 ||
      options.max_strangers == 0) {
    return invalid_argument("exchange: every bound must be at least 1");
  }
  if (options.arena->buffer_bytes() < kBufferBytes) {
    return invalid_argument("exchange: arena buffers of {} bytes, {} are needed",
                            options.arena->buffer_bytes(), kBufferBytes);
  }
  auto exchange = std::make_unique<stream::ExchangeImpl>(options);
  SLUICE_RETURN_IF_ERROR(exchange->start());
  return exchange;
}

namespace stream {
namespace {

constexpr size_t kPostBatch = 16;

Newcomers::Options newcomer_options(const Exchange::Options& options) {
  Newcomers::Options newcomers;
  newcomers.places = options.hello_buffers;
  newcomers.room = options.max_strangers + options.hello_buffers;
  newcomers.patience_ns = options.hello_grace_ms * kMs;
  newcomers.least_patience_ns = std::min(newcomers.least_patience_ns, newcomers.patience_ns);
  return newcomers;
}

}  // namespace

ExchangeImpl::ExchangeImpl(const Options& options)
    : options_(options),
      clock_(options.clock != nullptr ? options.clock : &system_clock()),
      own_executor_(options.executor != nullptr
                        ? nullptr
                        : make_thread_executor("work", default_executor_threads(), *clock_)),
      executor_(options.executor != nullptr ? options.executor : own_executor_.get()),
      moving_(*clock_),
      newcomers_(newcomer_options(options)) {
  local_->clock = clock_;
  local_->limit = options.limit;
  local_->wake = [this] { endpoint_->wake(); };
}

absl::Status ExchangeImpl::start() {
  limits_ = options_.transport->limits();
  if (!options_.listen.empty()) {
    SLUICE_ASSIGN_OR_RETURN(hello_pool_,
                            options_.arena->make_pool("exchange: hello", options_.hello_buffers));
  }
  SLUICE_ASSIGN_OR_RETURN(own_pool_,
                          options_.arena->make_pool("exchange: own", options_.own_buffers));
  SLUICE_ASSIGN_OR_RETURN(control_pool_,
                          options_.arena->make_pool("exchange: control", options_.control_buffers));
  local_->control_pool = control_pool_.get();
  is_control_.assign(options_.arena->buffers(), 0);
  send_scratch_.reserve(kPostBatch);
  SLUICE_ASSIGN_OR_RETURN(endpoint_, options_.transport->open(*options_.arena, options_.listen));
  address_ = endpoint_->address();
  thread_ = std::thread([this] { run(); });
  return absl::OkStatus();
}

ExchangeImpl::~ExchangeImpl() {
  {
    const MutexLock lock(links_mutex_);
    for (const auto& weak : links_) {
      if (const auto link = weak.lock()) link->shut_down(cancelled("exchange is closing"));
    }
  }
  if (thread_.joinable()) {
    stopping_.store(true);
    endpoint_->wake();
    thread_.join();
  }
  endpoint_.reset();
  // Users have let go of their messages by now (the contract); a driver or a disk may still be
  // about to, and a pool's hook uses what is destroyed below.
  for (const SessionPtr& session : retired_) session->pool->wait_until_whole();
}

void ExchangeImpl::mark_dirty(Session* session) {
  if (session->dirty.exchange(true)) return;
  {
    const MutexLock lock(work_mutex_);
    if (SessionPtr shared = session->weak_from_this().lock(); shared != nullptr) {
      dirty_.push_back(std::move(shared));
    }
  }
  if (sleeping_.load()) endpoint_->wake();
}

absl::StatusOr<std::shared_ptr<Stream>> ExchangeImpl::connect(const ConnectOptions& options) {
  assert(std::this_thread::get_id() != thread_.get_id());
  if (is_local(options)) {
    return connect_local(options, std::min(options_.serve_wait_ms, options.timeout_ms));
  }
  // The exchange's thread always answers: when it is done, when the deadline has passed, or when it
  // stops.
  std::promise<absl::StatusOr<std::shared_ptr<Stream>>> promise;
  begin_connect(options, [&promise](absl::StatusOr<std::shared_ptr<Stream>> stream) {
    promise.set_value(std::move(stream));
  });
  return promise.get_future().get();
}

void ExchangeImpl::begin_connect(const ConnectOptions& options, Connected done) {
  if (is_local(options)) return done(connect_local(options, 0));
  auto session = std::make_shared<Session>(this, true, ++local_->streams, *clock_);
  const size_t blocks =
      std::min(options.receive_blocks > 0 ? options.receive_blocks : options_.receive_blocks,
               std::max<size_t>(limits_.receive_depth, 1));
  auto pool = options_.arena->make_pool("stream to " + options.address, blocks);
  if (!pool.ok()) return done(pool.status());
  session->pool = *std::move(pool);
  session->pool->set_home_hook([this, raw = session.get()] { mark_dirty(raw); });
  session->peer = options.address;
  session->hello = hello_of(options);
  session->inbox = std::static_pointer_cast<InboxImpl>(options.inbox);
  session->deadline_ns = clock_->monotonic_ns() + options.timeout_ms * kMs;

  auto connecting = std::make_shared<Connecting>();
  connecting->session = std::move(session);
  connecting->address = options.address;
  connecting->done = std::move(done);
  bool closing = false;
  {
    const MutexLock lock(work_mutex_);
    closing = stopping_.load();
    if (!closing) connect_requests_.push_back(connecting);
  }
  if (closing) return connecting->done(cancelled("exchange is closing"));
  endpoint_->wake();
}

Hello ExchangeImpl::hello_of(const ConnectOptions& options) const {
  Hello hello;
  hello.cluster = options.cluster.empty() ? options_.cluster : options.cluster;
  hello.node = options_.node;
  hello.incarnation = options_.incarnation;
  hello.target = options.target;
  hello.kind = options.kind;
  hello.job = options.job;
  hello.attempt = options.attempt;
  return hello;
}

StreamHandler* ExchangeImpl::find_handler(const Hello& hello) {
  auto found = handlers_.find({hello.kind, hello.job});
  if (found == handlers_.end()) found = handlers_.find({hello.kind, std::string()});
  return found == handlers_.end() ? nullptr : found->second;
}

// The same checks as for a peer, on this thread.
absl::StatusOr<std::shared_ptr<Stream>> ExchangeImpl::connect_local(const ConnectOptions& options,
                                                                    int64_t wait_ms) {
  const Hello hello = hello_of(options);
  SLUICE_RETURN_IF_ERROR(check_hello(hello));
  if (local_->open.load() / 2 >= options_.max_streams) {
    return resource_exhausted("{} streams of {} to itself are open, the most there may be",
                              options_.max_streams, options_.node);
  }
  MutexLock lock(handlers_mutex_);
  if (!hello.job.empty()) {
    handlers_changed_.wait_for(lock, std::chrono::milliseconds(wait_ms),
                               [&]() SLUICE_REQUIRES(handlers_mutex_) {
                                 return find_handler(hello) != nullptr || stopping_.load();
                               });
  }
  StreamHandler* const handler = find_handler(hello);
  if (handler == nullptr) return not_served(hello);
  SLUICE_ASSIGN_OR_RETURN(const StreamHandler::Admission admission, handler->admit(hello));
  const auto blocks = [this](size_t wanted) {
    return wanted > 0 ? wanted : options_.receive_blocks;
  };
  LocalLink::Ends ends = LocalLink::make(
      local_, hello, address_,
      {blocks(options.receive_blocks), std::static_pointer_cast<InboxImpl>(options.inbox)},
      {blocks(admission.receive_blocks), std::static_pointer_cast<InboxImpl>(admission.inbox)});
  {
    const MutexLock links(links_mutex_);
    std::erase_if(links_, [](const auto& weak) { return weak.expired(); });
    links_.push_back(ends.first->link());
  }
  handler->accepted(std::move(ends.second));
  return std::move(ends.first);
}

absl::Status ExchangeImpl::not_served(const Hello& hello) const {
  return not_found("{} does not serve {} streams of \"{}\" now", options_.node,
                   stream_kind_name(hello.kind), hello.job);
}

absl::Status ExchangeImpl::serve(StreamKind kind, const std::string& job, StreamHandler* handler) {
  {
    const MutexLock lock(handlers_mutex_);
    if (!handlers_.try_emplace({kind, job}, handler).second) {
      return already_exists("{} streams of \"{}\" are served already", stream_kind_name(kind), job);
    }
  }
  handlers_changed_.notify_all();
  handler_came_.store(true);
  if (sleeping_.load()) endpoint_->wake();
  return absl::OkStatus();
}

void ExchangeImpl::withdraw(StreamKind kind, const std::string& job) {
  const MutexLock lock(handlers_mutex_);
  handlers_.erase({kind, job});
}

TransportCounters ExchangeImpl::counters() const {
  const MutexLock lock(counters_mutex_);
  return counters_;
}

void ExchangeImpl::snapshot_counters() {
  const TransportCounters now = endpoint_->counters();
  const MutexLock lock(counters_mutex_);
  counters_ = now;
}

StageTimes ExchangeImpl::times() const {
  StageTimes times = moving_.times();
  const TransportCounters moved = counters();
  times.bytes = moved.sent_bytes + moved.received_bytes;
  times.system_calls = moved.system_calls;
  return times;
}

void ExchangeImpl::run() {
  moving_.begin();
  while (!stopping_.load(std::memory_order_relaxed)) {
    bool progress = take_work();
    progress |= poll_completions();
    if (!refused_.empty()) progress |= offer_refused();
    if (options_.limit != nullptr) {
      progress |= grant_held_back();
      // Each is first in turn: the limit's room goes to who asks first.
      if (!sending_.empty()) std::rotate(sending_.begin(), sending_.begin() + 1, sending_.end());
      send_held_back_ = false;
    }
    for (size_t i = 0; i < sending_.size();) {
      // Copied: pump() may end the session.
      const SessionPtr session = sending_[i];
      progress |= pump(*session);
      if (has_waiting(*session) && session->phase != Session::Phase::kOver) {
        ++i;
      } else {
        sending_[i] = std::move(sending_.back());
        sending_.pop_back();
      }
    }
    if (newcomers_.waiting() > 0) serve_newcomers();
    if (handler_came_.exchange(false)) admit_waiting();
    if (clock_->monotonic_ns() >= next_timer_ns_) {
      run_timers();
      next_timer_ns_ = clock_->monotonic_ns() + options_.timer_ms * kMs;
    }
    if (progress) continue;
    snapshot_counters();
    sleeping_.store(true);
    bool nothing_new = false;
    {
      const MutexLock lock(work_mutex_);
      nothing_new = dirty_.empty() && connect_requests_.empty() && !handler_came_.load();
    }
    if (nothing_new && !stopping_.load()) {
      moving_.end(0);
      endpoint_->wait(std::min(idle_wait_ns(), limit_wait_ns()));
      moving_.begin();
    }
    sleeping_.store(false);
  }
  stop_all();
  moving_.end(0);
}

// Until the next timer, or until a silent stranger's time is over that others wait for.
int64_t ExchangeImpl::idle_wait_ns() {
  const int64_t eviction = newcomers_.next_eviction_ns();
  const int64_t timer_ns = options_.timer_ms * kMs;
  if (eviction == 0 || newcomers_.waiting() <= buffers_awaited_) return timer_ns;
  return std::clamp<int64_t>(eviction - clock_->monotonic_ns(), 0, timer_ns);
}

bool ExchangeImpl::has_waiting(Session& session) {
  return !session.own.empty() || session.has_outgoing();
}

bool ExchangeImpl::take_work() {
  std::vector<ConnectingPtr> connects;
  {
    const MutexLock lock(work_mutex_);
    taken_.swap(dirty_);
    connects.swap(connect_requests_);
  }
  for (const ConnectingPtr& connecting : connects) try_connect(connecting);
  for (const SessionPtr& session : taken_) {
    // Cleared first: what is marked from here on is seen by the next round.
    session->dirty.store(false);
    if (session->phase == Session::Phase::kOver) continue;
    post_receives(*session);
    bool close_requested = false;
    absl::Status reason;
    {
      const MutexLock lock(session->mutex);
      close_requested = session->close_requested;
      reason = session->reason;
    }
    if (close_requested && session->phase == Session::Phase::kOpen) begin_close(*session, reason);
    const bool waiting = has_waiting(*session) || session->phase == Session::Phase::kClosing;
    if (waiting && std::find(sending_.begin(), sending_.end(), session) == sending_.end()) {
      sending_.push_back(session);
    }
  }
  const bool progress = !taken_.empty() || !connects.empty();
  taken_.clear();
  return progress;
}

// Puts the exchange's own messages into buffers as the peer has credit for them.
bool ExchangeImpl::send_own(Session& session) {
  bool sent = false;
  while (!session.own.empty() && endpoint_->credits(session.connection) > 0) {
    const OwnMessage& message = session.own.front();
    SendRequest request;
    request.buffer = own_pool_->try_take();
    if (!request.buffer) break;
    if (!message.payload.empty()) {
      std::memcpy(request.buffer.data(), message.payload.data(), message.payload.size());
    }
    Envelope envelope;
    envelope.kind = message.kind;
    envelope.payload_bytes = static_cast<uint32_t>(message.payload.size());
    const uint32_t bytes = request.bytes = Envelope::seal(envelope, request.buffer);
    if (endpoint_->post_send(session.connection, {&request, 1}) == 0) break;
    session.own.pop_front();
    session.last_sent_ns = clock_->monotonic_ns();
    sent = true;
    const MutexLock lock(session.mutex);
    session.counters.sent_bytes += bytes;
    ++session.counters.sent_messages;
  }
  return sent;
}

bool ExchangeImpl::pump(Session& session) {
  using Phase = Session::Phase;
  if (session.phase == Phase::kConnecting || session.phase == Phase::kOver || session.close_begun) {
    return false;
  }
  const bool sent = send_own(session);
  if (!session.own.empty()) return sent;
  const size_t credits = std::min(endpoint_->credits(session.connection), kPostBatch);
  if (credits > 0) {
    send_scratch_.clear();
    {
      const MutexLock lock(session.mutex);
      while (send_scratch_.size() < credits && !session.outgoing.empty()) {
        Outgoing& next = session.outgoing.front();
        if (options_.limit != nullptr && !may_send(next)) break;
        send_scratch_.push_back({std::move(next.buffer), next.bytes});
        session.outgoing.pop_front();
      }
    }
    const size_t accepted = endpoint_->post_send(session.connection, send_scratch_);
    size_t left = 0;
    {
      const MutexLock lock(session.mutex);
      for (size_t i = send_scratch_.size(); i > accepted; --i) {
        SendRequest& back = send_scratch_[i - 1];
        session.outgoing.push_front({std::move(back.buffer), back.bytes});
        if (options_.limit != nullptr) take_back(session.outgoing.front());
      }
      for (size_t i = 0; i < accepted; ++i) {
        session.counters.sent_bytes += send_scratch_[i].bytes;
        ++session.counters.sent_messages;
      }
      left = session.outgoing.size();
      if (accepted > 0) session.notify_locked();
    }
    if (accepted > 0) {
      session.last_sent_ns = clock_->monotonic_ns();
      if (left > 0 || session.phase != Phase::kClosing) return true;
    }
  }
  if (session.phase == Phase::kClosing && !session.has_outgoing()) {
    session.close_begun = true;
    endpoint_->close(session.connection);
    return true;
  }
  return sent;
}

bool ExchangeImpl::post_receives(Session& session) {
  using Phase = Session::Phase;
  if (session.phase == Phase::kAwaitHello && session.hello_buffer) {
    session.posted = endpoint_->post_recv(session.connection, {&session.hello_buffer, 1});
    if (session.posted == 0) refused(session);
    return session.posted > 0;
  }
  if (session.pool == nullptr || session.phase == Phase::kConnecting ||
      session.phase == Phase::kAwaitHello || session.phase == Phase::kAwaitHandler ||
      session.phase == Phase::kOver || session.close_begun) {
    return false;
  }
  if (options_.limit != nullptr && session.bulk_bytes > 0) {
    hold_back(session);
    return false;
  }
  bool progress = false;
  while (fill_unposted(session, kPostBatch)) {
    const size_t accepted = endpoint_->post_recv(session.connection, session.unposted);
    session.unposted.erase(session.unposted.begin(),
                           session.unposted.begin() + static_cast<ptrdiff_t>(accepted));
    session.posted += accepted;
    progress |= accepted > 0;
    if (session.unposted.empty()) continue;
    refused(session);
    break;
  }
  return progress;
}

// The driver did not take all: it is offered the rest in each later round of the loop, which is
// nothing to go round for. A connection that is being closed takes none for as long as its peer
// likes.
void ExchangeImpl::refused(Session& session) {
  if (std::exchange(session.refused, true)) return;
  refused_.push_back(session.shared_from_this());
}

bool ExchangeImpl::offer_refused() {
  std::vector<SessionPtr> sessions;
  sessions.swap(refused_);
  bool progress = false;
  for (const SessionPtr& session : sessions) {
    session->refused = false;
    progress |= post_receives(*session);
  }
  return progress;
}

// Up to `most` buffers to post; false when there is none.
bool ExchangeImpl::fill_unposted(Session& session, size_t most) {
  while (session.unposted.size() < most) {
    BlockBuffer buffer = session.pool->try_take();
    if (!buffer) break;
    session.unposted.push_back(std::move(buffer));
  }
  return !session.unposted.empty();
}

void ExchangeImpl::release(Session& session, BlockBuffer buffer) {
  if (!buffer) return;
  uint8_t& flag = is_control_[buffer.index()];
  if (flag != 0) {
    flag = 0;
    session.control_released();
  }
}

void ExchangeImpl::stop_all() {
  std::vector<ConnectingPtr> connects;
  {
    const MutexLock lock(work_mutex_);
    connects.swap(connect_requests_);
    dirty_.clear();
  }
  const absl::Status reason = cancelled("exchange is closing");
  for (const ConnectingPtr& connecting : connects) connecting->done(reason);
  // What was queued before a close is still given to the wire.
  for (auto& [id, session] : sessions_) pump(*session);
  std::vector<SessionPtr> all;
  for (auto& [id, session] : sessions_) all.push_back(session);
  for (const SessionPtr& session : all) on_closed(session, reason);
  sending_.clear();
  refused_.clear();
  snapshot_counters();
}

}  // namespace stream
}  // namespace sluice

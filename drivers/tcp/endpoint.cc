#include "drivers/tcp/endpoint.h"

#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <span>
#include <utility>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/status.h"
#include "drivers/tcp/sending_cost.h"
#include "drivers/tcp/socket_options.h"

namespace sluice::tcp {
namespace {

// Ids of what epoll watches besides connections; connections count on from there.
constexpr uint64_t kWakeId = 1;
constexpr uint64_t kListenerId = 2;
constexpr uint64_t kFirstConnection = 3;

constexpr int64_t kScanEvery = 10 * kMs;
constexpr int64_t kAcceptPause = 100 * kMs;
constexpr int64_t kReportEvery = 10'000 * kMs;
constexpr int kBacklog = 1024;
constexpr size_t kAcceptsAtOnce = 64;

void ignore_sigpipe() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    if (sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
      action.sa_handler = SIG_IGN;
      sigaction(SIGPIPE, &action, nullptr);
    }
  });
}

absl::Status listen_error(int error, std::string_view listen) {
  if (error == EADDRINUSE) {
    return failed_precondition(
        "listen on {}: the address is in use; stop the program that has it, or choose another port "
        "(0: any free one)",
        listen);
  }
  if (error == EADDRNOTAVAIL) {
    return failed_precondition("listen on {}: this machine has no such address; see `ip address`",
                               listen);
  }
  if (error == EACCES) {
    return permission_denied("listen on {}: not permitted; choose a port from 1024 on", listen);
  }
  return errno_status(error, fmt::format("listen on {}", listen));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Endpoint>> TcpEndpoint::open(const TcpOptions& options, Arena& arena,
                                                            std::string_view listen) {
  ignore_sigpipe();
  std::unique_ptr<TcpEndpoint> endpoint(new TcpEndpoint(options, arena));
  SLUICE_RETURN_IF_ERROR(endpoint->set_up(listen));
  return absl::StatusOr<std::unique_ptr<Endpoint>>(std::move(endpoint));
}

TcpEndpoint::TcpEndpoint(const TcpOptions& options, Arena& arena)
    : half_open_({.room = options.max_half_open}), next_id_(kFirstConnection) {
  shared_.options = options;
  shared_.max_message_bytes = std::min(options.max_message_bytes, arena.buffer_bytes());
  shared_.memfd = arena.memfd();
  shared_.sendfile = uses_sendfile(options.send_by) && !arena.has_huge_pages();
  shared_.now_ns = system_clock().monotonic_ns();
}

TcpEndpoint::~TcpEndpoint() = default;

absl::Status TcpEndpoint::set_up(std::string_view listen) {
  shared_.counters.system_calls += 2;
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return errno_status(errno, "tcp: epoll_create1");
  wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return errno_status(errno, "tcp: eventfd");
  SLUICE_RETURN_IF_ERROR(watch(wake_.get(), kWakeId, EPOLLIN));
  return listen.empty() ? absl::OkStatus() : start_listening(listen);
}

absl::Status TcpEndpoint::start_listening(std::string_view listen) {
  SLUICE_ASSIGN_OR_RETURN(SocketAddress address, parse_address(listen));
  shared_.counters.system_calls += 5;  // to the end of this function, without watch()
  listener_.reset(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener_) return errno_status(errno, fmt::format("listen on {}", listen));
  set_option(listener_.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(listener_.get(), address.get(), address.length) != 0 ||
      ::listen(listener_.get(), kBacklog) != 0) {
    return listen_error(errno, listen);
  }
  address.length = sizeof(address.storage);
  if (getsockname(listener_.get(), address.get(), &address.length) != 0) {
    return errno_status(errno, fmt::format("listen on {}", listen));
  }
  address_ = to_string(address);
  accepting_ = true;
  return watch(listener_.get(), kListenerId, EPOLLIN);
}

absl::Status TcpEndpoint::watch(int fd, ConnectionId id, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  ++shared_.counters.system_calls;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return errno_status(errno, "tcp: epoll_ctl");
  return absl::OkStatus();
}

Connection* TcpEndpoint::find(ConnectionId id) const {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

void TcpEndpoint::enqueue(Connection* connection) {
  if (connection->queued) return;
  connection->queued = true;
  work_.push_back(connection);
}

// Takes the socket on as a connection; one that is already broken ends with kClosed at the next
// poll.
ConnectionId TcpEndpoint::add(UniqueFd fd, const SocketAddress& peer, bool connecting,
                              const absl::Status& status) {
  const int raw = fd.get();
  const ConnectionId id = next_id_++;
  auto made = std::make_unique<Connection>(&shared_, id, std::move(fd), peer, connecting);
  Connection* connection = made.get();
  connections_.emplace(id, std::move(made));
  if (!connecting) {
    ++accepted_;
    half_open_.add(id, to_string(peer));
  }
  absl::Status watched = status;
  if (watched.ok()) watched = watch(raw, id, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  if (!watched.ok()) {
    connection->fail(watched);
    note_half_open(*connection);
  }
  enqueue(connection);
  return id;
}

absl::StatusOr<ConnectionId> TcpEndpoint::connect(std::string_view text) {
  SLUICE_ASSIGN_OR_RETURN(SocketAddress address, parse_address(text));
  if (connections_.size() >= shared_.options.max_connections) {
    return resource_exhausted("connect to {}: {} connections are open, which is the limit", text,
                              connections_.size());
  }
  shared_.now_ns = system_clock().monotonic_ns();
  ++shared_.counters.system_calls;
  UniqueFd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno_status(errno, fmt::format("connect to {}", text));
  set_up_socket(fd.get(), shared_.options.dead_peer_timeout_ms);
  absl::Status status;
  shared_.counters.system_calls += kSetUpCalls + 1;
  if (::connect(fd.get(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
    status = unavailable("{}", message_of(errno_status(errno, fmt::format("connect to {}", text))));
  }
  return add(std::move(fd), address, true, status);
}

void TcpEndpoint::close(ConnectionId id) {
  Connection* connection = find(id);
  if (connection == nullptr) return;
  connection->start_close();
  note_half_open(*connection);
  enqueue(connection);
}

void TcpEndpoint::abort(ConnectionId id) {
  Connection* connection = find(id);
  if (connection == nullptr) return;
  connection->abort();
  note_half_open(*connection);
  enqueue(connection);
}

size_t TcpEndpoint::post_recv(ConnectionId id, std::span<BlockBuffer> buffers) {
  Connection* connection = find(id);
  if (connection == nullptr) return 0;
  const size_t accepted = connection->post_recv(buffers);
  // The peer is told by the next poll, so that credits given one by one travel together.
  if (accepted > 0) enqueue(connection);
  return accepted;
}

size_t TcpEndpoint::post_send(ConnectionId id, std::span<SendRequest> requests) {
  Connection* connection = find(id);
  if (connection == nullptr) return 0;
  const size_t accepted = connection->post_send(requests);
  if (accepted > 0) {
    connection->write();
    enqueue(connection);
  }
  return accepted;
}

size_t TcpEndpoint::credits(ConnectionId id) const {
  const Connection* connection = find(id);
  return connection == nullptr ? 0 : connection->credits();
}

size_t TcpEndpoint::poll(std::span<Completion> completions) {
  if (shared_.completions.size() < completions.size()) progress();
  const size_t count = std::min(shared_.completions.size(), completions.size());
  for (size_t i = 0; i < count; ++i) completions[i] = shared_.completions.pop_front();
  return count;
}

void TcpEndpoint::wait(int64_t timeout_ns) {
  shared_.now_ns = system_clock().monotonic_ns();
  int64_t timeout = std::max<int64_t>(timeout_ns, 0);
  const int64_t deadline = next_deadline_ns();
  if (deadline != 0) timeout = std::clamp<int64_t>(deadline - shared_.now_ns, 0, timeout);
  if (!shared_.completions.empty() || !work_.empty() || accept_ready_) timeout = 0;
  collect_events(timeout);
  collected_ = true;
  // Only wait() takes wake-ups back, so that one that came during a poll ends the next wait.
  if (!std::exchange(woken_, false)) return;
  uint64_t count = 0;
  ++shared_.counters.system_calls;
  while (read(wake_.get(), &count, sizeof(count)) < 0 && errno == EINTR) {
  }
}

void TcpEndpoint::wake() {
  wakes_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t one = 1;
  while (write(wake_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

TransportCounters TcpEndpoint::counters() const {
  TransportCounters counters = shared_.counters;
  counters.system_calls += wakes_.load(std::memory_order_relaxed);
  return counters;
}

void TcpEndpoint::progress() {
  shared_.now_ns = system_clock().monotonic_ns();
  if (!std::exchange(collected_, false)) collect_events(0);
  accept_some();
  advance_queued();
  if (shared_.now_ns >= next_scan_ns_) check_deadlines();
}

void TcpEndpoint::collect_events(int64_t timeout_ns) {
  std::array<epoll_event, 128> events;
  ++shared_.counters.system_calls;
  const size_t count = wait_for_events(epoll_.get(), events, timeout_ns);
  for (const epoll_event& event : std::span(events).first(count)) {
    if (event.data.u64 == kWakeId) woken_ = true;
    if (event.data.u64 == kListenerId) accept_ready_ = true;
    if (event.data.u64 < kFirstConnection) continue;
    if (Connection* connection = find(event.data.u64); connection != nullptr) {
      connection->on_events(event.events);
      enqueue(connection);
    }
  }
}

void TcpEndpoint::advance_queued() {
  working_.swap(work_);
  for (Connection* connection : working_) {
    connection->queued = false;
    const bool more = connection->advance();
    note_half_open(*connection);
    if (connection->finished()) {
      if (connection->accepted()) --accepted_;
      connections_.erase(connection->id());
    } else if (more) {
      enqueue(connection);
    }
  }
  working_.clear();
}

void TcpEndpoint::check_deadlines() {
  next_scan_ns_ = shared_.now_ns + kScanEvery;
  for (const auto& [id, connection] : connections_) {
    connection->check_deadline();
    if (!connection->finished()) continue;
    note_half_open(*connection);
    enqueue(connection.get());
  }
  if (accept_again_ns_ != 0 && shared_.now_ns >= accept_again_ns_) {
    accept_again_ns_ = 0;
    set_accepting(true);
  }
  report_turned_away();
}

int64_t TcpEndpoint::next_deadline_ns() const {
  int64_t next = accept_again_ns_;
  for (const auto& [id, connection] : connections_) {
    const int64_t deadline = connection->deadline_ns();
    if (deadline != 0 && (next == 0 || deadline < next)) next = deadline;
  }
  // The scan that acts on a deadline is at most so late.
  return next == 0 ? 0 : std::max(next, next_scan_ns_);
}

// Once it is not half-open any more.
void TcpEndpoint::note_half_open(const Connection& connection) {
  if (connection.accepted() && !connection.half_open()) half_open_.remove(connection.id());
}

// Closes a half-open connection; false when there is none.
bool TcpEndpoint::turn_one_away(const absl::Status& why) {
  Connection* const connection = find(half_open_.to_turn_away());
  if (connection == nullptr) return false;
  ++turned_away_;
  last_turned_away_ = connection->peer();
  connection->cut_off(with_context(why, fmt::format("peer {} turned away", connection->peer())));
  note_half_open(*connection);
  enqueue(connection);
  return true;
}

void TcpEndpoint::set_accepting(bool on) {
  if (!listener_ || accepting_ == on) return;
  accepting_ = on;
  if (!on) accept_ready_ = false;
  epoll_event event{};
  event.events = on ? uint32_t{EPOLLIN} : 0;
  event.data.u64 = kListenerId;
  ++shared_.counters.system_calls;
  const int result = epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener_.get(), &event);
  assert(result == 0);
  static_cast<void>(result);
}

void TcpEndpoint::accept_some() {
  if (!accept_ready_) return;
  accept_ready_ = false;
  // Few at once, so that those that were let in are heard before more of them make the oldest go.
  const size_t most = std::clamp<size_t>(shared_.options.max_half_open / 8, 1, kAcceptsAtOnce);
  for (size_t i = 0; i < most; ++i) {
    SocketAddress peer;
    ++shared_.counters.system_calls;
    UniqueFd fd(accept4(listener_.get(), peer.get(), &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      accept_one(std::move(fd), peer);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      // Epoll would tell of the listener again and again.
      turn_one_away(resource_exhausted("{}", message_of(errno_status(errno, "accept"))));
      set_accepting(false);
      accept_again_ns_ = shared_.now_ns + kAcceptPause;
    }
    if (errno != EINTR && errno != ECONNABORTED) return;
  }
  // There may be more: after what has come on the other connections.
  accept_ready_ = true;
}

// Whether one more connection can be accepted, which has this descriptor.
bool TcpEndpoint::make_room(int fd) {
  const TcpOptions& options = shared_.options;
  const size_t most = std::min(options.max_accepted, options.max_connections);
  if (accepted_ >= most || connections_.size() >= options.max_connections) {
    return turn_one_away(resource_exhausted("{} connections are open, which is the limit", most));
  }
  ++shared_.counters.system_calls;
  if (!is_reserved_descriptor(fd)) return true;
  return turn_one_away(resource_exhausted("the process's descriptors are nearly all in use"));
}

void TcpEndpoint::accept_one(UniqueFd fd, const SocketAddress& peer) {
  if (!make_room(fd.get())) {
    ++turned_away_;
    last_turned_away_ = to_string(peer);
    shared_.counters.system_calls += 2;
    reset_on_close(fd.get());
    return;
  }
  set_up_socket(fd.get(), shared_.options.dead_peer_timeout_ms);
  shared_.counters.system_calls += kSetUpCalls;
  add(std::move(fd), peer, false, absl::OkStatus());
  if (half_open_.overfull()) {
    turn_one_away(resource_exhausted("more than {} connections have sent no preamble",
                                     shared_.options.max_half_open));
  }
}

void TcpEndpoint::report_turned_away() {
  if (turned_away_ == 0 || shared_.now_ns < next_report_ns_) return;
  spdlog::warn(
      "tcp: {}: {} connections were turned away, the last one from {}; {} are open, {} of them "
      "have sent no preamble",
      address_, turned_away_, last_turned_away_, connections_.size(), half_open_.size());
  turned_away_ = 0;
  next_report_ns_ = shared_.now_ns + kReportEvery;
}

}  // namespace sluice::tcp

#include "drivers/rdma/endpoint.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <span>
#include <utility>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/status.h"
#include "base/text.h"
#include "drivers/rdma/probe.h"

namespace sluice::rdma {
namespace {

// What epoll watches: the low bits say what, the others which device.
constexpr uint64_t kWakeToken = 0;
constexpr uint64_t kManagerToken = 1;
constexpr uint64_t kCompletionToken = 2;
constexpr uint64_t kDeviceToken = 3;
constexpr uint64_t kTokenKinds = 4;

constexpr int64_t kScanEvery = 10 * kMs;
constexpr int64_t kLinger = 1000 * kMs;
// A port that comes up has its addresses a little later.
constexpr int64_t kPortSettles = 500 * kMs;
constexpr int kBacklog = 1024;

// What one poll takes before it returns to the caller.
constexpr size_t kPollBudget = 256;
constexpr int kPollBatch = 32;

absl::Status listen_error(int error, std::string_view listen) {
  switch (error) {
    case EADDRINUSE:
      return failed_precondition(
          "listen on {}: the address is in use; stop the program that has it, or choose another "
          "port (0: any free one)",
          listen);
    case EADDRNOTAVAIL:
      return failed_precondition("listen on {}: this machine has no such address; see `ip address`",
                                 listen);
    case EACCES:
      return permission_denied("listen on {}: not permitted; choose a port from 1024 on", listen);
    case ENODEV:
      return failed_precondition(
          "listen on {}: no active RDMA port has a GID for this address ({}); give an address of "
          "an RDMA interface that is up, and see `sluice doctor`",
          listen, describe_ports(examine()));
    default:
      return errno_status(error, fmt::format("listen on {}", listen));
  }
}

bool is_wildcard(const SocketAddress& address) {
  const std::string text = to_string(address);
  return text.starts_with("0.0.0.0:") || text.starts_with("[::]:");
}

void clear_port(SocketAddress* address) {
  if (address->family() == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address->storage).sin6_port = 0;
  } else {
    reinterpret_cast<sockaddr_in&>(address->storage).sin_port = 0;
  }
}

}  // namespace

absl::StatusOr<RdmaAddress> parse_rdma_address(std::string_view text, std::string_view device) {
  RdmaAddress parsed;
  parsed.device = device;
  const size_t colon = text.rfind(':');
  const size_t percent = text.rfind('%');
  if (colon != std::string_view::npos && percent != std::string_view::npos && percent > colon) {
    parsed.device = text.substr(percent + 1);
    text = text.substr(0, percent);
    if (parsed.device.empty()) {
      return invalid_argument("address \"{}%\": no device after the %; for example {}%mlx5_0",
                              printable(text), printable(text));
    }
  }
  SLUICE_ASSIGN_OR_RETURN(parsed.address, parse_address(text));
  return parsed;
}

void RdmaEndpoint::Unmap::operator()(uint8_t* memory) const { munmap(memory, bytes); }

absl::StatusOr<std::unique_ptr<Endpoint>> RdmaEndpoint::open(const RdmaOptions& options,
                                                             Arena& arena,
                                                             std::string_view listen) {
  std::unique_ptr<RdmaEndpoint> endpoint(new RdmaEndpoint(options, arena));
  SLUICE_RETURN_IF_ERROR(endpoint->set_up(listen));
  return absl::StatusOr<std::unique_ptr<Endpoint>>(std::move(endpoint));
}

RdmaEndpoint::RdmaEndpoint(const RdmaOptions& options, Arena& arena) : arena_(arena), next_id_(1) {
  shared_.options = options;
  shared_.options.max_connections = std::min(options.max_connections, kMaxConnections);
  shared_.max_message_bytes = std::min(options.max_message_bytes, arena.buffer_bytes());
  shared_.now_ns = system_clock().monotonic_ns();
}

// The connection manager tells the peers; the devices let go of the buffers before they go home.
RdmaEndpoint::~RdmaEndpoint() {
  for (const auto& [id, connection] : connections_) {
    if (connection->was_asked() && connection->cm_id() != nullptr) {
      rdma_disconnect(connection->cm_id());
    }
  }
  connections_.clear();
}

absl::Status RdmaEndpoint::set_up(std::string_view listen) {
  RdmaAddress address;
  if (!listen.empty()) {
    SLUICE_ASSIGN_OR_RETURN(address, parse_rdma_address(listen, shared_.options.device));
  }
  const Report report = examine();
  if (!report.usable) return failed_precondition("rdma: {}; {}", report.reason, report.fix);
  wanted_device_ = listen.empty() ? shared_.options.device : address.device;
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return errno_status(errno, "rdma: epoll_create1");
  wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return errno_status(errno, "rdma: eventfd");
  SLUICE_RETURN_IF_ERROR(watch(wake_.get(), kWakeToken));
  manager_.reset(rdma_create_event_channel());
  if (manager_ == nullptr)
    return errno_status(errno, "rdma: event channel (/dev/infiniband/rdma_cm)");
  const int flags = fcntl(manager_->fd, F_GETFL);
  if (flags < 0 || fcntl(manager_->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return errno_status(errno, "rdma: fcntl");
  }
  SLUICE_RETURN_IF_ERROR(watch(manager_->fd, kManagerToken));
  SLUICE_RETURN_IF_ERROR(map_control());
  if (listen.empty()) return register_first_device();
  source_ = address.address;
  return start_listening(listen);
}

absl::Status RdmaEndpoint::map_control() {
  const size_t connections = shared_.options.max_connections;
  const size_t bytes = connections * kControlSlotBytes;
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errno_status(errno, "rdma: memory for control frames");
  control_ = {static_cast<uint8_t*>(memory), Unmap{bytes}};
  shared_.control = {control_.get(), bytes};
  slots_.resize(connections);
  lives_.resize(connections);
  for (size_t i = connections; i > 0; --i) free_slots_.push_back(static_cast<uint32_t>(i - 1));
  return absl::OkStatus();
}

absl::Status RdmaEndpoint::start_listening(std::string_view listen) {
  rdma_cm_id* made = nullptr;
  shared_.counters.system_calls += 4;
  if (rdma_create_id(manager_.get(), &made, nullptr, RDMA_PS_TCP) != 0) {
    return errno_status(errno, fmt::format("listen on {}", listen));
  }
  listener_.reset(made);
  if (rdma_bind_addr(made, source_.get()) != 0) return listen_error(errno, listen);
  if (made->verbs != nullptr) {
    SLUICE_ASSIGN_OR_RETURN(Device * device, device_of(made->verbs));
    if (absl::Status status = device->check_port(made->port_num); !status.ok()) {
      return with_context(status, fmt::format("listen on {}", listen));
    }
  } else {
    SLUICE_RETURN_IF_ERROR(register_first_device());
  }
  if (rdma_listen(made, kBacklog) != 0) return listen_error(errno, listen);
  SocketAddress bound = source_;
  const uint16_t port = rdma_get_src_port(made);
  if (bound.family() == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(bound.storage).sin6_port = port;
  } else {
    reinterpret_cast<sockaddr_in&>(bound.storage).sin_port = port;
  }
  address_ = to_string(bound);
  clear_port(&source_);
  return absl::OkStatus();
}

// Where no address says which device it will be: the wanted one, or the first with an active port.
absl::Status RdmaEndpoint::register_first_device() {
  int count = 0;
  ibv_context** const contexts = rdma_get_devices(&count);
  if (contexts == nullptr) return errno_status(errno, "rdma: list the devices");
  ibv_context* chosen = nullptr;
  const Report report = examine();
  for (int i = 0; i < count && chosen == nullptr; ++i) {
    const std::string_view name = ibv_get_device_name(contexts[i]->device);
    const bool active =
        std::any_of(report.ports.begin(), report.ports.end(),
                    [name](const PortReport& port) { return port.device == name && port.active; });
    if (wanted_device_.empty() ? active : name == wanted_device_) chosen = contexts[i];
  }
  absl::Status status;
  if (chosen == nullptr) {
    status = not_found("rdma: this machine has no device \"{}\" ({})", wanted_device_,
                       describe_ports(report));
  } else {
    status = device_of(chosen).status();
  }
  rdma_free_devices(contexts);
  return status;
}

absl::StatusOr<Device*> RdmaEndpoint::device_of(ibv_context* verbs) {
  const std::string_view name = ibv_get_device_name(verbs->device);
  if (!wanted_device_.empty() && name != wanted_device_) {
    return failed_precondition("the address is on RDMA device {}, and device {} is asked for", name,
                               wanted_device_);
  }
  for (const auto& device : devices_) {
    if (device->name() == name) return device.get();
  }
  SLUICE_ASSIGN_OR_RETURN(auto opened,
                          Device::open(verbs->device, shared_.options, arena_, shared_.control));
  const uint64_t first = devices_.size() * kTokenKinds;
  SLUICE_RETURN_IF_ERROR(watch(opened->completion_fd(), first + kCompletionToken));
  SLUICE_RETURN_IF_ERROR(watch(opened->event_fd(), first + kDeviceToken));
  spdlog::debug("rdma: device {}: {} KiB of the arena registered", opened->name(),
                arena_.bytes() >> 10);
  devices_.push_back(std::move(opened));
  return devices_.back().get();
}

absl::Status RdmaEndpoint::watch(int fd, uint64_t token) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = token;
  ++shared_.counters.system_calls;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return errno_status(errno, "rdma: epoll_ctl");
  }
  return absl::OkStatus();
}

Connection* RdmaEndpoint::find(ConnectionId id) const {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

Connection* RdmaEndpoint::find_slot(const WorkId& work) const {
  Connection* const connection = work.slot < slots_.size() ? slots_[work.slot] : nullptr;
  if (connection == nullptr || connection->life() != work.life || connection->finished()) {
    return nullptr;
  }
  return connection;
}

void RdmaEndpoint::enqueue(Connection* connection) {
  if (connection->queued) return;
  connection->queued = true;
  work_.push_back(connection);
}

// Keeps the counts of connections in passing states true; after every change of one.
void RdmaEndpoint::count(Connection* connection) {
  const bool settling = !connection->finished() && connection->settling();
  const bool half_open = connection->half_open();
  settling_ += settling - static_cast<size_t>(connection->counted_settling);
  half_open_ += half_open - static_cast<size_t>(connection->counted_half_open);
  connection->counted_settling = settling;
  connection->counted_half_open = half_open;
}

// Room is made here, so that none is made while blocks flow: for all that the connections can have
// posted, but no more than what one poll takes from the queues.
void RdmaEndpoint::reserve_completions() {
  const RdmaOptions& options = shared_.options;
  const size_t posted = connections_.size() * (options.send_depth + options.receive_depth + 1);
  shared_.completions.reserve(std::min(posted, (kPollBudget + kPollBatch) * kSignalEvery));
}

Connection* RdmaEndpoint::add(UniqueId cm_id, std::string peer, bool initiator) {
  assert(!free_slots_.empty());
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  const ConnectionId id = next_id_++;
  // The library keeps a word for us, typed as a pointer; it is a number all the time.
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  if (cm_id != nullptr) cm_id->context = reinterpret_cast<void*>(static_cast<uintptr_t>(id));
  auto made = std::make_unique<Connection>(&shared_, id, slot, ++lives_[slot], std::move(cm_id),
                                           std::move(peer), initiator);
  Connection* const connection = made.get();
  slots_[slot] = connection;
  connections_.emplace(id, std::move(made));
  reserve_completions();
  count(connection);
  return connection;
}

void RdmaEndpoint::erase(Connection* connection) {
  count(connection);
  slots_[connection->slot()] = nullptr;
  free_slots_.push_back(connection->slot());
  const Device* const device = connection->device();
  const uint8_t port = connection->port();
  UniqueId cm_id = connection->release_cm_id();
  if (cm_id != nullptr && connection->was_asked()) {
    const bool works = device == nullptr || device->check_port(port).ok();
    if (works) rdma_disconnect(cm_id.get());
    shared_.counters.system_calls += 2;
    const bool linger = !works || !connection->disconnected;
    if (linger && lingering_.size() < shared_.options.max_connections) {
      cm_id->context = nullptr;
      const int64_t until = shared_.now_ns + (works ? kLinger : kPortSettles);
      lingering_.push_back({std::move(cm_id), device, port, false, works, until});
    }
  }
  connections_.erase(connection->id());
}

absl::StatusOr<ConnectionId> RdmaEndpoint::connect(std::string_view text) {
  SLUICE_ASSIGN_OR_RETURN(RdmaAddress address, parse_rdma_address(text, wanted_device_));
  if (!address.device.empty() && !wanted_device_.empty() && address.device != wanted_device_) {
    return invalid_argument("connect to {}: this endpoint is on device {}", text, wanted_device_);
  }
  if (free_slots_.empty()) {
    return resource_exhausted("connect to {}: {} connections are open, which is the limit", text,
                              connections_.size());
  }
  shared_.now_ns = system_clock().monotonic_ns();
  shared_.counters.system_calls += 2;
  rdma_cm_id* made = nullptr;
  absl::Status status;
  if (rdma_create_id(manager_.get(), &made, nullptr, RDMA_PS_TCP) != 0) {
    status = errno_status(errno, "no connection manager id");
  }
  Connection* const connection = add(UniqueId(made), to_string(address.address), true);
  if (made != nullptr) {
    const bool from_listener =
        !address_.empty() && !is_wildcard(source_) && source_.family() == address.address.family();
    const auto timeout = static_cast<int>(shared_.options.connect_timeout_ms);
    if (rdma_resolve_addr(made, from_listener ? source_.get() : nullptr, address.address.get(),
                          timeout) != 0) {
      status = errno == ENODEV ? failed_precondition("no RDMA device leads there ({})",
                                                     describe_ports(examine()))
                               : errno_status(errno, "no route");
    }
  }
  if (!status.ok()) connection->lose(status);
  enqueue(connection);
  return connection->id();
}

void RdmaEndpoint::close(ConnectionId id) {
  Connection* const connection = find(id);
  if (connection == nullptr) return;
  connection->start_close();
  count(connection);
  enqueue(connection);
}

void RdmaEndpoint::abort(ConnectionId id) {
  Connection* const connection = find(id);
  if (connection == nullptr) return;
  connection->abort();
  count(connection);
  enqueue(connection);
}

// The device and the peer are told by the next poll, so that posts made one by one travel together.
size_t RdmaEndpoint::post_recv(ConnectionId id, std::span<BlockBuffer> buffers) {
  Connection* const connection = find(id);
  if (connection == nullptr) return 0;
  const size_t accepted = connection->post_recv(buffers);
  if (accepted > 0) enqueue(connection);
  return accepted;
}

size_t RdmaEndpoint::post_send(ConnectionId id, std::span<SendRequest> requests) {
  Connection* const connection = find(id);
  if (connection == nullptr) return 0;
  const size_t accepted = connection->post_send(requests);
  if (accepted > 0) enqueue(connection);
  return accepted;
}

size_t RdmaEndpoint::credits(ConnectionId id) const {
  const Connection* const connection = find(id);
  return connection == nullptr ? 0 : connection->credits();
}

size_t RdmaEndpoint::poll(std::span<Completion> completions) {
  if (shared_.completions.size() < completions.size()) progress();
  const size_t count = std::min(shared_.completions.size(), completions.size());
  for (size_t i = 0; i < count; ++i) completions[i] = shared_.completions.pop_front();
  return count;
}

size_t RdmaEndpoint::progress() {
  if (settling_ > 0 || ++polls_ % kPollsPerLook == 0) {
    shared_.now_ns = system_clock().monotonic_ns();
    collect_events(0);
    if (shared_.now_ns >= next_scan_ns_) check_deadlines();
    if (unsaid_since_ns_ != 0 && shared_.now_ns >= unsaid_since_ns_ + kTellWithin) announce_all();
  }
  advance_queued(false);
  const size_t taken = poll_queues();
  advance_queued(false);
  return taken;
}

size_t RdmaEndpoint::poll_queues() {
  size_t taken = 0;
  for (size_t i = 0; i < devices_.size(); ++i) {
    for (const auto& queue : devices_[i]->queues()) {
      taken += poll_queue(devices_[i].get(), queue.get());
    }
  }
  return taken;
}

size_t RdmaEndpoint::poll_queue(Device* device, CompletionQueue* queue) {
  std::array<ibv_wc, kPollBatch> completions;
  size_t taken = 0;
  while (taken < kPollBudget) {
    const int count = ibv_poll_cq(queue->queue.get(), kPollBatch, completions.data());
    if (count <= 0) {
      queue->seen_empty();
      break;
    }
    for (int i = 0; i < count; ++i) {
      const ibv_wc& completion = completions[static_cast<size_t>(i)];
      const WorkId work = WorkId::unpack(completion.wr_id);
      Connection* connection = find_slot(work);
      // What was flushed has its cause elsewhere: an event of the device may tell.
      if (connection != nullptr && completion.status == IBV_WC_WR_FLUSH_ERR) {
        take_device_events(device);
        connection = find_slot(work);
      }
      if (connection == nullptr) continue;  // of a connection that is over
      connection->on_completion(work.kind, work.number, completion);
      enqueue(connection);
    }
    taken += static_cast<size_t>(count);
    if (count < kPollBatch) {
      queue->seen_empty();
      break;
    }
  }
  return taken;
}

void RdmaEndpoint::advance_queued(bool idle) {
  if (work_.empty()) return;
  working_.swap(work_);
  for (Connection* connection : working_) {
    connection->queued = false;
    connection->advance(idle);
    count(connection);
    if (connection->finished()) {
      erase(connection);
    } else if (connection->has_news()) {
      if (unsaid_since_ns_ == 0) unsaid_since_ns_ = shared_.now_ns;
    }
  }
  working_.clear();
}

void RdmaEndpoint::announce_all() {
  unsaid_since_ns_ = 0;
  for (const auto& [id, connection] : connections_) {
    if (connection->has_news()) enqueue(connection.get());
  }
  advance_queued(true);
}

TransportCounters RdmaEndpoint::counters() const {
  TransportCounters counters = shared_.counters;
  counters.system_calls += wakes_.load(std::memory_order_relaxed);
  return counters;
}

// True: wake() was called.
bool RdmaEndpoint::collect_events(int64_t timeout_ns) {
  std::array<epoll_event, 16> events;
  ++shared_.counters.system_calls;
  bool woken = false;
  const size_t count = wait_for_events(epoll_.get(), events, timeout_ns);
  for (const epoll_event& event : std::span(events).first(count)) {
    const uint64_t token = event.data.u64;
    Device* const device =
        token / kTokenKinds < devices_.size() ? devices_[token / kTokenKinds].get() : nullptr;
    if (token == kWakeToken) {
      woken = true;
    } else if (token == kManagerToken) {
      take_manager_events();
    } else if (token % kTokenKinds == kCompletionToken) {
      shared_.counters.system_calls += device->take_completion_events();
    } else if (token % kTokenKinds == kDeviceToken) {
      take_device_events(device);
    }
  }
  return woken;
}

void RdmaEndpoint::check_deadlines() {
  next_scan_ns_ = shared_.now_ns + kScanEvery;
  for (const auto& [id, connection] : connections_) {
    if (connection->deadline_ns() == 0 || shared_.now_ns < connection->deadline_ns()) continue;
    connection->check_deadline();
    enqueue(connection.get());
  }
  check_lingering();
}

void RdmaEndpoint::check_lingering() {
  for (Lingering& one : lingering_) {
    if (one.told || shared_.now_ns < one.until_ns) continue;
    const bool works = one.device->check_port(one.port).ok();
    if (works && one.port_seen) {
      rdma_disconnect(one.id.get());
      one.told = true;
    }
    one.port_seen = works;
    one.until_ns = shared_.now_ns + (one.told ? kLinger : kPortSettles);
  }
  std::erase_if(lingering_, [this](const Lingering& one) {
    return one.told && shared_.now_ns >= one.until_ns;
  });
}

int64_t RdmaEndpoint::next_deadline_ns() const {
  int64_t next = 0;
  for (const Lingering& one : lingering_) {
    next = next == 0 ? one.until_ns : std::min(next, one.until_ns);
  }
  for (const auto& [id, connection] : connections_) {
    const int64_t deadline = connection->deadline_ns();
    if (deadline != 0 && (next == 0 || deadline < next)) next = deadline;
  }
  // The scan that acts on a deadline is at most so late.
  return next == 0 ? 0 : std::max(next, next_scan_ns_);
}

}  // namespace sluice::rdma

// Events: what the connection manager and the devices tell.

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "drivers/rdma/endpoint.h"
#include "drivers/rdma/probe.h"

namespace sluice::rdma {
namespace {

// What one look takes.
constexpr int kEventBudget = 64;

// The connection manager's reason of a refusal by a peer's program; others are its own.
constexpr int kRefusedByProgram = 28;
constexpr int kNobodyListens = 8;

std::string peer_text(rdma_cm_id* id) {
  SocketAddress address;
  const sockaddr* const peer = rdma_get_peer_addr(id);
  address.length = peer->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  std::memcpy(&address.storage, peer, address.length);
  return to_string(address);
}

}  // namespace

bool RdmaEndpoint::next_manager_event(ManagerEvent* event) {
  rdma_cm_event* raw = nullptr;
  ++shared_.counters.system_calls;
  if (rdma_get_cm_event(manager_.get(), &raw) != 0) return false;
  event->type = raw->event;
  event->id = raw->id;
  event->status = raw->status;
  event->data_bytes = 0;
  if (raw->param.conn.private_data != nullptr) {
    event->data_bytes = std::min<size_t>(raw->param.conn.private_data_len, event->data.size());
    std::memcpy(event->data.data(), raw->param.conn.private_data, event->data_bytes);
  }
  // At once: an id cannot be destroyed while an event of it is out.
  rdma_ack_cm_event(raw);
  return true;
}

void RdmaEndpoint::take_manager_events() {
  ManagerEvent event;
  for (int i = 0; i < kEventBudget && next_manager_event(&event); ++i) handle(event);
}

void RdmaEndpoint::handle(const ManagerEvent& event) {
  if (event.type == RDMA_CM_EVENT_CONNECT_REQUEST) {
    handle_request(event);
    return;
  }
  const auto key = reinterpret_cast<uintptr_t>(event.id->context);
  Connection* const connection = find(key);
  if (connection == nullptr) {
    if (event.type == RDMA_CM_EVENT_DISCONNECTED || event.type == RDMA_CM_EVENT_TIMEWAIT_EXIT) {
      std::erase_if(lingering_,
                    [&event](const Lingering& one) { return one.id.get() == event.id; });
    }
    if (event.type == RDMA_CM_EVENT_DEVICE_REMOVAL && event.id == listener_.get()) {
      spdlog::error("rdma: the device of {} was removed; this node cannot be reached any more",
                    address_);
    }
    return;
  }
  if (connection->finished()) {  // closed or aborted since the last poll, which lets go of it
    connection->disconnected |=
        event.type == RDMA_CM_EVENT_DISCONNECTED || event.type == RDMA_CM_EVENT_REJECTED;
    return;
  }
  absl::Status status = proceed(connection, event);
  if (!status.ok()) connection->lose(status);
  count(connection);
  enqueue(connection);
}

// The next step of a connection's life; an error ends it.
absl::Status RdmaEndpoint::proceed(Connection* connection, const ManagerEvent& event) {
  rdma_cm_id* const id = event.id;
  const auto timeout = static_cast<int>(shared_.options.connect_timeout_ms);
  switch (event.type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      ++shared_.counters.system_calls;
      if (rdma_resolve_route(id, timeout) == 0) return absl::OkStatus();
      return errno_status(errno, "no route");
    case RDMA_CM_EVENT_ROUTE_RESOLVED: {
      SLUICE_ASSIGN_OR_RETURN(Device * device, device_of(id->verbs));
      SLUICE_RETURN_IF_ERROR(connection->make_pairs(device));
      return connection->request();
    }
    case RDMA_CM_EVENT_CONNECT_RESPONSE: {
      const absl::Status status = connection->take_reply(event.private_data());
      return with_context(status, "peer refused");
    }
    case RDMA_CM_EVENT_ESTABLISHED:
      connection->open();
      return absl::OkStatus();
    case RDMA_CM_EVENT_ADDR_ERROR:
      return unavailable("the address cannot be reached ({}); RDMA ports here: {}",
                         std::strerror(std::abs(event.status)), describe_ports(examine()));
    case RDMA_CM_EVENT_ROUTE_ERROR:
      return unavailable("no route ({})", std::strerror(std::abs(event.status)));
    case RDMA_CM_EVENT_UNREACHABLE:
      return unavailable("no answer ({})", std::strerror(std::abs(event.status)));
    case RDMA_CM_EVENT_CONNECT_ERROR:
      return unavailable("the connection manager failed ({})",
                         std::strerror(std::abs(event.status)));
    case RDMA_CM_EVENT_REJECTED:
      connection->disconnected = true;
      if (event.status == kNobodyListens) return unavailable("refused: nobody listens there");
      if (event.status == kRefusedByProgram) {
        return with_context(describe_refusal(event.private_data(), shared_.max_message_bytes),
                            "refused by the peer");
      }
      return unavailable("refused, reason {} of the connection manager", event.status);
    case RDMA_CM_EVENT_DISCONNECTED:
      connection->disconnected = true;
      // What arrived before is still in the queue.
      while (poll_queues() > 0) {
      }
      return unavailable("the peer disconnected without the closing handshake");
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      return unavailable("the RDMA device was removed");
    default:
      return absl::OkStatus();
  }
}

void RdmaEndpoint::handle_request(const ManagerEvent& event) {
  UniqueId id(event.id);
  const std::string peer = peer_text(id.get());
  if (free_slots_.empty() || half_open_ >= shared_.options.max_half_open) {
    refuse(std::move(id), peer, RefusalCode::kBusy,
           resource_exhausted("{} connections are open, {} of them not yet established",
                              connections_.size(), half_open_));
    return;
  }
  RefusalCode code{};
  const auto hello = check_hello(event.private_data(), shared_.max_message_bytes, &code);
  if (!hello.ok()) {
    refuse(std::move(id), peer, code, hello.status());
    return;
  }
  auto device = device_of(id->verbs);
  if (!device.ok()) {
    refuse(std::move(id), peer, RefusalCode::kBusy, device.status());
    return;
  }
  Connection* const connection = add(std::move(id), peer, false);
  absl::Status status = connection->make_pairs(*device);
  if (status.ok()) status = connection->accept(*hello);
  if (!status.ok() && !connection->finished()) {
    std::array<uint8_t, kRefusalBytes> refusal;
    encode_refusal(refusal.data(), RefusalCode::kBusy, shared_.max_message_bytes);
    if (!connection->was_asked()) {
      rdma_reject(connection->cm_id(), refusal.data(), refusal.size());
    }
    connection->lose(status);
  }
  enqueue(connection);
}

void RdmaEndpoint::refuse(UniqueId id, const std::string& peer, RefusalCode code,
                          const absl::Status& status) {
  std::array<uint8_t, kRefusalBytes> refusal;
  encode_refusal(refusal.data(), code, shared_.max_message_bytes);
  ++shared_.counters.system_calls;
  rdma_reject(id.get(), refusal.data(), refusal.size());
  Completion closed;
  closed.kind = CompletionKind::kClosed;
  closed.connection = next_id_++;
  closed.status = with_context(status, fmt::format("peer {} refused", peer));
  closed.peer = peer;
  shared_.completions.push_back(std::move(closed));
}

void RdmaEndpoint::take_device_events(Device* device) {
  for (int i = 0; i < kEventBudget; ++i) {
    ++shared_.counters.system_calls;
    const auto event = device->next_event();
    if (!event) return;
    handle_device_event(device, *event);
  }
}

void RdmaEndpoint::handle_device_event(Device* device, const ibv_async_event& event) {
  const std::string why =
      fmt::format("RDMA device {}: {}", device->name(), ibv_event_type_str(event.event_type));
  switch (event.event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_PATH_MIG_ERR:
      fail_where([&](const Connection& one) { return one.owns(event.element.qp); }, why);
      break;
    case IBV_EVENT_CQ_ERR:
      fail_where(
          [&](const Connection& one) {
            return one.uses(static_cast<CompletionQueue*>(event.element.cq->cq_context));
          },
          why);
      break;
    case IBV_EVENT_PORT_ERR:
      spdlog::warn("rdma: device {} port {} is down", device->name(), event.element.port_num);
      fail_where(
          [&](const Connection& one) {
            return one.device() == device && one.port() == event.element.port_num;
          },
          fmt::format("RDMA device {}: port {} is down", device->name(), event.element.port_num));
      break;
    case IBV_EVENT_DEVICE_FATAL:
      spdlog::error("rdma: device {} failed", device->name());
      fail_where([&](const Connection& one) { return one.device() == device; }, why);
      break;
    case IBV_EVENT_PORT_ACTIVE:
      spdlog::info("rdma: device {} port {} is active", device->name(), event.element.port_num);
      break;
    default:
      break;
  }
}

void RdmaEndpoint::fail_where(const std::function<bool(const Connection&)>& affected,
                              std::string_view why) {
  for (const auto& [id, connection] : connections_) {
    if (!affected(*connection)) continue;
    connection->lose(unavailable("{}", why));
    enqueue(connection.get());
  }
}

}  // namespace sluice::rdma

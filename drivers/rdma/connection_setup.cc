// Making the queue pairs and connecting them with the connection manager's help. They are not made
// through it, since it knows of one a connection and would put it on a context that all endpoints
// of the process share.

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/status.h"
#include "drivers/rdma/connection.h"

namespace sluice::rdma {
namespace {

// 0.64 ms: what a peer without a posted receive asks to be left alone for.
constexpr uint8_t kMinRnrTimer = 12;

}  // namespace

size_t Connection::entries_needed() const {
  return sends_.size() + receives_.size() + 2 * kControlDepth;
}

absl::StatusOr<UniquePair> Connection::make_pair(uint32_t sends, uint32_t receives,
                                                 uint32_t inline_bytes) {
  ibv_qp_init_attr attributes{};
  attributes.send_cq = queue_->queue.get();
  attributes.recv_cq = queue_->queue.get();
  attributes.qp_type = IBV_QPT_RC;
  attributes.cap.max_send_wr = sends;
  attributes.cap.max_recv_wr = receives;
  attributes.cap.max_send_sge = 1;
  attributes.cap.max_recv_sge = 1;
  attributes.cap.max_inline_data = inline_bytes;
  UniquePair pair(ibv_create_qp(device_->domain(), &attributes));
  if (pair == nullptr) {
    return errno_status(errno, fmt::format("rdma: make a queue pair on {}", device_->name()));
  }
  return absl::StatusOr<UniquePair>(std::move(pair));
}

absl::Status Connection::start_pair(ibv_qp* pair) {
  ibv_qp_attr attributes{};
  int mask = 0;
  attributes.qp_state = IBV_QPS_INIT;
  if (rdma_init_qp_attr(cm_id_.get(), &attributes, &mask) != 0) {
    return errno_status(errno, "rdma: attributes of a new queue pair");
  }
  attributes.qp_access_flags = IBV_ACCESS_LOCAL_WRITE;  // nothing for the peer
  if (const int error = ibv_modify_qp(pair, &attributes, mask); error != 0) {
    return errno_status(error, "rdma: start a queue pair");
  }
  return absl::OkStatus();
}

absl::Status Connection::make_pairs(Device* device) {
  device_ = device;
  SLUICE_RETURN_IF_ERROR(device->check_port(cm_id_->port_num));
  SLUICE_ASSIGN_OR_RETURN(queue_, device->reserve(entries_needed()));
  SLUICE_ASSIGN_OR_RETURN(data_, make_pair(static_cast<uint32_t>(sends_.size()),
                                           static_cast<uint32_t>(receives_.size()), 0));
  auto control = make_pair(kControlDepth, kControlDepth, kFrameBytes);
  inline_frames_ = control.ok();
  if (!control.ok()) control = make_pair(kControlDepth, kControlDepth, 0);
  SLUICE_ASSIGN_OR_RETURN(control_, std::move(control));
  SLUICE_RETURN_IF_ERROR(start_pair(data_.get()));
  SLUICE_RETURN_IF_ERROR(start_pair(control_.get()));
  for (uint32_t i = 0; i < kControlDepth; ++i) {
    if (!post_control_receive(i)) return internal_error("rdma: post control receives: refused");
  }
  advance(false);
  return absl::OkStatus();
}

// Both queue pairs take the connection manager's path; `control_qp` is the other end of the one
// that it does not know of.
absl::Status Connection::connect_pair(ibv_qp* pair, uint32_t control_qp, bool log) {
  ibv_qp_attr attributes{};
  int mask = 0;
  attributes.qp_state = IBV_QPS_RTR;
  if (rdma_init_qp_attr(cm_id_.get(), &attributes, &mask) != 0) {
    return errno_status(errno, "rdma: attributes of the path");
  }
  ibv_port_attr port{};
  if (ibv_query_port(device_->context(), attributes.ah_attr.port_num, &port) == 0) {
    attributes.path_mtu = std::min(attributes.path_mtu, port.active_mtu);
  }
  if (pair == control_.get()) attributes.dest_qp_num = control_qp;
  attributes.min_rnr_timer = kMinRnrTimer;
  if (const int error = ibv_modify_qp(pair, &attributes, mask); error != 0) {
    return errno_status(error, "rdma: make a queue pair ready to receive");
  }
  if (log) {
    ibv_gid_entry gid{};
    const bool known = ibv_query_gid_ex(device_->context(), attributes.ah_attr.port_num,
                                        attributes.ah_attr.grh.sgid_index, &gid, 0) == 0;
    spdlog::debug("rdma: {}: {} port {}, GID index {}{}, path MTU {}", peer_, device_->name(),
                  attributes.ah_attr.port_num, attributes.ah_attr.grh.sgid_index,
                  known && gid.gid_type == IBV_GID_TYPE_ROCE_V2 ? " (RoCE v2)" : "",
                  128 << attributes.path_mtu);
  }
  attributes = {};
  mask = 0;
  attributes.qp_state = IBV_QPS_RTS;
  if (rdma_init_qp_attr(cm_id_.get(), &attributes, &mask) != 0) {
    return errno_status(errno, "rdma: attributes of the connection");
  }
  attributes.timeout = shared_->options.ack_timeout;
  attributes.retry_cnt = shared_->options.retry_count;
  attributes.rnr_retry = shared_->options.rnr_retry;
  if (const int error = ibv_modify_qp(pair, &attributes, mask); error != 0) {
    return errno_status(error, "rdma: make a queue pair ready to send");
  }
  return absl::OkStatus();
}

absl::Status Connection::connect_pairs(const Hello& hello) {
  SLUICE_RETURN_IF_ERROR(connect_pair(data_.get(), hello.control_qp, true));
  SLUICE_RETURN_IF_ERROR(connect_pair(control_.get(), hello.control_qp, false));
  peer_state_ = PeerState(hello.receive_depth);
  return absl::OkStatus();
}

void Connection::encode_own_hello(uint8_t* to) const {
  Hello hello;
  hello.max_message_bytes = shared_->max_message_bytes;
  hello.receive_depth = static_cast<uint32_t>(receives_.size());
  hello.control_qp = control_->qp_num;
  encode_hello(to, hello);
}

rdma_conn_param Connection::connection_parameters(const uint8_t* hello) const {
  rdma_conn_param parameters{};
  parameters.private_data = hello;
  parameters.private_data_len = kHelloBytes;
  parameters.retry_count = shared_->options.retry_count;
  parameters.rnr_retry_count = shared_->options.rnr_retry;
  parameters.flow_control = 1;
  parameters.qp_num = data_->qp_num;
  return parameters;
}

absl::Status Connection::request() {
  std::array<uint8_t, kHelloBytes> hello;
  encode_own_hello(hello.data());
  rdma_conn_param parameters = connection_parameters(hello.data());
  ++shared_->counters.system_calls;
  asked_ = true;
  if (rdma_connect(cm_id_.get(), &parameters) != 0) return errno_status(errno, "rdma_connect");
  shared_->counters.sent_bytes += kHelloBytes;
  return absl::OkStatus();
}

absl::Status Connection::take_reply(std::span<const uint8_t> data) {
  RefusalCode code{};
  auto hello = check_hello(data, shared_->max_message_bytes, &code);
  absl::Status status = hello.status();
  if (status.ok()) {
    code = RefusalCode::kBusy;
    status = connect_pairs(*hello);
  }
  if (!status.ok()) {
    std::array<uint8_t, kRefusalBytes> refusal;
    encode_refusal(refusal.data(), code, shared_->max_message_bytes);
    rdma_reject(cm_id_.get(), refusal.data(), refusal.size());
    return status;
  }
  shared_->counters.system_calls += 7;
  shared_->counters.received_bytes += kHelloBytes;
  if (rdma_establish(cm_id_.get()) != 0) return errno_status(errno, "rdma_establish");
  open();
  return absl::OkStatus();
}

absl::Status Connection::accept(const Hello& hello) {
  SLUICE_RETURN_IF_ERROR(connect_pairs(hello));
  std::array<uint8_t, kHelloBytes> own;
  encode_own_hello(own.data());
  rdma_conn_param parameters = connection_parameters(own.data());
  shared_->counters.system_calls += 7;
  asked_ = true;
  if (rdma_accept(cm_id_.get(), &parameters) != 0) return errno_status(errno, "rdma_accept");
  shared_->counters.sent_bytes += kHelloBytes;
  shared_->counters.received_bytes += kHelloBytes;
  return absl::OkStatus();
}

}  // namespace sluice::rdma

#include "tests/drivers/rdma_raw_peer.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/socket_address.h"

namespace sluice {
namespace {

constexpr size_t kReceiveSlots = 64;
constexpr size_t kSlotBytes = 64;
constexpr size_t kSendBytes = 256 << 10;

rdma::UniqueEvents make_events() {
  rdma::UniqueEvents events(rdma_create_event_channel());
  EXPECT_NE(events, nullptr);
  EXPECT_EQ(fcntl(events->fd, F_SETFL, fcntl(events->fd, F_GETFL) | O_NONBLOCK), 0);
  return events;
}

}  // namespace

RawRdmaPeer::RawRdmaPeer(const std::string& address, std::vector<uint8_t> hello)
    : hello_(std::move(hello)), events_(make_events()) {
  rdma_cm_id* made = nullptr;
  EXPECT_EQ(rdma_create_id(events_.get(), &made, nullptr, RDMA_PS_TCP), 0);
  id_.reset(made);
  auto to = parse_address(address);
  EXPECT_TRUE(to.ok());
  EXPECT_EQ(rdma_resolve_addr(made, nullptr, to->get(), 5000), 0);
}

RawRdmaPeer::RawRdmaPeer(const std::string& host, std::vector<uint8_t> hello, Answer answer)
    : hello_(std::move(hello)), answer_(answer), events_(make_events()) {
  rdma_cm_id* made = nullptr;
  EXPECT_EQ(rdma_create_id(events_.get(), &made, nullptr, RDMA_PS_TCP), 0);
  listener_.reset(made);
  auto at = parse_address(host + ":0");
  EXPECT_TRUE(at.ok());
  EXPECT_EQ(rdma_bind_addr(made, at->get()), 0);
  EXPECT_EQ(rdma_listen(made, 4), 0);
}

RawRdmaPeer::~RawRdmaPeer() {
  data_.reset();
  control_.reset();
  if (connected_) rdma_disconnect(id_.get());
}

std::string RawRdmaPeer::listen_address() const {
  SocketAddress address;
  std::memcpy(&address.storage, rdma_get_local_addr(listener_.get()), sizeof(sockaddr_in));
  return to_string(address);
}

void RawRdmaPeer::make_pairs() {
  domain_.reset(ibv_alloc_pd(id_->verbs));
  memory_.resize(kReceiveSlots * kSlotBytes + kSendBytes);
  constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE;
  region_.reset(ibv_reg_mr(domain_.get(), memory_.data(), memory_.size(), kAccess));
  queue_.reset(ibv_create_cq(id_->verbs, 256, nullptr, nullptr, 0));
  ASSERT_NE(queue_, nullptr);
  for (auto* pair : {&data_, &control_}) {
    ibv_qp_init_attr attributes{};
    attributes.send_cq = attributes.recv_cq = queue_.get();
    attributes.qp_type = IBV_QPT_RC;
    attributes.cap = {64, kReceiveSlots, 1, 1, 0};
    attributes.sq_sig_all = 1;
    pair->reset(ibv_create_qp(domain_.get(), &attributes));
    ASSERT_NE(*pair, nullptr);
    ibv_qp_attr state{};
    int mask = 0;
    state.qp_state = IBV_QPS_INIT;
    ASSERT_EQ(rdma_init_qp_attr(id_.get(), &state, &mask), 0);
    ASSERT_EQ(ibv_modify_qp(pair->get(), &state, mask), 0);
  }
  for (uint64_t i = 0; i < kReceiveSlots; ++i) post_control_receive(i);
}

void RawRdmaPeer::post_control_receive(uint64_t number) {
  ibv_sge piece = {
      reinterpret_cast<uintptr_t>(memory_.data() + number % kReceiveSlots * kSlotBytes), kSlotBytes,
      region_->lkey};
  ibv_recv_wr request = {number, nullptr, &piece, 1};
  ibv_recv_wr* refused = nullptr;
  EXPECT_EQ(ibv_post_recv(control_.get(), &request, &refused), 0);
}

void RawRdmaPeer::connect_pair(ibv_qp* pair) {
  for (ibv_qp_state step : {IBV_QPS_RTR, IBV_QPS_RTS}) {
    ibv_qp_attr state{};
    int mask = 0;
    state.qp_state = step;
    ASSERT_EQ(rdma_init_qp_attr(id_.get(), &state, &mask), 0);
    if (step == IBV_QPS_RTR && pair == control_.get()) state.dest_qp_num = peer_control_;
    if (step == IBV_QPS_RTS) state.rnr_retry = 1;
    ASSERT_EQ(ibv_modify_qp(pair, &state, mask), 0);
  }
}

void RawRdmaPeer::send(ibv_qp* pair, std::span<const uint8_t> bytes, bool with_number) {
  ASSERT_LE(bytes.size(), kSendBytes);
  uint8_t* const place = memory_.data() + kReceiveSlots * kSlotBytes;
  std::copy(bytes.begin(), bytes.end(), place);
  ibv_sge piece = {reinterpret_cast<uintptr_t>(place), static_cast<uint32_t>(bytes.size()),
                   region_->lkey};
  ibv_send_wr request{};
  request.wr_id = ~uint64_t{0};
  request.sg_list = &piece;
  request.num_sge = bytes.empty() ? 0 : 1;
  request.opcode = with_number ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND;
  ibv_send_wr* refused = nullptr;
  ASSERT_EQ(ibv_post_send(pair, &request, &refused), 0);
}

void RawRdmaPeer::pump() {
  rdma_cm_event* event = nullptr;
  while (rdma_get_cm_event(events_.get(), &event) == 0) handle(event);
  if (queue_ != nullptr) poll_completions();
}

void RawRdmaPeer::handle(rdma_cm_event* event) {
  const rdma_cm_event_type type = event->event;
  if (event->param.conn.private_data != nullptr) {
    const auto* data = static_cast<const uint8_t*>(event->param.conn.private_data);
    heard_.assign(data, data + event->param.conn.private_data_len);
    if (heard_.size() >= rdma::kHelloBytes) peer_control_ = load_le<uint32_t>(heard_.data() + 32);
  }
  if (type == RDMA_CM_EVENT_CONNECT_REQUEST) id_.reset(event->id);
  const int status = event->status;
  rdma_ack_cm_event(event);
  rdma_conn_param parameters{};
  switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      EXPECT_EQ(rdma_resolve_route(id_.get(), 5000), 0);
      break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
    case RDMA_CM_EVENT_CONNECT_REQUEST: {
      make_pairs();
      if (hello_.size() >= rdma::kHelloBytes) {
        store_le<uint32_t>(hello_.data() + 32, control_->qp_num);
      }
      parameters.private_data = hello_.data();
      parameters.private_data_len = static_cast<uint8_t>(hello_.size());
      parameters.retry_count = 3;
      parameters.rnr_retry_count = 1;
      parameters.qp_num = data_->qp_num;
      if (type == RDMA_CM_EVENT_ROUTE_RESOLVED) {
        EXPECT_EQ(rdma_connect(id_.get(), &parameters), 0);
      } else if (answer_ == Answer::kAccept) {
        EXPECT_EQ(rdma_accept(id_.get(), &parameters), 0);
      } else {
        EXPECT_EQ(rdma_reject(id_.get(), hello_.data(), static_cast<uint8_t>(hello_.size())), 0);
      }
      break;
    }
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
      connect_pair(data_.get());
      connect_pair(control_.get());
      EXPECT_EQ(rdma_establish(id_.get()), 0);
      connected_ = true;
      break;
    case RDMA_CM_EVENT_DISCONNECTED:
      disconnected_ = true;
      break;
    case RDMA_CM_EVENT_REJECTED:
      rejected_ = true;
      break;
    case RDMA_CM_EVENT_ESTABLISHED:
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
      break;
    default:
      ADD_FAILURE() << rdma_event_str(type) << ", status " << status;
  }
}

void RawRdmaPeer::poll_completions() {
  ibv_wc completion;
  while (ibv_poll_cq(queue_.get(), 1, &completion) > 0) {
    if (completion.status != IBV_WC_SUCCESS) {
      if (failure_ == IBV_WC_SUCCESS) failure_ = completion.status;
      continue;
    }
    if (completion.wr_id == ~uint64_t{0}) continue;
    frames_.push_back(
        rdma::decode_frame(memory_.data() + completion.wr_id % kReceiveSlots * kSlotBytes));
    post_control_receive(completion.wr_id + kReceiveSlots);
  }
}

}  // namespace sluice

// The data path: posted blocks become work requests, and completions give them back.

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <utility>

#include "base/status.h"
#include "drivers/rdma/connection.h"

namespace sluice::rdma {
namespace {

// Work requests that are handed to the device in one call.
constexpr size_t kBatch = 32;

}  // namespace

size_t Connection::post_recv(std::span<BlockBuffer> buffers) {
  if (finished() || closing()) return 0;
  const size_t room = receives_.size() - (posted_receives_ - received_);
  const size_t accepted = std::min(room, buffers.size());
  for (size_t i = 0; i < accepted; ++i) {
    assert(buffers[i]);
    receives_[posted_receives_++ % receives_.size()] = std::move(buffers[i]);
  }
  widest_ = std::max(widest_, posted_receives_ - received_);
  return accepted;
}

size_t Connection::credits() const {
  if (state_ != State::kOpen || closing()) return 0;
  assert(peer_state_.granted() >= posted_);
  return std::min<uint64_t>(peer_state_.granted() - posted_, sends_.size() - (posted_ - returned_));
}

size_t Connection::post_send(std::span<SendRequest> requests) {
  const size_t accepted = std::min(credits(), requests.size());
  for (size_t i = 0; i < accepted; ++i) {
    SendRequest& request = requests[i];
    assert(request.buffer && request.bytes >= 1 && request.bytes <= shared_->max_message_bytes);
    PendingSend& send = sends_[posted_++ % sends_.size()];
    send.bytes = request.bytes;
    send.buffer = std::move(request.buffer);
  }
  return accepted;
}

void Connection::flush_receives() {
  std::array<ibv_recv_wr, kBatch> requests;
  std::array<ibv_sge, kBatch> pieces;
  const auto length = static_cast<uint32_t>(shared_->max_message_bytes);
  while (given_ != posted_receives_) {
    const size_t count = std::min<uint64_t>(kBatch, posted_receives_ - given_);
    for (size_t i = 0; i < count; ++i) {
      const uint64_t number = given_ + i;
      const BlockBuffer& buffer = receives_[number % receives_.size()];
      pieces[i] = {reinterpret_cast<uintptr_t>(buffer.data()), length, device_->arena_key()};
      requests[i] = {work_id(WorkKind::kReceive, number),
                     i + 1 < count ? &requests[i + 1] : nullptr, &pieces[i], 1};
    }
    ibv_recv_wr* refused = nullptr;
    const int error = ibv_post_recv(data_.get(), requests.data(), &refused);
    if (error != 0) {
      fail(errno_status(error, fmt::format("rdma: post receive blocks for {}", peer_)));
      return;
    }
    given_ += count;
  }
}

void Connection::flush_sends() {
  std::array<ibv_send_wr, kBatch> requests;
  std::array<ibv_sge, kBatch> pieces;
  while (handed_ != posted_) {
    const size_t count = std::min<uint64_t>(kBatch, posted_ - handed_);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint64_t number = handed_ + i;
      const PendingSend& send = sends_[number % sends_.size()];
      const bool signalled = number % kSignalEvery == kSignalEvery - 1 || number + 1 == posted_;
      pieces[i] = {reinterpret_cast<uintptr_t>(send.buffer.data()), send.bytes,
                   device_->arena_key()};
      ibv_send_wr& request = requests[i];
      request = {};
      request.wr_id = work_id(WorkKind::kSend, number);
      request.next = i + 1 < count ? &requests[i + 1] : nullptr;
      request.sg_list = &pieces[i];
      request.num_sge = 1;
      request.opcode = IBV_WR_SEND;
      request.send_flags = signalled ? IBV_SEND_SIGNALED : 0;
      bytes += send.bytes;
    }
    ibv_send_wr* refused = nullptr;
    const int error = ibv_post_send(data_.get(), requests.data(), &refused);
    if (error != 0) {
      fail(errno_status(error, fmt::format("rdma: send to {}", peer_)));
      return;
    }
    handed_ += count;
    shared_->counters.sent_bytes += bytes;
    shared_->counters.sent_messages += count;
  }
}

void Connection::on_completion(WorkKind kind, uint32_t number, const ibv_wc& completion) {
  if (completion.status != IBV_WC_SUCCESS) {
    take_error(kind, completion);
    return;
  }
  made_progress();
  switch (kind) {
    case WorkKind::kSend:
      take_sent(number);
      break;
    case WorkKind::kReceive:
      take_block(number, completion);
      break;
    case WorkKind::kControlSend:
      control_done_ = number + 1;
      break;
    case WorkKind::kControlReceive:
      take_frame(number, completion);
      break;
  }
}

// A queue pair completes in order, so `number` stands for all before it too.
void Connection::take_sent(uint32_t number) {
  const uint32_t count = number + 1 - static_cast<uint32_t>(returned_);
  assert(count <= handed_ - returned_);
  for (uint32_t i = 0; i < count; ++i, ++returned_) {
    PendingSend& send = sends_[returned_ % sends_.size()];
    Completion sent;
    sent.kind = CompletionKind::kSent;
    sent.connection = id_;
    sent.buffer = std::move(send.buffer);
    sent.bytes = send.bytes;
    shared_->completions.push_back(std::move(sent));
  }
}

void Connection::take_block(uint32_t number, const ibv_wc& completion) {
  assert(number == static_cast<uint32_t>(received_));
  static_cast<void>(number);
  absl::Status status;
  if (received_ >= announced_granted_) {
    status = aborted("message {} with {} credits granted", received_ + 1, announced_granted_);
  } else if (peer_state_.closed() && received_ >= peer_state_.sent()) {
    status = aborted("message {} after its close frame, which says {}", received_ + 1,
                     peer_state_.sent());
  } else if (completion.opcode != IBV_WC_RECV || (completion.wc_flags & IBV_WC_WITH_IMM) != 0) {
    status = aborted("a message that is not a plain send");
  } else if (completion.byte_len == 0) {
    status = aborted("a message of 0 bytes; 1 to {} are allowed", shared_->max_message_bytes);
  }
  if (!status.ok()) {
    fail(broken_protocol(status));
    return;
  }
  open();  // the peer's first message may come before the connection manager's last word
  Completion received;
  received.kind = CompletionKind::kReceived;
  received.connection = id_;
  received.buffer = std::move(receives_[received_ % receives_.size()]);
  received.bytes = completion.byte_len;
  ++received_;
  if ((announced_granted_ - received_) * 4 < widest_) shared_->ran_low = true;
  shared_->counters.received_bytes += completion.byte_len;
  ++shared_->counters.received_messages;
  shared_->completions.push_back(std::move(received));
}

void Connection::take_error(WorkKind kind, const ibv_wc& completion) {
  const bool receiving = kind == WorkKind::kReceive || kind == WorkKind::kControlReceive;
  // Cards say the first, Soft-RoCE the second, when a message is longer than the posted buffer.
  if (receiving &&
      (completion.status == IBV_WC_LOC_LEN_ERR || completion.status == IBV_WC_LOC_QP_OP_ERR)) {
    fail(broken_protocol(aborted(
        "a message longer than the {} bytes that were posted for it ({})",
        kind == WorkKind::kReceive ? shared_->max_message_bytes : uint64_t{kControlReceiveBytes},
        ibv_wc_status_str(completion.status))));
    return;
  }
  if (completion.status == IBV_WC_RETRY_EXC_ERR) {
    lose(unavailable("the peer's device does not answer"));
  } else if (completion.status == IBV_WC_RNR_RETRY_EXC_ERR && !all_said_and_done()) {
    fail(broken_protocol(aborted("it had no receive block for a message that it granted")));
  } else if (const absl::Status port = device_->check_port(cm_id_->port_num); !port.ok()) {
    lose(port);
  } else {
    lose(unavailable("{} ({})", receiving ? "receiving failed" : "sending failed",
                     ibv_wc_status_str(completion.status)));
  }
}

}  // namespace sluice::rdma

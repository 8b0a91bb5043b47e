// Control frames: credits and the orderly close. A frame is sent only while the peer is known to
// have a receive ready for it; the last such receive is kept for acknowledging the peer's frames,
// so that both sides cannot wait for each other.

#include <cstring>

#include "base/status.h"
#include "drivers/rdma/connection.h"

namespace sluice::rdma {

bool Connection::post_control_receive(uint32_t number) {
  uint8_t* const place = shared_->control.data() + slot_ * kControlSlotBytes +
                         number % kControlDepth * kControlReceiveBytes;
  ibv_sge piece = {reinterpret_cast<uintptr_t>(place), kControlReceiveBytes,
                   device_->control_key()};
  ibv_recv_wr request = {work_id(WorkKind::kControlReceive, number), nullptr, &piece, 1};
  ibv_recv_wr* refused = nullptr;
  return ibv_post_recv(control_.get(), &request, &refused) == 0;
}

void Connection::take_frame(uint32_t number, const ibv_wc& completion) {
  open();  // the peer's first message may come before the connection manager's last word
  const uint8_t* const place = shared_->control.data() + slot_ * kControlSlotBytes +
                               number % kControlDepth * kControlReceiveBytes;
  const Frame frame = decode_frame(place);
  shared_->counters.received_bytes += completion.byte_len;
  ++control_received_;
  const absl::Status status =
      peer_state_.take(frame, completion.byte_len, posted_, control_sent_, received_);
  if (!status.ok()) {
    fail(broken_protocol(status));
    return;
  }
  made_progress();
  if (!post_control_receive(number + kControlDepth)) {
    fail(internal_error("rdma: post a control receive for {}: refused", peer_));
  }
}

// While the peer has more credits than there are to tell of, telling can wait: one frame for many
// blocks.
bool Connection::update_due(bool idle) const {
  if (closing()) {
    return close_sent_ && peer_state_.closed() && received_ == peer_state_.sent() &&
           announced_received_ != received_;
  }
  if (ping_due_) return true;
  const uint64_t fresh = fresh_credits();
  return fresh > 0 && (idle || fresh >= announced_granted_ - received_);
}

void Connection::write_control(bool idle) {
  if (state_ != State::kOpen) return;
  const bool close = closing() && !close_sent_;
  const bool acknowledge = control_received_ - control_acknowledged_ >= kControlDepth / 2;
  if (!close && !acknowledge && !update_due(idle)) return;
  const uint32_t free = kControlDepth - (control_sent_ - peer_state_.control_received());
  if (free == 0 || (free == 1 && !acknowledge)) return;
  if (control_sent_ - control_done_ >= kControlDepth) return;
  send_frame(close);
}

void Connection::send_frame(bool close) {
  uint8_t* const place = shared_->control.data() + slot_ * kControlSlotBytes +
                         kControlDepth * kControlReceiveBytes +
                         control_sent_ % kControlDepth * kFrameBytes;
  Frame frame;
  frame.type = static_cast<uint32_t>(close ? FrameType::kClose : FrameType::kUpdate);
  frame.control_received = control_received_;
  frame.received = received_;
  frame.granted = given_;
  frame.sent = close ? posted_ : 0;
  encode_frame(place, frame);
  ibv_sge piece = {reinterpret_cast<uintptr_t>(place), kFrameBytes, device_->control_key()};
  ibv_send_wr request{};
  request.wr_id = work_id(WorkKind::kControlSend, control_sent_);
  request.sg_list = &piece;
  request.num_sge = 1;
  request.opcode = IBV_WR_SEND;
  request.send_flags = IBV_SEND_SIGNALED | (inline_frames_ ? IBV_SEND_INLINE : 0);
  ibv_send_wr* refused = nullptr;
  const int error = ibv_post_send(control_.get(), &request, &refused);
  if (error != 0) {
    fail(errno_status(error, fmt::format("rdma: send a control frame to {}", peer_)));
    return;
  }
  ++control_sent_;
  shared_->counters.sent_bytes += kFrameBytes;
  control_acknowledged_ = control_received_;
  announced_received_ = received_;
  announced_granted_ = given_;
  if (close) close_sent_ = true;
}

}  // namespace sluice::rdma

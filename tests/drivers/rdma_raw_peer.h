// A peer on real verbs that says what it likes: any private data, any control frame, any block.
#ifndef SLUICE_TESTS_DRIVERS_RDMA_RAW_PEER_H_
#define SLUICE_TESTS_DRIVERS_RDMA_RAW_PEER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drivers/rdma/verbs.h"
#include "drivers/rdma/wire.h"

namespace sluice {

// Confined to one thread. Steps are polled, so that the node under test can run on the same one.
class RawRdmaPeer {
 public:
  // Connects to `address` with `hello` as private data (may be empty).
  RawRdmaPeer(const std::string& address, std::vector<uint8_t> hello);
  // Listens; a request is answered with `hello` as private data, or rejected with it.
  enum class Answer { kAccept, kReject };
  RawRdmaPeer(const std::string& host, std::vector<uint8_t> hello, Answer answer);
  ~RawRdmaPeer();

  // Takes the next step if there is one to take.
  void pump();
  bool connected() const { return connected_; }
  bool rejected() const { return rejected_; }
  bool disconnected() const { return disconnected_; }
  const std::vector<uint8_t>& heard() const { return heard_; }  // private data of the answer
  std::string listen_address() const;

  void send_control(std::span<const uint8_t> bytes) { send(control_.get(), bytes, false); }
  void send_block(std::span<const uint8_t> bytes) { send(data_.get(), bytes, false); }
  void send_block_with_number(std::span<const uint8_t> bytes) { send(data_.get(), bytes, true); }
  // The last completion's status that was not success.
  ibv_wc_status failure() const { return failure_; }
  // Frames that came in.
  const std::vector<rdma::Frame>& frames() const { return frames_; }

 private:
  void make_pairs();
  void connect_pair(ibv_qp* pair);
  void send(ibv_qp* pair, std::span<const uint8_t> bytes, bool with_number);
  void post_control_receive(uint64_t number);
  void handle(rdma_cm_event* event);
  void poll_completions();

  std::vector<uint8_t> hello_;
  Answer answer_ = Answer::kAccept;
  rdma::UniqueEvents events_;
  rdma::UniqueId listener_;
  rdma::UniqueId id_;
  rdma::UniqueDomain domain_;
  std::vector<uint8_t> memory_;
  rdma::UniqueRegion region_;
  rdma::UniqueQueue queue_;
  rdma::UniquePair data_;
  rdma::UniquePair control_;
  uint32_t peer_control_ = 0;
  uint64_t receives_ = 0;
  bool connected_ = false;
  bool rejected_ = false;
  bool disconnected_ = false;
  ibv_wc_status failure_ = IBV_WC_SUCCESS;
  std::vector<uint8_t> heard_;
  std::vector<rdma::Frame> frames_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_DRIVERS_RDMA_RAW_PEER_H_

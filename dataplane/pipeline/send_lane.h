// One stream's worth of a source's sending: connecting again and again, and learning what the
// target has. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_SEND_LANE_H_
#define SLUICE_DATAPLANE_PIPELINE_SEND_LANE_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "dataplane/pipeline/send_copies.h"
#include "dataplane/pipeline/slot_packer.h"

namespace sluice {

// What both lanes of one send_copies() share: options, counts, and whether to go on.
class SendJob {
 public:
  SendJob(Exchange& job_exchange, CutReader& job_cut, const SendCopiesOptions& job_options)
      : exchange(job_exchange), cut(job_cut), options(job_options) {}

  bool stopped() const;
  // The first error counts.
  void fail(const absl::Status& status);
  absl::Status status() const;

  // Callbacks, one at a time.
  void slot_sent(uint32_t slot);
  void slot_durable(uint32_t slot, bool skipped);
  void block_sent(uint32_t message_bytes, const SlotPacker::Packed& packed);
  void add_repeat();
  void add_reconnect();
  SendCopiesResult result() const;

  Exchange& exchange;
  CutReader& cut;
  const SendCopiesOptions& options;

 private:
  mutable std::mutex mutex_;
  absl::Status failure_;
  bool failed_ = false;
  SendCopiesResult result_;
};

// Sends the slots of one list over one stream at a time. run() is the lane's thread; a reader
// thread takes the target's messages while a stream is open.
class SendLane {
 public:
  SendLane(SendJob& job, StreamKind kind, std::vector<uint32_t> slots, size_t buffers,
           size_t workers);
  ~SendLane();
  // Until every slot is durable or the job has failed.
  void run();

 private:
  struct Slot {
    enum class Phase { kToDo, kSending, kSent, kDurable };
    Phase phase = Phase::kToDo;
    bool restart = false;  // the target dropped what it had on this stream
    bool refused = false;  // while it is being sent
    bool sent_before = false;
    int refusals = 0;
  };
  enum class Outcome { kSent, kRefused, kBroken };

  bool done() const;
  absl::StatusOr<std::shared_ptr<Stream>> connect();
  // Takes the list a stream begins with.
  absl::Status learn_durable(Stream& stream);
  void use(const std::shared_ptr<Stream>& stream);
  void read(Stream& stream);
  absl::Status on_message(const Message& message);
  absl::Status on_durable(const Message& message, bool at_start);
  absl::Status on_refused(const Message& message);
  void send_all(Stream& stream);
  bool next_slot(uint32_t* slot);
  absl::StatusOr<SlotPacker::Packed> pack(SlotPacker& packer, BlockBuffer& buffer);
  Outcome send_slot(Stream& stream, SlotPacker& packer, uint32_t slot);
  absl::Status send_message(Stream& stream, BlockBuffer buffer, uint32_t bytes);
  void reset_unfinished();
  bool wait_backoff(int64_t ms);

  SendJob& job_;
  const StreamKind kind_;
  const size_t workers_;
  std::vector<uint32_t> order_;  // ascending
  const size_t buffers_;
  std::unique_ptr<BlockPool> pool_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<uint32_t, Slot> slots_;
  std::deque<uint32_t> to_do_;
  size_t durable_ = 0;
  bool broken_ = false;
  int64_t progress_ns_ = 0;  // a slot became durable or a block was sent
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SEND_LANE_H_

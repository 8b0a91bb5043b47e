// One stream's worth of a source's sending: connecting again and again, and learning what the
// target has. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_SEND_LANE_H_
#define SLUICE_DATAPLANE_PIPELINE_SEND_LANE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/backoff.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "dataplane/pipeline/send_copies.h"
#include "dataplane/pipeline/slot_packer.h"

namespace sluice {

// What one CopySender is to do and has done, and whether it is to go on. Thread-safe.
class SendJob {
 public:
  // `changed` is called when the job stops.
  SendJob(Exchange& job_exchange, SlotSource& job_source, SendCopiesOptions job_options,
          std::function<void()> changed)
      : exchange(job_exchange),
        source(job_source),
        options(std::move(job_options)),
        changed_(std::move(changed)) {}

  bool stopped() const;
  // The first error counts.
  void fail(const absl::Status& status);
  absl::Status status() const;

  // Callbacks, one at a time.
  void slot_sent(uint32_t slot);
  void slot_durable(uint32_t slot, bool skipped);
  void block_sent(uint32_t slot, uint32_t message_bytes, const SlotPacker::Packed& packed);
  void add_repeat();
  void add_reconnect();
  SendCopiesResult result() const;

  Exchange& exchange;
  SlotSource& source;
  const SendCopiesOptions options;

 private:
  const std::function<void()> changed_;
  mutable Mutex mutex_;
  absl::Status failure_ SLUICE_GUARDED_BY(mutex_);
  bool failed_ SLUICE_GUARDED_BY(mutex_) = false;
  SendCopiesResult result_ SLUICE_GUARDED_BY(mutex_);
};

// Sends the job's slots over one stream at a time. Runs on the exchange's executor: one
// activity connects and takes the target's messages, others pack, each a slot at a time, and send.
// These stand still while there is no buffer, or the stream takes nothing.
class SendLane {
 public:
  // `on_end` is called once, when every slot is durable or the job has stopped.
  SendLane(SendJob& job, std::function<void()> on_end);
  // Stops, and waits until its buffers are home.
  ~SendLane();
  // Gets its buffers; it begins with the first wake().
  absl::Status prepare();
  // The job has begun, or stopped.
  void wake() { control_.wake(); }

 private:
  enum class Phase { kConnect, kConnecting, kLearning, kSending, kBackoff, kOver };
  struct Slot {
    enum class Phase { kToDo, kSending, kSent, kDurable };
    Phase phase = Phase::kToDo;
    bool restart = false;  // the target dropped what it had on this stream
    bool refused = false;  // while it is being sent
    bool sent_before = false;
    int refusals = 0;
  };
  // The stream that slots are sent on, and its number among the lane's.
  struct Current {
    std::shared_ptr<Stream> stream;
    uint64_t number = 0;
  };
  class Packer;
  // A connect that may end after the lane does.
  struct Connecting {
    Mutex mutex;
    std::optional<absl::StatusOr<std::shared_ptr<Stream>>> result SLUICE_GUARDED_BY(mutex);
  };

  // Of the control activity.
  void run_control();
  void connect();
  // What the control activity waits for has not happened yet where it returns false.
  bool take_connected();
  bool take_messages();
  bool wait_for_list();
  absl::Status on_message(const Message& message);
  absl::Status on_durable(const Message& message);
  absl::Status on_refused(const Message& message);
  void begin_sending();
  void end_stream(const absl::Status& why);
  void finish();
  bool done() const;
  void wake_packers();

  // Of packers, any thread. An empty stream: nothing can be sent now.
  Current current() const;
  bool next_slot(uint64_t stream, uint32_t* slot, bool* restart);
  // Whether the slot is to go on after one of its blocks was sent.
  bool block_sent(uint64_t stream, uint32_t slot);
  void slot_over(uint64_t stream, uint32_t slot, bool refused);
  void broken(uint64_t stream);

  SendJob& job_;
  std::vector<uint32_t> order_;  // ascending
  const std::function<void()> on_end_;
  std::unique_ptr<BlockPool> pool_;

  // Of the control activity alone.
  Phase phase_ = Phase::kConnect;
  std::shared_ptr<Connecting> connecting_;
  std::shared_ptr<Stream> stream_;
  Backoff backoff_;
  int64_t retry_ns_ = 0;
  int64_t learn_until_ns_ = 0;
  int fruitless_ = 0;  // streams in a row on which no slot became durable
  bool connected_before_ = false;
  size_t durable_before_ = 0;  // when the stream was opened

  mutable Mutex mutex_;
  Current current_ SLUICE_GUARDED_BY(mutex_);
  std::unordered_map<uint32_t, Slot> slots_ SLUICE_GUARDED_BY(mutex_);
  std::deque<uint32_t> to_do_ SLUICE_GUARDED_BY(mutex_);
  size_t durable_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t progress_ns_ SLUICE_GUARDED_BY(mutex_) = 0;  // a slot became durable or a block was sent

  // Last, so that they stop before anything of the above goes.
  Activity control_;
  std::vector<std::unique_ptr<Packer>> packers_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SEND_LANE_H_

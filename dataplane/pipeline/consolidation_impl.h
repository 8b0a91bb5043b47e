// The consolidation's insides. Internal to dataplane/pipeline.
//
// Agreed streams are worked on by the exchange's executor, an activity for each. Merges have
// threads of their own, and so has what syncs the archive and acknowledges. A lane is one source's
// stream of agreed slots; when the source connects again, the newer stream takes the lane over.
#ifndef SLUICE_DATAPLANE_PIPELINE_CONSOLIDATION_IMPL_H_
#define SLUICE_DATAPLANE_PIPELINE_CONSOLIDATION_IMPL_H_

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "dataplane/pipeline/consolidation.h"
#include "dataplane/pipeline/merge_target.h"
#include "dataplane/pipeline/slot_digester.h"

namespace sluice::consolidation {

// An agreed slot that is arriving.
struct Arriving {
  uint64_t next_sequence = 0;
  bool refused = false;  // nothing counts until it starts over
  std::unique_ptr<SlotDigester> digester;
};

struct Refusal {
  uint32_t slot = 0;
  absl::Status why;
};

struct Lane {
  std::string node;
  std::vector<uint32_t> slots;  // that this source may send, ascending
  // With the consolidation's mutex held:
  std::shared_ptr<Stream> newest;  // the last one accepted: acknowledgements go there
  uint64_t streams = 0;            // accepted so far
  bool list_due = false;           // its first list has not been sent
  // Of its activity alone:
  uint64_t seen = 0;  // the newest of `streams` that is or was worked on
  std::map<uint32_t, Arriving> arriving;
  std::deque<Refusal> refusals;  // to be sent
  std::unique_ptr<Activity> activity;
};

class ConsolidationImpl final : public Consolidation, public StreamHandler, public MergeHost {
 public:
  ConsolidationImpl(Exchange& exchange, ArchiveWriter& writer, const ConsolidationOptions& options)
      : exchange_(exchange), writer_(writer), options_(options) {}
  ~ConsolidationImpl() override;
  absl::Status start();

  absl::Status wait(int64_t timeout_ms) override;
  bool has_ended() const override;
  Progress progress() const override;
  void cancel() override;
  absl::StatusOr<PartManifest> finish() override;

  absl::StatusOr<Admission> admit(const Hello& hello) override;
  void accepted(std::shared_ptr<Stream> stream) override;

 private:
  struct Slot {
    enum class Phase { kMissing, kReceived, kDurable };
    const ConsolidationSlot* plan = nullptr;
    Phase phase = Phase::kMissing;
    size_t tries = 0;
    const Lane* owner = nullptr;  // agreed: the lane that is sending it
    uint64_t taken_bytes = 0;     // while it is missing: what its blocks that have come so far took
  };

  // consolidation.cc
  absl::Status check_options() SLUICE_REQUIRES(mutex_);
  absl::Status take_durable_at_open() SLUICE_REQUIRES(mutex_);
  Lane& lane_of(const std::string& node);
  absl::Status check_not_ended() const SLUICE_REQUIRES(mutex_);
  void end(State state, const absl::Status& status);
  bool running() const override;
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }
  size_t agreed_streams(const std::string& but_of) const SLUICE_REQUIRES(mutex_);
  // Gives a finished slot to the archive; false when the job ends of it.
  bool slot_received(uint32_t slot, const SlotDigest& digest, uint64_t newest_stamp);
  void count_block(uint32_t message_bytes);
  void count_repeated(const Envelope& envelope) SLUICE_REQUIRES(mutex_);
  // What came of the slot so far was for nothing; `archived`: some of it is with the archive.
  void drop(uint32_t slot, bool archived);
  void slot_failed(uint32_t slot, const std::string& source, const absl::Status& why);

  // consolidation_sync.cc
  void run_sync();
  bool sync_due(int64_t now) const SLUICE_REQUIRES(mutex_);
  bool sync_and_mark();
  bool make_durable();
  void acknowledge(const std::vector<uint32_t>& slots);
  void send_first_lists();
  absl::Status send_list(Stream& stream, const std::vector<uint32_t>& slots, bool complete);
  void check_idle(int64_t now);

  // consolidation_agreed.cc
  void run_agreed(Lane& lane);
  // The lane's stream; what came on an older one is dropped.
  std::shared_ptr<Stream> stream_of(Lane& lane);
  bool send_refusals(Lane& lane, Stream& stream);
  absl::Status on_agreed(Lane& lane, Message message);
  absl::Status take_block(Lane& lane, Arriving& arriving, Message& message);
  absl::Status finish_agreed(Lane& lane, const Message& end, Arriving& arriving);
  absl::StatusOr<SlotDigest> expected_of(const Message& end);
  void refuse(Lane& lane, uint32_t slot, Arriving& arriving, const absl::Status& why);
  void drop_arriving(Lane& lane);

  // consolidation_merge.cc
  absl::Status start_merging();
  void count_message(uint32_t bytes) override { count_block(bytes); }
  void told_to_wait() override;
  absl::Status append(uint32_t slot, BlockBuffer block, uint32_t bytes) override;
  void start_over(uint32_t slot, const absl::Status& why) override;
  bool slot_received(uint32_t slot, const SlotDigest& digest, uint64_t newest_stamp,
                     DivergenceReport report) override;

  Exchange& exchange_;
  ArchiveWriter& writer_;
  const ConsolidationOptions options_;
  bool serving_agreed_ = false;
  std::atomic<bool> stopping_{false};  // the object goes
  std::atomic<int64_t> last_block_ns_{0};

  mutable Mutex mutex_;
  Condition changed_;                                   // streams, received slots, the end
  std::map<std::string, std::unique_ptr<Lane>> lanes_;  // by source; fixed after start()
  std::unordered_map<uint32_t, Slot> slots_ SLUICE_GUARDED_BY(mutex_);  // keys fixed after start()
  std::vector<const ConsolidationSlot*> divergent_;  // ascending, fixed after start()
  Progress progress_ SLUICE_GUARDED_BY(mutex_);
  absl::Status status_ SLUICE_GUARDED_BY(mutex_);
  std::unordered_map<uint32_t, DivergenceReport> unsynced_divergence_
      SLUICE_GUARDED_BY(mutex_);  // of merged slots
  uint64_t unsynced_slots_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t unsynced_bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
  int64_t first_unsynced_ns_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool syncing_ended_ SLUICE_GUARDED_BY(mutex_) = false;  // finish() has the writer now
  bool in_sync_ SLUICE_GUARDED_BY(mutex_) = false;  // what it makes durable is not counted yet

  Mutex callback_mutex_;
  std::thread sync_;
  std::unique_ptr<MergeTarget> merge_;  // null without divergent slots; fixed after start()
};

}  // namespace sluice::consolidation

#endif  // SLUICE_DATAPLANE_PIPELINE_CONSOLIDATION_IMPL_H_

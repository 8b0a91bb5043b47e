// The target's side of divergent slots: a fixed number of workers that merge one slot each at a
// time (merge_slot.h), over streams that they open to the sources (merge_streams.h), and a thread
// that tells sources which of their slots are durable. Internal to dataplane/pipeline.
//
// A source that is away, or has no room, holds up its own slots alone: workers take others in the
// meantime. Where several copies have the same digest any one of them will do.
#ifndef SLUICE_DATAPLANE_PIPELINE_MERGE_TARGET_H_
#define SLUICE_DATAPLANE_PIPELINE_MERGE_TARGET_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "dataplane/pipeline/consolidation.h"
#include "dataplane/pipeline/merge_slot.h"
#include "dataplane/pipeline/merge_streams.h"

namespace sluice {

// Thread-safe.
class MergeTarget {
 public:
  // The host and the exchange outlive it, and so do the options.
  MergeTarget(Exchange& exchange, MergeHost& host, const ConsolidationOptions& options)
      : exchange_(exchange), host_(host), options_(options) {}
  // Ends it. After a job whose slots are all durable, sources that can be reached are told first,
  // for a short time.
  ~MergeTarget();
  // Merges these slots, or has them as durable already. RESOURCE_EXHAUSTED without buffers.
  absl::Status start(const std::vector<const ConsolidationSlot*>& slots,
                     const std::set<uint32_t>& durable);
  // The archive has them now.
  void slots_durable(const std::vector<uint32_t>& slots);

 private:
  struct Pending {
    const ConsolidationSlot* plan = nullptr;
    size_t tries = 0;
  };
  struct Job {
    std::vector<Pending> pending;
    MergeBatch batch;  // in the same order
  };
  // A source, and what it knows.
  struct Sender {
    std::vector<uint32_t> durable;
    size_t slots = 0;
    bool told = false;   // of all of them, in the life that `start` names
    bool tried = false;  // since all of them are durable
    std::string start;
    int64_t retry_ns = 0;
  };

  void run_worker();
  bool pick(Job* job);
  bool choose(const Pending& pending, MergeBatch* batch) const;
  void add_like(std::deque<Pending>& slots, Job* job) const;
  void merge(Job& job, SlotMerge& merger);
  // But for the finished ones; one, unless none, has failed.
  void put_back(const Job& job, size_t finished, const uint32_t* failed);

  void run_notices();
  void look_for_restarts();
  bool due_notice(std::string* node, std::vector<uint32_t>* slots) SLUICE_REQUIRES(mutex_);
  absl::Status tell(const std::string& node, const std::vector<uint32_t>& slots);
  bool all_tried() const SLUICE_REQUIRES(mutex_);

  Exchange& exchange_;
  MergeHost& host_;
  const ConsolidationOptions& options_;
  std::unique_ptr<BlockPool> output_;
  std::unique_ptr<MergeStreams> streams_;

  mutable Mutex mutex_;
  Condition changed_;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  // By the slots' sources: one group's need the same streams.
  std::map<std::vector<std::string>, std::deque<Pending>> pending_ SLUICE_GUARDED_BY(mutex_);
  std::vector<std::string> last_group_ SLUICE_GUARDED_BY(mutex_);
  std::map<uint32_t, const ConsolidationSlot*> plans_;
  std::map<std::string, Sender> senders_ SLUICE_GUARDED_BY(mutex_);
  std::vector<std::thread> workers_;
  std::thread notices_;
  int64_t looked_ns_ = 0;  // for restarts; of that thread
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_MERGE_TARGET_H_

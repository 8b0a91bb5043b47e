// All of a source's sending in a backup: to every target that it has copies for, to a bounded
// number of them at a time, so that its buffers and threads do not grow with the cluster. A target
// that takes no more sources for now, is away, or has not begun yet comes later again.
#ifndef SLUICE_DATAPLANE_PIPELINE_SEND_TO_TARGETS_H_
#define SLUICE_DATAPLANE_PIPELINE_SEND_TO_TARGETS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/send_copies.h"

namespace sluice {

struct TargetCopies {
  std::string target;  // node name
  std::vector<uint32_t> agreed;
};

struct SendToTargetsOptions {
  // Of each target's sending; its target, address and slots are filled in here.
  SendCopiesOptions each;
  size_t targets_at_a_time = 16;
  // Of a target's data listener, asked before each try: one that restarts may have another.
  std::function<absl::StatusOr<std::string>(const std::string& target)> address_of;
  // Without a slot that became durable or a block sent to a target that could be reached in this
  // time.
  int64_t give_up_ms = 60'000;
  // A target has no room for this source for now. Called from the caller's thread.
  std::function<void(const std::string& target, const absl::Status& why)> on_crowded;
};

// Returns when every target has all its slots durably, or with the first error that no later try
// mends: then the other sends are cancelled. Waits.
absl::Status send_to_targets(Exchange& exchange, SlotSource& source,
                             std::vector<TargetCopies> targets, const SendToTargetsOptions& options,
                             const Cancellation& cancellation);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_SEND_TO_TARGETS_H_

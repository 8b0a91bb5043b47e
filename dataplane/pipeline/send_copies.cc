#include "dataplane/pipeline/send_copies.h"

#include <unordered_set>

#include "base/status.h"
#include "dataplane/pipeline/send_lane.h"

namespace sluice {

bool SendJob::stopped() const {
  if (options.cancellation != nullptr && options.cancellation->cancelled()) return true;
  std::lock_guard lock(mutex_);
  return failed_;
}

void SendJob::fail(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (failed_) return;
  failed_ = true;
  failure_ = status;
}

absl::Status SendJob::status() const {
  std::lock_guard lock(mutex_);
  if (failed_) return failure_;
  if (options.cancellation != nullptr && options.cancellation->cancelled()) {
    return cancelled("sending to {} is cancelled", options.target);
  }
  return absl::OkStatus();
}

void SendJob::slot_sent(uint32_t slot) {
  std::lock_guard lock(mutex_);
  if (options.on_slot_sent) options.on_slot_sent(slot);
}

void SendJob::slot_durable(uint32_t slot, bool skipped) {
  std::lock_guard lock(mutex_);
  ++result_.slots;
  result_.slots_skipped += skipped;
  if (options.on_slot_durable) options.on_slot_durable(slot);
}

void SendJob::block_sent(uint32_t message_bytes, const SlotPacker::Packed& packed) {
  std::lock_guard lock(mutex_);
  result_.blocks += packed.bytes > 0;
  result_.records += packed.records;
  result_.record_bytes += packed.record_bytes;
  result_.wire_bytes += message_bytes;
  if (options.on_bytes) options.on_bytes(message_bytes);
}

void SendJob::add_repeat() {
  std::lock_guard lock(mutex_);
  ++result_.slots_repeated;
}

void SendJob::add_reconnect() {
  std::lock_guard lock(mutex_);
  ++result_.reconnects;
}

SendCopiesResult SendJob::result() const {
  std::lock_guard lock(mutex_);
  return result_;
}

absl::StatusOr<SendCopiesResult> send_copies(Exchange& exchange, CutReader& cut,
                                             const SendCopiesOptions& options) {
  std::unordered_set<uint32_t> seen;
  for (const uint32_t slot : options.agreed) {
    if (slot >= cut.digests().size() || slot >= uint32_t{1} << options.slot_bits) {
      return invalid_argument("slot {} of {} slots", slot, cut.digests().size());
    }
    if (!seen.insert(slot).second) return invalid_argument("slot {} is assigned twice", slot);
  }
  if (options.workers == 0 || options.agreed_buffers < options.workers) {
    return invalid_argument("sending needs a buffer for each worker");
  }
  SendJob job(exchange, cut, options);
  SendLane agreed(job, StreamKind::kBackupAgreed, options.agreed, options.agreed_buffers,
                  options.workers);
  agreed.run();
  SLUICE_RETURN_IF_ERROR(job.status());
  return job.result();
}

}  // namespace sluice

#include "dataplane/pipeline/send_copies.h"

#include <chrono>
#include <future>
#include <unordered_set>
#include <utility>

#include "base/status.h"
#include "dataplane/pipeline/send_lane.h"

namespace sluice {

bool SendJob::stopped() const {
  const MutexLock lock(mutex_);
  return failed_;
}

void SendJob::fail(const absl::Status& status) {
  {
    const MutexLock lock(mutex_);
    if (failed_) return;
    failed_ = true;
    failure_ = status;
  }
  changed_();
}

absl::Status SendJob::status() const {
  const MutexLock lock(mutex_);
  return failed_ ? failure_ : absl::OkStatus();
}

void SendJob::slot_sent(uint32_t slot) {
  const MutexLock lock(mutex_);
  if (options.on_slot_sent) options.on_slot_sent(slot);
}

void SendJob::slot_durable(uint32_t slot, bool skipped) {
  const MutexLock lock(mutex_);
  ++result_.slots;
  result_.slots_skipped += skipped;
  if (options.on_slot_durable) options.on_slot_durable(slot);
}

void SendJob::block_sent(uint32_t slot, uint32_t message_bytes, const SlotPacker::Packed& packed) {
  const MutexLock lock(mutex_);
  result_.blocks += packed.bytes > 0;
  result_.records += packed.records;
  result_.record_bytes += packed.record_bytes;
  result_.wire_bytes += message_bytes;
  if (options.on_bytes) options.on_bytes(slot, message_bytes);
}

void SendJob::add_repeat() {
  const MutexLock lock(mutex_);
  ++result_.slots_repeated;
}

void SendJob::add_reconnect() {
  const MutexLock lock(mutex_);
  ++result_.reconnects;
}

SendCopiesResult SendJob::result() const {
  const MutexLock lock(mutex_);
  return result_;
}

namespace {

absl::Status check(const SlotSource& source, const SendCopiesOptions& options) {
  std::unordered_set<uint32_t> seen;
  for (const uint32_t slot : options.agreed) {
    if (!source.has(slot) || !is_possible_slot(slot, options.slot_bits)) {
      return invalid_argument("slot {} is not one of this source's", slot);
    }
    if (!seen.insert(slot).second) return invalid_argument("slot {} is assigned twice", slot);
  }
  if (options.packers == 0 || options.agreed_buffers < options.packers) {
    return invalid_argument("sending needs a buffer for each packer");
  }
  return absl::OkStatus();
}

class CopySenderImpl final : public CopySender {
 public:
  CopySenderImpl(Exchange& exchange, SlotSource& source, SendCopiesOptions options,
                 std::function<void()> on_end)
      : job_(exchange, source, std::move(options), [this] { lane_.wake(); }),
        lane_(job_, std::move(on_end)) {}
  absl::Status start() {
    SLUICE_RETURN_IF_ERROR(lane_.prepare());
    lane_.wake();
    return absl::OkStatus();
  }
  void cancel() override {
    job_.fail(cancelled("sending to {} is cancelled", job_.options.target));
  }
  absl::Status status() const override { return job_.status(); }
  SendCopiesResult result() const override { return job_.result(); }

 private:
  SendJob job_;
  SendLane lane_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CopySender>> CopySender::start(Exchange& exchange,
                                                              SlotSource& source,
                                                              SendCopiesOptions options,
                                                              std::function<void()> on_end) {
  SLUICE_RETURN_IF_ERROR(check(source, options));
  auto sender =
      std::make_unique<CopySenderImpl>(exchange, source, std::move(options), std::move(on_end));
  SLUICE_RETURN_IF_ERROR(sender->start());
  return sender;
}

absl::StatusOr<SendCopiesResult> send_copies(Exchange& exchange, SlotSource& source,
                                             const SendCopiesOptions& options,
                                             const Cancellation* cancellation) {
  std::promise<void> ended;
  SLUICE_ASSIGN_OR_RETURN(const auto sender, CopySender::start(exchange, source, options,
                                                               [&ended] { ended.set_value(); }));
  const std::future<void> end = ended.get_future();
  while (end.wait_for(std::chrono::milliseconds(kCancellationPollMs)) !=
         std::future_status::ready) {
    if (cancellation != nullptr && cancellation->cancelled()) sender->cancel();
  }
  SLUICE_RETURN_IF_ERROR(sender->status());
  return sender->result();
}

}  // namespace sluice

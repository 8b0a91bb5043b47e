#include "dataplane/pipeline/send_copies.h"

#include <atomic>
#include <chrono>
#include <future>
#include <unordered_set>
#include <utility>

#include "base/status.h"
#include "dataplane/pipeline/send_lane.h"

namespace sluice {

bool SendJob::stopped() const {
  std::lock_guard lock(mutex_);
  return failed_;
}

void SendJob::fail(const absl::Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (failed_) return;
    failed_ = true;
    failure_ = status;
  }
  changed_();
}

absl::Status SendJob::status() const {
  std::lock_guard lock(mutex_);
  return failed_ ? failure_ : absl::OkStatus();
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

namespace {

absl::Status check(const CutReader& cut, const SendCopiesOptions& options) {
  std::unordered_set<uint32_t> seen;
  for (const std::vector<uint32_t>* list : {&options.agreed, &options.divergent}) {
    for (const uint32_t slot : *list) {
      if (slot >= cut.digests().size() || slot >= uint32_t{1} << options.slot_bits) {
        return invalid_argument("slot {} of {} slots", slot, cut.digests().size());
      }
      if (!seen.insert(slot).second) return invalid_argument("slot {} is assigned twice", slot);
    }
  }
  if (options.packers == 0 || options.agreed_buffers < options.packers ||
      options.merge_buffers == 0) {
    return invalid_argument("sending needs a buffer for each packer");
  }
  return absl::OkStatus();
}

class CopySenderImpl final : public CopySender {
 public:
  CopySenderImpl(Exchange& exchange, CutReader& cut, SendCopiesOptions options,
                 std::function<void()> on_end)
      : on_end_(std::move(on_end)),
        job_(exchange, cut, std::move(options), [this] { wake(); }),
        agreed_(job_, StreamKind::kBackupAgreed, job_.options.agreed, job_.options.agreed_buffers,
                job_.options.packers, [this] { lane_over(); }),
        // One packer: the order of divergent slots is what keeps the merge from waiting in a
        // circle.
        merge_(job_, StreamKind::kBackupMerge, job_.options.divergent, job_.options.merge_buffers,
               1, [this] { lane_over(); }) {}
  ~CopySenderImpl() override {
    // Both, before either goes: they wake each other.
    agreed_.stop();
    merge_.stop();
  }
  absl::Status start() {
    SLUICE_RETURN_IF_ERROR(agreed_.prepare());
    SLUICE_RETURN_IF_ERROR(merge_.prepare());
    agreed_.wake();
    merge_.wake();
    return absl::OkStatus();
  }
  void cancel() override {
    job_.fail(cancelled("sending to {} is cancelled", job_.options.target));
  }
  absl::Status status() const override { return job_.status(); }
  SendCopiesResult result() const override { return job_.result(); }

 private:
  void wake() {
    agreed_.wake();
    merge_.wake();
  }
  void lane_over() {
    if (--lanes_ == 0) on_end_();
  }

  const std::function<void()> on_end_;
  std::atomic<int> lanes_{2};
  SendJob job_;
  SendLane agreed_;
  SendLane merge_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CopySender>> CopySender::start(Exchange& exchange, CutReader& cut,
                                                              SendCopiesOptions options,
                                                              std::function<void()> on_end) {
  SLUICE_RETURN_IF_ERROR(check(cut, options));
  auto sender =
      std::make_unique<CopySenderImpl>(exchange, cut, std::move(options), std::move(on_end));
  SLUICE_RETURN_IF_ERROR(sender->start());
  return sender;
}

absl::StatusOr<SendCopiesResult> send_copies(Exchange& exchange, CutReader& cut,
                                             const SendCopiesOptions& options,
                                             const Cancellation* cancellation) {
  std::promise<void> ended;
  SLUICE_ASSIGN_OR_RETURN(const auto sender, CopySender::start(exchange, cut, options,
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

#include "dataplane/pipeline/send_to_targets.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kFirstWaitMs = 20;
constexpr int64_t kMostWaitMs = 1'000;

class TargetQueue {
 public:
  TargetQueue(Exchange& exchange, SlotSource& source, std::vector<TargetCopies> targets,
              const SendToTargetsOptions& options)
      : exchange_(exchange), source_(source), options_(options) {
    const int64_t now = exchange.clock().monotonic_ns();
    for (TargetCopies& copies : targets) {
      sends_.push_back(std::make_unique<Send>(std::move(copies), now));
    }
  }

  absl::Status run(const Cancellation& cancellation) {
    size_t left = sends_.size();
    while (left > 0) {
      if (cancellation.cancelled()) return cancelled("sending copies is cancelled");
      SLUICE_RETURN_IF_ERROR(start_due());
      {
        MutexLock lock(mutex_);
        changed_.wait_for(lock, std::chrono::milliseconds(wait_ms()),
                          [this]() SLUICE_REQUIRES(mutex_) { return ended_; });
        ended_ = false;
      }
      for (const auto& send : sends_) {
        if (send->sender == nullptr || !send->over) continue;
        const absl::Status status = send->sender->status();
        send->sender.reset();
        --active_;
        if (status.ok()) {
          send->done = true;
          --left;
        } else {
          SLUICE_RETURN_IF_ERROR(try_later(*send, status));
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  struct Send {
    Send(TargetCopies of, int64_t now) : copies(std::move(of)), due_ns(now), moved_ns(now) {}
    const TargetCopies copies;
    bool done = false;
    bool crowded = false;  // and that was said
    int64_t due_ns;
    Backoff backoff{kFirstWaitMs, kMostWaitMs};
    std::atomic<int64_t> moved_ns;  // it went on, or there was nothing to complain of
    std::atomic<bool> over{false};
    std::unique_ptr<CopySender> sender;  // last: it uses the others
  };

  int64_t now() const { return exchange_.clock().monotonic_ns(); }

  // Until the next target is due; the queue looks at its cancellation at least that often.
  int64_t wait_ms() const {
    int64_t least_ns = kCancellationPollMs * kMs;
    if (active_ >= options_.targets_at_a_time) return least_ns / kMs;
    for (const auto& send : sends_) {
      if (!send->done && send->sender == nullptr) {
        least_ns = std::min(least_ns, std::max<int64_t>(send->due_ns - now(), 0));
      }
    }
    return (least_ns + kMs - 1) / kMs;
  }

  absl::Status start_due() {
    for (const auto& send : sends_) {
      if (active_ >= options_.targets_at_a_time) break;
      if (send->done || send->sender != nullptr || send->due_ns > now()) continue;
      SLUICE_RETURN_IF_ERROR(start(*send));
    }
    return absl::OkStatus();
  }

  absl::Status start(Send& send) {
    // What it waited for its turn is not held against the target.
    send.moved_ns += std::max<int64_t>(now() - send.due_ns, 0);
    SendCopiesOptions copies = options_.each;
    copies.target = send.copies.target;
    SLUICE_ASSIGN_OR_RETURN(copies.address, options_.address_of(copies.target));
    copies.agreed = send.copies.agreed;
    if (copies.address == exchange_.address()) {
      copies.agreed_buffers = std::max(copies.agreed_buffers, SendCopiesOptions::kLocalBuffers);
    }
    copies.on_slot_durable = [this, &send](uint32_t slot) {
      send.moved_ns = now();
      if (options_.each.on_slot_durable) options_.each.on_slot_durable(slot);
    };
    copies.on_bytes = [this, &send](uint32_t slot, uint64_t bytes) {
      send.moved_ns = now();
      if (options_.each.on_bytes) options_.each.on_bytes(slot, bytes);
    };
    send.over = false;
    auto sender = CopySender::start(exchange_, source_, std::move(copies), [this, &send] {
      send.over = true;
      {
        const MutexLock lock(mutex_);
        ended_ = true;
      }
      changed_.notify_one();
    });
    if (!sender.ok()) return try_later(send, sender.status());
    send.sender = *std::move(sender);
    ++active_;
    return absl::OkStatus();
  }

  absl::Status try_later(Send& send, const absl::Status& status) {
    // No free buffer, here or there, or no room for one more source: it works for others, and has
    // room again when these are done. To be waited for as long as the backup waits for anything.
    const bool full = absl::IsResourceExhausted(status);
    // A target that has not begun this attempt yet says FAILED_PRECONDITION.
    const bool behind = absl::IsFailedPrecondition(status);
    if (full) {
      send.moved_ns = now();
      if (!std::exchange(send.crowded, true) && options_.on_crowded) {
        options_.on_crowded(send.copies.target, status);
      }
    }
    const bool again = absl::IsUnavailable(status) || behind || full;
    if (!again || now() - send.moved_ns > options_.give_up_ms * kMs) {
      return with_context(status, send.copies.target);
    }
    send.due_ns = now() + send.backoff.next_ns();
    return absl::OkStatus();
  }

  Exchange& exchange_;
  SlotSource& source_;
  const SendToTargetsOptions& options_;
  size_t active_ = 0;
  Mutex mutex_;
  Condition changed_;
  bool ended_ SLUICE_GUARDED_BY(mutex_) = false;  // a send, since it was last looked
  std::vector<std::unique_ptr<Send>> sends_;      // last: their senders call back
};

}  // namespace

absl::Status send_to_targets(Exchange& exchange, SlotSource& source,
                             std::vector<TargetCopies> targets, const SendToTargetsOptions& options,
                             const Cancellation& cancellation) {
  if (options.targets_at_a_time == 0) return invalid_argument("sending to no target at a time");
  TargetQueue queue(exchange, source, std::move(targets), options);
  return queue.run(cancellation);
}

}  // namespace sluice

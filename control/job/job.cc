#include "control/job/job.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"

namespace sluice {

namespace {

constexpr int64_t kRetryMs = 200;
// Of waiting for the lease, after which abandon() is seen.
constexpr int64_t kHoldSliceMs = 200;

std::vector<ClusterOp> joined(const std::vector<ClusterOp>& first,
                              const std::vector<ClusterOp>& second) {
  std::vector<ClusterOp> ops = first;
  ops.insert(ops.end(), second.begin(), second.end());
  return ops;
}

}  // namespace

Job::Job(ClusterBlock& block, JobName name, const JobOptions& options,
         std::unique_ptr<LeaseLock> lock)
    : block_(block), name_(std::move(name)), options_(options), lock_(std::move(lock)) {}

absl::StatusOr<std::unique_ptr<Job>> Job::take(ClusterBlock& block, const JobName& name,
                                               std::string_view holder, const JobOptions& options,
                                               const std::vector<ClusterOp>& with) {
  LeaseLockOptions locking;
  locking.clock = options.clock;
  SLUICE_ASSIGN_OR_RETURN(auto lock, LeaseLock::take(block, name.lock_key, holder, locking, with));
  return std::unique_ptr<Job>(new Job(block, name, options, std::move(lock)));
}

void Job::adopt(Revision head, uint64_t attempt) {
  head_ = head;
  attempt_ = attempt;
  taken_over_ = false;
}

void Job::cancel() {
  cancelled_ = true;
  wakeup_.wake();
}

void Job::abandon() {
  abandoned_ = true;
  wakeup_.wake();
}

absl::Status Job::leave_status() const {
  if (abandoned_) return aborted("{}: {} stops", name_.label, options_.worker);
  if (taken_over_) {
    return aborted("{}: attempt {} was superseded: somebody else changed or deleted it",
                   name_.label, attempt_);
  }
  return absl::OkStatus();
}

absl::Status Job::stop_status() const {
  if (cancelled_) return cancelled("cancelled by the operator");
  SLUICE_RETURN_IF_ERROR(leave_status());
  if (lock_->lost()) return aborted("{}: another process has taken over", name_.label);
  return absl::OkStatus();
}

absl::Status Job::hold() {
  Deadline deadline(*options_.clock, options_.lease_patience_ms);
  while (true) {
    SLUICE_RETURN_IF_ERROR(leave_status());
    const absl::Status held = lock_->wait_held(kHoldSliceMs);
    if (!is_transient(held) || deadline.passed()) return held;
  }
}

std::function<bool()> Job::try_again() const {
  // A cancellation ends what was being stored when it came, and is then stored itself.
  return [this, was_cancelled = cancelled_.load(),
          deadline = Deadline(*options_.clock, options_.block_patience_ms)]() mutable {
    return !lock_->lost() && !abandoned_ && cancelled_ == was_cancelled && deadline.pause(kRetryMs);
  };
}

absl::Status Job::taken_over() {
  taken_over_ = true;
  return leave_status();
}

absl::Status Job::settle_doubt() {
  return in_doubt_.has_value() ? check_unchanged() : absl::OkStatus();
}

void Job::stored(const Head& head, Revision revision) {
  in_doubt_.reset();
  head_ = revision;
  attempt_ = std::max(attempt_, head.attempt);
}

absl::Status Job::swap(const Head& head, const std::vector<ClusterOp>& with,
                       const std::vector<ClusterOp>& fence) {
  SLUICE_RETURN_IF_ERROR(hold());
  SLUICE_RETURN_IF_ERROR(settle_doubt());
  if (head.attempt < attempt_) {
    return invalid_argument("{} is at attempt {}; attempt {} is over", name_.label, attempt_,
                            head.attempt);
  }
  std::vector<ClusterOp> ops{ClusterOp::put(name_.head_key, head.document, head_)};
  ops = joined(joined(ops, with), fence);
  const Revision before = head_;
  const auto again = try_again();
  for (bool in_doubt = false;; in_doubt = true) {
    const absl::StatusOr<Revision> revision = block_.commit(ops);
    if (revision.ok()) {
      stored(head, *revision);
      return absl::OkStatus();
    }
    absl::Status status = revision.status();
    if (absl::IsAborted(status)) {
      if (!in_doubt) return taken_over();
      // It is what this process has stored itself, or somebody else's.
      status = check_unchanged();
      if (status.ok()) return head_ == before ? taken_over() : absl::OkStatus();
    }
    if (!is_transient(status)) return status;
    if (!absl::IsAborted(revision.status())) in_doubt_ = head;
    if (!again()) return status;
  }
}

absl::Status Job::store(const Head& head, const std::vector<ClusterOp>& with) {
  return swap(head, with, {lock_->fence()});
}

absl::Status Job::store_last(const Head& head, const std::vector<ClusterOp>& with) {
  SLUICE_RETURN_IF_ERROR(swap(head, with, lock_->release()));
  lock_->set_released();
  return absl::OkStatus();
}

absl::Status Job::commit(const std::vector<ClusterOp>& changes) {
  SLUICE_RETURN_IF_ERROR(settle_doubt());
  constexpr size_t kMostChanges = ClusterBlock::kMaxOps - 2;
  for (size_t first = 0; first < changes.size(); first += kMostChanges) {
    SLUICE_RETURN_IF_ERROR(hold());
    const size_t end = std::min(changes.size(), first + kMostChanges);
    std::vector<ClusterOp> ops(changes.begin() + static_cast<ptrdiff_t>(first),
                               changes.begin() + static_cast<ptrdiff_t>(end));
    ops.push_back(ClusterOp::check(name_.head_key, head_));
    ops.push_back(lock_->fence());
    const auto again = try_again();
    absl::Status status;
    do {
      status = block_.commit(ops).status();
    } while (is_transient(status) && again());
    if (absl::IsAborted(status)) return taken_over();
    SLUICE_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status Job::check_unchanged() {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block_.get(name_.head_key));
  if (!entry.has_value()) return taken_over();
  if (entry->revision == head_) return absl::OkStatus();
  // A commit whose answer was lost is this process's own work.
  if (!in_doubt_.has_value() || entry->value != in_doubt_->document) return taken_over();
  stored(Head(*in_doubt_), entry->revision);
  return absl::OkStatus();
}

absl::StatusOr<WatchHandle> Job::watch(std::string_view prefix) {
  return block_.watch(prefix, head_, [this](const WatchEvent&) { wakeup_.wake(); });
}

}  // namespace sluice

#include "control/service/progress_report.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "base/guard.h"
#include "base/status.h"

namespace sluice {

namespace {
constexpr int64_t kNumbersNs = 250'000'000;
constexpr int64_t kStateNs = 50'000'000;

uint64_t sent_bytes(const NodeContext& context) {
  return context.exchange->counters().sent_bytes + context.exchange->local_bytes();
}

NodeProgress earlier_progress(const NodeContext& context, const std::string& backup) {
  if (auto all = load_progress(*context.block, backup); all.ok()) {
    for (NodeProgress& progress : *all) {
      if (progress.node == context.name) return std::move(progress);
    }
  }
  return {};
}
}  // namespace

ProgressReport::ProgressReport(const NodeContext& context, std::string backup, uint64_t attempt,
                               bool is_target, std::function<std::vector<StageReport>()> stages)
    : context_(context),
      backup_(std::move(backup)),
      is_target_(is_target),
      stages_(std::move(stages)),
      sent_at_start_(sent_bytes(context)),
      before_(earlier_progress(context, backup_)) {
  document_.node = context.name;
  document_.attempt = attempt;
  document_.divergence = before_.divergence;
  thread_ = guarded_thread("reporting progress", [this] { run(); });
}

ProgressReport::~ProgressReport() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

bool ProgressReport::has_ended(const NodeProgress& progress) const {
  return progress.source_state == BackupState::kSent &&
         (!is_target_ || progress.target_state == BackupState::kConsolidated);
}

void ProgressReport::change(const std::function<void(NodeProgress&)>& change) {
  {
    const std::lock_guard lock(mutex_);
    const NodeProgress old = document_;
    change(document_);
    const bool ended = has_ended(document_) && !has_ended(old);
    const bool changed =
        old.source_state != document_.source_state || old.target_state != document_.target_state;
    const int64_t delay_ns = ended || old.error != document_.error ? 0
                             : changed                             ? kStateNs
                                                                   : kNumbersNs;
    const int64_t due_ns = context_.clock->monotonic_ns() + delay_ns;
    if (due_ns_ != 0 && due_ns_ <= due_ns) return;
    due_ns_ = due_ns;
  }
  wake_.notify_all();
}

// Everything this node sent since the role began, to itself as well: blocks, acknowledgements and
// framing.
// One backup runs at a time.
uint64_t ProgressReport::wire_bytes() const {
  return before_.sent_bytes + sent_bytes(context_) - sent_at_start_;
}

void ProgressReport::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return due_ns_ != 0 || stopping_; });
    if (due_ns_ == 0) return;
    const int64_t left_ns = due_ns_ - context_.clock->monotonic_ns();
    if (left_ns > 0 && !stopping_) {
      wake_.wait_for(lock, std::chrono::nanoseconds(left_ns));
      continue;
    }
    due_ns_ = 0;
    NodeProgress document = document_;
    lock.unlock();
    const absl::Status written =
        guarded("reporting progress", [&] { return write(std::move(document)); });
    lock.lock();
    if (written.ok()) continue;
    if (stopping_) return;
    due_ns_ = context_.clock->monotonic_ns() + kNumbersNs;
  }
}

absl::Status ProgressReport::write(NodeProgress document) {
  document.sent_bytes = wire_bytes();
  document.stages = stages_();
  document.changed_ms = context_.clock->wall_ms();
  const absl::Status stored = store_progress(*context_.block, backup_, document);
  if (stored.ok() || stored.code() == absl::StatusCode::kAborted) return absl::OkStatus();
  spdlog::warn("{}: progress of backup {}: {}", context_.name, backup_, message_of(stored));
  return stored;
}

}  // namespace sluice

#include "control/service/progress_report.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "base/guard.h"
#include "base/status.h"

namespace sluice {

namespace {
constexpr auto kInterval = std::chrono::milliseconds(250);

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
                               std::function<std::vector<StageReport>()> stages)
    : context_(context),
      backup_(std::move(backup)),
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

void ProgressReport::change(const std::function<void(NodeProgress&)>& change) {
  {
    const std::lock_guard lock(mutex_);
    const NodeProgress old = document_;
    change(document_);
    dirty_ = true;
    if (old.source_state != document_.source_state || old.target_state != document_.target_state ||
        old.error != document_.error) {
      urgent_ = true;
    }
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
    wake_.wait_for(lock, kInterval, [this] { return urgent_ || stopping_; });
    const bool last = stopping_;
    if (dirty_ || last) {
      urgent_ = dirty_ = false;
      NodeProgress document = document_;
      lock.unlock();
      const absl::Status written =
          guarded("reporting progress", [&] { write(std::move(document)); });
      lock.lock();
      if (!written.ok()) dirty_ = true;
    }
    if (last) return;
  }
}

void ProgressReport::write(NodeProgress document) {
  document.sent_bytes = wire_bytes();
  document.stages = stages_();
  document.changed_ms = context_.clock->wall_ms();
  const absl::Status stored = store_progress(*context_.block, backup_, document);
  if (stored.ok() || stored.code() == absl::StatusCode::kAborted) return;
  spdlog::warn("{}: progress of backup {}: {}", context_.name, backup_, message_of(stored));
  const std::lock_guard lock(mutex_);
  dirty_ = true;
}

}  // namespace sluice

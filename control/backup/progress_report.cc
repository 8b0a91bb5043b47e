#include "control/backup/progress_report.h"

#include <grpcpp/client_context.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/guard.h"
#include "base/status.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {

constexpr int64_t kIntervalNs = 250'000'000;
// Of all nodes' reports at their coordinator.
constexpr int64_t kReportNs = 5'000'000;
constexpr int64_t kReportCallMs = 5'000;
// Of the last one: its node has other things to do.
constexpr int64_t kLastReportCallMs = 500;

SentBytes sent_by(const Exchange& exchange) {
  const uint64_t local = exchange.local_bytes();
  return {exchange.counters().sent_bytes + local, local};
}

NodeProgress earlier_progress(const NodeContext& context, const std::string& backup) {
  auto stored = load_progress_of(*context.block, backup, context.name);
  return stored.ok() && stored->has_value() ? **std::move(stored) : NodeProgress{};
}

}  // namespace

ProgressReport::ProgressReport(const NodeContext& context, const BackupHead& head, size_t nodes,
                               std::function<std::vector<StageReport>()> stages)
    : context_(context),
      backup_(head.uuid),
      coordinator_(head.coordinator),
      interval_ns_(std::max(kIntervalNs, static_cast<int64_t>(nodes) * kReportNs)),
      stages_(std::move(stages)),
      sent_at_start_(sent_by(*context.exchange)),
      before_(earlier_progress(context, backup_)) {
  document_.node = context.name;
  document_.attempt = head.attempt;
  document_.divergence = before_.divergence;
  document_.repeated_bytes = before_.repeated_bytes;
  document_.dropped_bytes = before_.dropped_bytes;
  thread_ = guarded_thread("reporting progress", [this] { run(); });
}

ProgressReport::~ProgressReport() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void ProgressReport::change(const std::function<void(NodeProgress&)>& change) {
  {
    const MutexLock lock(mutex_);
    const NodeProgress old = document_;
    change(document_);
    const bool urgent = old.source_state != document_.source_state ||
                        old.target_state != document_.target_state || old.error != document_.error;
    const int64_t due_ns = context_.clock->monotonic_ns() + (urgent ? 0 : interval_ns_);
    if (due_ns_ != 0 && due_ns_ <= due_ns) return;
    due_ns_ = due_ns;
  }
  wake_.notify_all();
}

void ProgressReport::run() {
  MutexLock lock(mutex_);
  for (uint64_t number = 1;; ++number) {
    wake_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return due_ns_ != 0 || stopping_; });
    if (due_ns_ == 0) return;
    const int64_t left_ns = due_ns_ - context_.clock->monotonic_ns();
    if (left_ns > 0 && !stopping_) {
      wake_.wait_for(lock, std::chrono::nanoseconds(left_ns));
      continue;
    }
    const bool last = stopping_;
    due_ns_ = 0;
    NodeProgress document = document_;
    lock.unlock();
    const absl::Status told =
        guarded("reporting progress", [&] { return tell(std::move(document), number); });
    lock.lock();
    if (told.ok()) continue;
    if (last) return;
    due_ns_ = context_.clock->monotonic_ns() + kIntervalNs;
  }
}

grpc::Status ProgressReport::ask(PeerNode& peer, const v1::ProgressRequest& request) {
  MutexLock lock(mutex_);
  const bool last = stopping_;
  lock.unlock();
  grpc::ClientContext call;
  set_timeout(call, last ? kLastReportCallMs : kReportCallMs);
  v1::Empty reply;
  std::optional<grpc::Status> answer;
  peer.peer().async()->ReportProgress(&call, &request, &reply, [&](grpc::Status status) {
    const MutexLock answered(mutex_);
    answer = std::move(status);
    wake_.notify_all();
  });
  lock.lock();
  wake_.wait(lock,
             [&]() SLUICE_REQUIRES(mutex_) { return answer.has_value() || (stopping_ && !last); });
  if (!answer.has_value()) {
    // What it tells is told again, with less patience.
    lock.unlock();
    peer.link().cancel(call);
    lock.lock();
    wake_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) { return answer.has_value(); });
  }
  return *answer;
}

absl::Status ProgressReport::tell(NodeProgress document, uint64_t number) {
  // Everything this node sent since the role began: blocks, acknowledgements and framing. One
  // backup runs at a time.
  const SentBytes sent = sent_by(*context_.exchange);
  document.sent_bytes = before_.sent_bytes + sent.all - sent_at_start_.all;
  document.local_bytes = before_.local_bytes + sent.local - sent_at_start_.local;
  document.stages = stages_();
  document.changed_ms = context_.clock->wall_ms();
  v1::ProgressRequest request;
  request.set_backup(backup_);
  request.set_attempt(document.attempt);
  request.set_node(context_.name);
  request.set_progress(encode(document));
  request.set_joined(context_.joined_at);
  request.set_number(number);
  SLUICE_ASSIGN_OR_RETURN(const auto peer, context_.peers->find(coordinator_));
  const grpc::Status answer = ask(*peer, request);
  peer->note(answer);
  const absl::Status told = from_peer(answer, coordinator_);
  // Of an attempt or a backup that is over nobody wants to know.
  if (told.ok() || absl::IsFailedPrecondition(told) || absl::IsAborted(told) ||
      absl::IsNotFound(told)) {
    failing_ = false;
    return absl::OkStatus();
  }
  if (!std::exchange(failing_, true)) {
    spdlog::warn("{}: progress of backup {} cannot be reported: {}", context_.name, backup_,
                 message_of(told));
  }
  return told;
}

}  // namespace sluice

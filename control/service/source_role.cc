// The source's side of BackupRole: sends this node's copies from its cut to the targets, and serves
// those that merge.
#include <spdlog/spdlog.h>

#include <atomic>
#include <set>
#include <utility>

#include "base/guard.h"
#include "base/status.h"
#include "control/service/backup_role.h"
#include "dataplane/pipeline/send_copies.h"

namespace sluice {

namespace {
constexpr int64_t kTryMs = 2'000;
constexpr int64_t kGiveUpMs = 60'000;
constexpr int64_t kBehindNs = 50'000'000;
}  // namespace

void BackupRole::run_source() {
  report_.change([](NodeProgress& progress) { progress.source_state = BackupState::kEnabled; });
  const absl::Status status = guarded("sending copies", [this] { return send_all(); });
  if (status.ok()) {
    report_.change([](NodeProgress& progress) { progress.source_state = BackupState::kSent; });
    return;
  }
  if (cancellation_.cancelled()) return;
  spdlog::error("{}: backup {}: as source: {}", context_.name, head_.name, message_of(status));
  report_.change([&](NodeProgress& progress) {
    progress.source_state = BackupState::kFailed;
    progress.error = fmt::format("as source: {}", message_of(status));
  });
}

absl::Status BackupRole::send_all() {
  std::set<uint32_t> targets;
  bool divergent = false;
  for (const SlotPlan& slot : plan_.slots) {
    for (const PlanCopy& copy : plan_.senders_of(slot)) {
      if (copy.node != static_cast<uint32_t>(self_)) continue;
      if (slot.agreed) targets.insert(slot.target);
      divergent = divergent || !slot.agreed;
    }
  }
  if (targets.empty() && !divergent) return absl::OkStatus();
  for (const CutInfo& held : context_.store->cuts()) {
    if (held.backup == head_.uuid && (held.cut != head_.cut || held.epoch != head_.epoch)) {
      return failed_precondition("its cut of this backup is another one");
    }
  }
  SLUICE_ASSIGN_OR_RETURN(const auto cut, context_.store->open_cut(head_.uuid));
  if (divergent) SLUICE_RETURN_IF_ERROR(start_merge_source(cut));
  std::vector<std::thread> threads;
  threads.reserve(targets.size());
  std::mutex mutex;
  absl::Status first;
  for (const uint32_t target : targets) {
    auto thread = start_thread("sending copies", [&, target] {
      const absl::Status status = guarded("sending copies", [&] { return send_to(target, *cut); });
      const std::lock_guard lock(mutex);
      if (first.ok()) first = status;
    });
    if (!thread.ok()) {
      const std::lock_guard lock(mutex);
      first = thread.status();
      break;
    }
    threads.push_back(*std::move(thread));
  }
  for (std::thread& thread : threads) thread.join();
  SLUICE_RETURN_IF_ERROR(first);
  return wait_merged();
}

// It serves for as long as the role lives: a target may ask when all agreed slots have long been
// sent.
absl::Status BackupRole::start_merge_source(const std::shared_ptr<CutReader>& cut) {
  MergeSourceOptions options;
  options.job = head_.uuid;
  options.attempt = head_.attempt;
  options.slot_bits = head_.slot_bits;
  options.scan = &scan_;
  for (const SlotPlan& slot : plan_.slots) {
    if (slot.agreed) continue;
    for (const PlanCopy& copy : plan_.senders_of(slot)) {
      if (copy.node != static_cast<uint32_t>(self_)) continue;
      options.slots[plan_.nodes[slot.target].name].push_back(slot.slot);
    }
  }
  options.on_slot_durable = [this](uint32_t) {
    report_.change([](NodeProgress& progress) { ++progress.sent_slots; });
  };
  options.on_bytes = [this](uint64_t) { report_.change([](NodeProgress&) {}); };
  SLUICE_ASSIGN_OR_RETURN(merge_source_, MergeSource::start(*context_.exchange, cut, options));
  return absl::OkStatus();
}

// Targets that are slow, or away, are the coordinator's business: it waits for them or plans
// without them.
absl::Status BackupRole::wait_merged() {
  if (merge_source_ == nullptr) return absl::OkStatus();
  while (!cancellation_.cancelled()) {
    absl::Status status = merge_source_->wait_durable(kCancellationPollMs);
    if (!absl::IsDeadlineExceeded(status)) return status;
  }
  return cancelled("the backup's attempt {} ended", head_.attempt);
}

absl::Status BackupRole::send_to(uint32_t target, CutReader& cut) {
  SendCopiesOptions options;
  options.job = head_.uuid;
  options.attempt = head_.attempt;
  options.target = plan_.nodes[target].name;
  options.slot_bits = head_.slot_bits;
  options.cancellation = &cancellation_;
  options.scan = &scan_;
  for (const SlotPlan& slot : plan_.slots) {
    if (slot.target != target || !slot.agreed) continue;
    for (const PlanCopy& copy : plan_.senders_of(slot)) {
      if (copy.node == static_cast<uint32_t>(self_)) options.agreed.push_back(slot.slot);
    }
  }
  std::atomic<int64_t> moved_ns{context_.clock->monotonic_ns()};
  options.on_slot_durable = [&](uint32_t) {
    moved_ns = context_.clock->monotonic_ns();
    report_.change([](NodeProgress& progress) { ++progress.sent_slots; });
  };
  options.on_bytes = [&](uint64_t) {
    moved_ns = context_.clock->monotonic_ns();
    report_.change([](NodeProgress&) {});
  };
  // A target that restarts may come back under another address: each try asks for the one it has by
  // then.
  options.give_up_ms = kTryMs;
  absl::Status status;
  bool reported = false;
  do {
    const auto snapshot = context_.directory->snapshot();
    const Member* member = snapshot->find(options.target);
    if (member == nullptr) return not_found("target {} is no member any more", options.target);
    options.address = member->info.data_address;
    status = send_copies(*context_.exchange, cut, options).status();
    // No free buffer, here or there: it works for others, and has some again when these are done.
    // To be waited for as long as the backup waits for anything, not a failure of this node.
    const bool full = absl::IsResourceExhausted(status);
    if (full) moved_ns = context_.clock->monotonic_ns();
    // A target that has not begun this attempt yet says FAILED_PRECONDITION.
    const bool behind = absl::IsFailedPrecondition(status);
    if (!absl::IsUnavailable(status) && !behind && !full) return status;
    if (full && !reported) {
      spdlog::warn("{}: backup {}: waits for buffers to send to {}: {}", context_.name, head_.name,
                   options.target, message_of(status));
      reported = true;
    }
    if (behind || full) context_.clock->sleep_ns(kBehindNs);
  } while (!cancellation_.cancelled() &&
           context_.clock->monotonic_ns() - moved_ns < kGiveUpMs * 1'000'000);
  return with_context(status, options.target);
}

}  // namespace sluice

// The source's side of BackupRole: sends this node's copies from its cut to the targets.
#include <spdlog/spdlog.h>

#include <map>
#include <utility>

#include "base/guard.h"
#include "base/status.h"
#include "control/service/backup_role.h"
#include "dataplane/pipeline/send_to_targets.h"

namespace sluice {

namespace {
// Of one try to reach a target.
constexpr int64_t kTryMs = 2'000;
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
  std::vector<TargetCopies> targets = copies_by_target();
  if (targets.empty()) return absl::OkStatus();
  for (const CutInfo& held : context_.store->cuts()) {
    if (held.backup == head_.uuid && (held.cut != head_.cut || held.epoch != head_.epoch)) {
      return failed_precondition("its cut of this backup is another one");
    }
  }
  SLUICE_ASSIGN_OR_RETURN(const auto cut, context_.store->open_cut(head_.uuid));
  SendToTargetsOptions options;
  options.each.job = head_.uuid;
  options.each.attempt = head_.attempt;
  options.each.slot_bits = head_.slot_bits;
  options.each.scan = &scan_;
  options.each.give_up_ms = kTryMs;
  options.each.on_slot_durable = [this](uint32_t) {
    report_.change([](NodeProgress& progress) { ++progress.sent_slots; });
  };
  options.each.on_bytes = [this](uint64_t) { report_.change([](NodeProgress&) {}); };
  options.address_of = [this](const std::string& target) -> absl::StatusOr<std::string> {
    const auto snapshot = context_.directory->snapshot();
    const Member* member = snapshot->find(target);
    if (member == nullptr) return not_found("target {} is no member any more", target);
    return member->info.data_address;
  };
  options.on_crowded = [this](const std::string& target, const absl::Status& why) {
    spdlog::info("{}: backup {}: waits to send to {}: {}", context_.name, head_.name, target,
                 message_of(why));
  };
  return send_to_targets(*context_.exchange, *cut, std::move(targets), options, cancellation_);
}

// Each source begins with another target, itself first.
std::vector<TargetCopies> BackupRole::copies_by_target() const {
  const auto self = static_cast<uint32_t>(self_);
  const auto nodes = static_cast<uint32_t>(plan_.nodes.size());
  std::map<uint32_t, TargetCopies> targets;  // by distance from here
  for (const SlotPlan& slot : plan_.slots) {
    for (const PlanCopy& copy : plan_.senders_of(slot)) {
      if (copy.node != self) continue;
      TargetCopies& copies = targets[(slot.target + nodes - self) % nodes];
      copies.target = plan_.nodes[slot.target].name;
      (slot.agreed ? copies.agreed : copies.divergent).push_back(slot.slot);
    }
  }
  std::vector<TargetCopies> list;
  list.reserve(targets.size());
  for (auto& [distance, copies] : targets) list.push_back(std::move(copies));
  return list;
}

}  // namespace sluice

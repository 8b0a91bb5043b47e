// The source's side of BackupRole: sends this node's copies from its cut to the targets, and serves
// those that merge.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/guard.h"
#include "base/status.h"
#include "control/backup/backup_role.h"
#include "control/backup/node_trees.h"
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
  const bool divergent =
      std::any_of(plan_.slots.begin(), plan_.slots.end(),
                  [this](const SlotPlan& slot) { return merges_from_here(slot); });
  if (targets.empty() && !divergent) return absl::OkStatus();
  std::shared_ptr<CutReader> cut;
  if (divergent || sends_records()) {
    for (const CutInfo& held : context_.store->cuts()) {
      if (held.backup == head_.uuid && (held.cut != head_.cut || held.epoch != head_.epoch)) {
        return failed_precondition("its cut of this backup is another one");
      }
    }
    SLUICE_ASSIGN_OR_RETURN(cut, context_.store->open_cut(head_.uuid));
  }
  SLUICE_ASSIGN_OR_RETURN(const auto sources, open_sources(cut));
  if (divergent) SLUICE_RETURN_IF_ERROR(start_merge_source(cut));
  SendToTargetsOptions options;
  options.each.job = head_.uuid;
  options.each.attempt = head_.attempt;
  options.each.slot_bits = head_.slot_bits;
  options.each.scan = &scan_;
  options.each.give_up_ms = kTryMs;
  options.each.on_slot_durable = [this](uint32_t) {
    report_.change([](NodeProgress& progress) { ++progress.sent_slots; });
  };
  options.each.on_bytes = [this](uint32_t slot, uint64_t bytes) {
    const auto tree = trees_.find(tree_number_of(slot));
    if (tree != trees_.end()) tree->second.sent_bytes += bytes;
    report_.change([](NodeProgress&) {});
  };
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
  SLUICE_RETURN_IF_ERROR(
      send_to_targets(*context_.exchange, *sources, std::move(targets), options, cancellation_));
  report_trees();
  return wait_merged();
}

bool BackupRole::sends_records() const {
  const auto self = static_cast<uint32_t>(self_);
  return std::any_of(plan_.slots.begin(), plan_.slots.end(), [&](const SlotPlan& slot) {
    const auto senders = plan_.senders_of(slot);
    return tree_number_of(slot.slot) == 0 &&
           std::any_of(senders.begin(), senders.end(),
                       [self](const PlanCopy& copy) { return copy.node == self; });
  });
}

absl::StatusOr<std::shared_ptr<SourceSet>> BackupRole::open_sources(
    const std::shared_ptr<CutReader>& cut) {
  auto sources = std::make_shared<SourceSet>();
  if (cut != nullptr) sources->add(0, cut);
  std::set<uint32_t> numbers;
  for (const SlotPlan& slot : plan_.slots) {
    if (tree_number_of(slot.slot) == 0) continue;
    if (plan_.senders_of(slot).front().node != static_cast<uint32_t>(self_)) continue;
    numbers.insert(tree_number_of(slot.slot));
  }
  if (numbers.empty()) return sources;
  SLUICE_ASSIGN_OR_RETURN(const BackupTrees all, load_trees(*context_.block, head_.uuid));
  for (const v1::BackupTree& tree : all) {
    if (!numbers.contains(tree.number())) continue;
    numbers.erase(tree.number());
    SentTree& sent = trees_[tree.number()];
    sent.tree = tree;
    SLUICE_ASSIGN_OR_RETURN(sent.source, context_.trees->source(tree.name(), tree.number()));
    sources->add(tree.number(), sent.source);
  }
  if (!numbers.empty()) {
    return data_loss("the plan has a tree {} that the backup has not", *numbers.begin());
  }
  return sources;
}

// What a look found stays; what came of reading it is added.
void BackupRole::report_trees() {
  for (auto& [number, sent] : trees_) {
    const TreeReport report = sent.source->report();
    v1::BackupTree read;
    put(report, &read);
    v1::BackupTree& tree = sent.tree;
    tree.set_sent_bytes(sent.sent_bytes);
    tree.set_read_bytes(read.read_bytes());
    tree.set_changed(read.changed());
    tree.set_vanished(read.vanished());
    tree.set_failed(tree.failed() + read.failed());
    *tree.mutable_changed_paths() = read.changed_paths();
    tree.mutable_failed_paths()->MergeFrom(read.failed_paths());
  }
  if (trees_.empty()) return;
  report_.change([this](NodeProgress& progress) {
    progress.trees.clear();
    for (const auto& [number, sent] : trees_) {
      progress.trees.push_back(sent.tree.SerializeAsString());
    }
  });
}

// Whether it is divergent, and this node has a copy of it.
bool BackupRole::merges_from_here(const SlotPlan& slot) const {
  if (slot.agreed) return false;
  const auto senders = plan_.senders_of(slot);
  return std::any_of(senders.begin(), senders.end(), [this](const PlanCopy& copy) {
    return copy.node == static_cast<uint32_t>(self_);
  });
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
    if (merges_from_here(slot)) options.slots[plan_.nodes[slot.target].name].push_back(slot.slot);
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

// Each source begins with another target, itself first.
std::vector<TargetCopies> BackupRole::copies_by_target() const {
  const auto self = static_cast<uint32_t>(self_);
  const auto nodes = static_cast<uint32_t>(plan_.nodes.size());
  std::map<uint32_t, TargetCopies> targets;  // by distance from here
  for (const SlotPlan& slot : plan_.slots) {
    if (!slot.agreed) continue;
    for (const PlanCopy& copy : plan_.senders_of(slot)) {
      if (copy.node != self) continue;
      TargetCopies& copies = targets[(slot.target + nodes - self) % nodes];
      copies.target = plan_.nodes[slot.target].name;
      copies.agreed.push_back(slot.slot);
    }
  }
  std::vector<TargetCopies> list;
  list.reserve(targets.size());
  for (auto& [distance, copies] : targets) list.push_back(std::move(copies));
  return list;
}

}  // namespace sluice

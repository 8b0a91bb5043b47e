// The part of BackupRun that follows sources and targets, and commits what they made.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/deadline.h"
#include "base/defect.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/backup/backup_run.h"
#include "control/backup/manifest_check.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {
// What comes without a change of a document: the end of a node's grace, a stall.
constexpr int64_t kTickMs = 500;
constexpr int64_t kLookRetryMs = 100;
constexpr int64_t kSaveNs = 250'000'000;
constexpr int64_t kTargetCallMs = 30'000;
constexpr int64_t kTargetRetryMs = 200;
constexpr int64_t kLookMs = 2'000;
// Documents of parts that the head's commit has room for, beside kReportsInCommit.
constexpr size_t kPartsWithHead = 48;
}  // namespace

bool BackupRun::sends(uint32_t node) const {
  for (const SlotPlan& slot : plan_.slots) {
    for (const PlanCopy& copy : plan_.senders_of(slot)) {
      if (copy.node == node) return true;
    }
  }
  return false;
}

// What nodes did before this coordinator came. They report to it from now on.
absl::Status BackupRun::load_documents() {
  if (loaded_) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(auto stored, load_progress(*context_.block, uuid_));
  table_.add_stored(std::move(stored));
  loaded_ = true;
  return absl::OkStatus();
}

void BackupRun::note_movement(const Progresses& progress) {
  std::vector<uint64_t> seen;
  uint64_t done = 0;
  for (const auto& [name, node] : progress) {
    for (const uint64_t number :
         {node.sent_slots, node.done_slots, node.received_bytes,
          static_cast<uint64_t>(node.source_state), static_cast<uint64_t>(node.target_state)}) {
      seen.push_back(number);
    }
    done += node.received_bytes;
  }
  if (seen == last_seen_) return;
  last_seen_ = std::move(seen);
  last_change_ns_ = context_.clock->monotonic_ns();
  if (done != bytes_done_) {
    bytes_done_ = done;
    publish({});
  }
}

// The head's commits store reports, too: this is for the time between them.
absl::Status BackupRun::save_progress() {
  const int64_t now = context_.clock->monotonic_ns();
  if (now - saved_ns_ < kSaveNs || !table_.has_unstored()) return absl::OkStatus();
  while (table_.has_unstored()) {
    const std::vector<ClusterOp> reports = table_.take_unstored(kReportsInCommit);
    if (absl::Status status = job_->commit(reports); !status.ok()) {
      table_.give_back(reports);
      return status;
    }
  }
  saved_ns_ = context_.clock->monotonic_ns();
  return absl::OkStatus();
}

BackupState BackupRun::reached(const Progresses& progress) const {
  bool copied = true, consolidated = true, sent = true;
  for (const uint32_t target : plan_.targets) {
    const auto found = progress.find(plan_.nodes[target].name);
    const BackupState state =
        found == progress.end() ? BackupState::kPlanning : found->second.target_state;
    consolidated = consolidated && state == BackupState::kConsolidated;
    copied =
        copied && (state == BackupState::kConsolidated || state == BackupState::kCopyCompleted);
  }
  for (uint32_t node = 0; node < plan_.nodes.size(); ++node) {
    if (!sends(node)) continue;
    const auto found = progress.find(plan_.nodes[node].name);
    sent = sent && found != progress.end() && found->second.source_state == BackupState::kSent;
  }
  // What is durable at all targets was sent, whatever became of its sources since.
  return consolidated ? BackupState::kConsolidated
         : copied     ? BackupState::kCopyCompleted
         : sent       ? BackupState::kSent
                      : BackupState::kEnabled;
}

absl::Status BackupRun::advance(const Progresses& progress) {
  const BackupState there = reached(progress);
  // The head says consolidated only once the parts have been collected.
  while (head_.state < there && head_.state < BackupState::kCopyCompleted) {
    BackupHead head = head_;
    head.state =
        head.state == BackupState::kEnabled ? BackupState::kSent : BackupState::kCopyCompleted;
    SLUICE_RETURN_IF_ERROR(store(head, {}));
  }
  return absl::OkStatus();
}

// Without those whose copies are durable at their targets: a plan keeps the senders of such slots.
// They are asked after again in time, as a target may lose what it had.
std::set<std::string> BackupRun::still_needed(const std::set<std::string>& gone) {
  const int64_t now = context_.clock->monotonic_ns();
  std::set<std::string> needed;
  std::set<uint32_t> unsure;
  for (const uint32_t node : plan_nodes(gone)) {
    const std::string& name = plan_.nodes[node].name;
    const auto spared = spared_until_ns_.find(name);
    if (std::find(plan_.targets.begin(), plan_.targets.end(), node) != plan_.targets.end()) {
      needed.insert(name);
    } else if (spared == spared_until_ns_.end() || spared->second <= now) {
      unsure.insert(node);
    }
  }
  if (unsure.empty()) return needed;
  const DurableSlots durable = durable_slots(kLookMs, needed);
  // Who only has not said it yet is asked again.
  if (!durable.all_have_said) return needed;
  for (size_t i = 0; i < plan_.slots.size(); ++i) {
    if (durable.done[i] != 0) continue;
    for (const PlanCopy& copy : plan_.senders_of(plan_.slots[i])) {
      if (unsure.erase(copy.node) > 0) needed.insert(plan_.nodes[copy.node].name);
    }
  }
  for (const uint32_t node : unsure) {
    spared_until_ns_[plan_.nodes[node].name] = now + options_.grace_ms * 1'000'000;
  }
  return needed;
}

absl::Status BackupRun::handle_errors(const Progresses& progress) {
  std::set<std::string> lost_sources;
  for (const auto& [node, said] : progress) {
    if (said.target_state == BackupState::kFailed)
      return failed_precondition("{}: {}", node, said.error);
    if (said.source_state == BackupState::kFailed) lost_sources.insert(node);
  }
  if (head_.state == BackupState::kConsolidated) return absl::OkStatus();
  lost_sources = still_needed(lost_sources);
  if (lost_sources.empty()) return absl::OkStatus();
  const std::string& first = *lost_sources.begin();
  return replan_without(lost_sources,
                        fmt::format("planned without {}: {}", first, progress.at(first).error));
}

absl::Status BackupRun::handle_deaths(const Progresses& progress) {
  const auto snapshot = context_.directory->snapshot();
  const int64_t now = context_.clock->monotonic_ns();
  std::set<std::string> dead;
  for (uint32_t i = 0; i < plan_.nodes.size(); ++i) {
    const std::string& node = plan_.nodes[i].name;
    const auto said = progress.find(node);
    const bool target =
        std::find(plan_.targets.begin(), plan_.targets.end(), i) != plan_.targets.end();
    const bool sent = said != progress.end() && said->second.source_state == BackupState::kSent;
    if (snapshot->live(node) || (!target && (sent || !sends(i)))) {
      down_since_ns_.erase(node);
      continue;
    }
    const auto [since, fresh] = down_since_ns_.emplace(node, now);
    if (fresh) publish(fmt::format("{} is down", node));
    if (now - since->second > options_.grace_ms * 1'000'000) dead.insert(node);
  }
  dead = still_needed(dead);
  if (dead.empty()) return absl::OkStatus();
  return replan_without(dead, fmt::format("planned without {}, which is down", *dead.begin()));
}

// Of what the plan had to do when its nodes began.
double BackupRun::done_share(const Progresses& progress) const {
  uint64_t done = 0;
  for (const auto& [name, node] : progress) done += node.done_slots;
  const auto before = static_cast<uint64_t>(std::count_if(
      done_before_.begin(), done_before_.end(), [](uint8_t is_done) { return is_done != 0; }));
  const uint64_t all = plan_.slots.size() - before;
  return all == 0 || done <= before ? 0
                                    : static_cast<double>(done - before) / static_cast<double>(all);
}

// What is left is planned again where a node takes much longer than the plan thought. A plan that
// another coordinator made is measured from now on.
absl::Status BackupRun::handle_slow_nodes(const Progresses& progress) {
  if (head_.state != BackupState::kEnabled) return absl::OkStatus();
  // Who is down is not slow: it comes back, or is planned without.
  if (std::any_of(down_since_ns_.begin(), down_since_ns_.end(),
                  [&](const auto& each) { return !spared_until_ns_.contains(each.first); })) {
    return absl::OkStatus();
  }
  const double now = now_s();
  const bool begins = !rebalances_.has_begun();
  if (!begins && !rebalances_.is_due(now, done_share(progress))) return absl::OkStatus();
  DurableSlots durable = durable_slots(kLookMs);
  if (!durable.all_have_said) return absl::OkStatus();
  if (begins) {
    done_before_ = std::move(durable.done);
    rebalances_.begin(now);
    return absl::OkStatus();
  }
  auto next = rebalance(plan_, plan_progress(durable.done), {}, plan_targets(plan_, {}),
                        context_.cluster().read_quorum());
  if (!next.ok()) return next.status();
  if (!rebalances_.accept(*next, now)) return absl::OkStatus();
  std::string message = fmt::format(
      "{} is late ({} such nodes): {} slots go other ways, {:.0f} s are left instead of {:.0f}",
      plan_.nodes[next->late.front()].name, next->late.size(), next->replan.changed.size(),
      next->replan.plan.makespan_s, next->seconds_as_planned);
  return follow_replan(std::move(next->replan.plan), std::move(durable.done), std::move(message));
}

absl::Status BackupRun::look(Progresses* progress) {
  // Another node changes it to cancel the backup.
  SLUICE_RETURN_IF_ERROR(job_->check_unchanged());
  SLUICE_RETURN_IF_ERROR(load_documents());
  *progress = table_.of_attempt(head_.attempt);
  note_movement(*progress);
  SLUICE_RETURN_IF_ERROR(advance(*progress));
  return save_progress();
}

absl::StatusOr<std::vector<WatchHandle>> BackupRun::watch_documents() {
  std::vector<WatchHandle> watches;
  // The head, which others change to cancel or delete it; nodes that go.
  for (const std::string& prefix : {backup_head_key(uuid_), std::string(kLivePrefix)}) {
    SLUICE_ASSIGN_OR_RETURN(WatchHandle watch, job_->watch(prefix));
    watches.push_back(std::move(watch));
  }
  return watches;
}

absl::Status BackupRun::follow() {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<WatchHandle> watches, watch_documents());
  saved_ns_ = context_.clock->monotonic_ns();
  bool reported = false;
  while (true) {
    SLUICE_RETURN_IF_ERROR(job_->stop_status());
    Progresses progress;
    const absl::Status looked = look(&progress);
    // The lock shows whether this node still coordinates; the nodes go on meanwhile.
    if (is_transient(looked)) {
      if (!reported) {
        spdlog::warn("backup {}: looking again: {}", head_.name, message_of(looked));
      }
      reported = true;
    } else {
      SLUICE_RETURN_IF_ERROR(looked);
      reported = false;
      if (reached(progress) == BackupState::kConsolidated) return absl::OkStatus();
      const uint64_t attempt = head_.attempt;
      SLUICE_RETURN_IF_ERROR(handle_errors(progress));
      // Once all parts are durable there is nothing left to plan: who is away comes back, or the
      // backup fails and is resumed without it.
      if (head_.attempt == attempt && head_.state != BackupState::kConsolidated) {
        SLUICE_RETURN_IF_ERROR(handle_deaths(progress));
      }
      if (head_.attempt == attempt) SLUICE_RETURN_IF_ERROR(handle_slow_nodes(progress));
    }
    if (context_.clock->monotonic_ns() - last_change_ns_ > options_.stall_ms * 1'000'000) {
      return deadline_exceeded("no node made progress for {} s", options_.stall_ms / 1000);
    }
    job_->wait(looked.ok() ? kTickMs : kLookRetryMs);
  }
}

std::vector<absl::Status> BackupRun::call_targets(
    const std::function<grpc::Status(size_t, PeerNode&, grpc::ClientContext&)>& once) {
  std::vector<absl::Status> statuses(plan_.targets.size());
  parallel_for(plan_.targets.size(), [&](size_t i) {
    Deadline deadline(*context_.clock, options_.grace_ms);
    const std::string& node = plan_.nodes[plan_.targets[i]].name;
    do {
      const auto peer = context_.peers->find(node);
      if (!peer.ok()) {
        statuses[i] = peer.status();
        return;
      }
      grpc::ClientContext call;
      set_timeout(call, kTargetCallMs);
      const grpc::Status status = once(i, **peer, call);
      (*peer)->note(status);
      statuses[i] = from_peer(status, node);
      if (status.ok()) return;
    } while (!stopped() && deadline.pause(kTargetRetryMs));
  });
  return statuses;
}

absl::StatusOr<Manifest> BackupRun::collect_parts() {
  v1::BackupReference request;
  request.set_backup(uuid_);
  request.set_attempt(head_.attempt);
  std::vector<v1::PartReply> replies(plan_.targets.size());
  const std::vector<absl::Status> statuses =
      call_targets([&](size_t i, PeerNode& node, grpc::ClientContext& call) {
        return node.peer().FetchPart(&call, request, &replies[i]);
      });
  Manifest manifest;
  manifest.identity = {context_.cluster().uuid, head_.uuid, head_.name,
                       head_.slot_bits,         head_.cut,  head_.epoch};
  manifest.trees = archived_trees(trees_);
  archives_.clear();
  for (size_t i = 0; i < replies.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(statuses[i]);
    SLUICE_ASSIGN_OR_RETURN(PartManifest part, PartManifest::decode(replies[i].part()));
    uint64_t stored_bytes = 0;
    for (const SegmentSummary& segment : part.segments) {
      stored_bytes += segment.bytes + segment.index_bytes;
    }
    archives_.push_back({part.node, replies[i].folder(), stored_bytes});
    manifest.newest_stamp = std::max<uint64_t>(manifest.newest_stamp, replies[i].newest_stamp());
    manifest.parts.push_back(std::move(part));
  }
  return manifest;
}

absl::Status BackupRun::commit_everywhere(const Manifest& manifest) {
  v1::CommitRequest request;
  request.set_backup(uuid_);
  request.set_attempt(head_.attempt);
  request.set_manifest(manifest.encode());
  std::vector<v1::CommitReply> replies(plan_.targets.size());
  const std::vector<absl::Status> statuses =
      call_targets([&](size_t i, PeerNode& node, grpc::ClientContext& call) {
        return node.peer().CommitArchive(&call, request, &replies[i]);
      });
  bool moved = false;
  for (size_t i = 0; i < statuses.size(); ++i) {
    if (statuses[i].ok() && defect(Defect::kOneManifestIsEnough)) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(statuses[i]);
    moved = moved || archives_[i].path != replies[i].folder();
    archives_[i].path = replies[i].folder();
  }
  if (!moved) return absl::OkStatus();
  // A target came back meanwhile, with another archive directory that has the same part.
  SLUICE_ASSIGN_OR_RETURN(const auto parts, part_changes(*context_.block, uuid_, archives_));
  return job_->commit(parts);
}

void BackupRun::add_progress_totals(BackupTotals* totals) {
  totals->wire_bytes = 0;
  totals->local_bytes = 0;
  totals->repeated_bytes = 0;
  totals->dropped_bytes = 0;
  totals->divergence = {};
  stages_.clear();
  for (const auto& [name, node] : table_.all()) {
    totals->wire_bytes += node.sent_bytes;
    totals->local_bytes += node.local_bytes;
    totals->repeated_bytes += node.repeated_bytes;
    totals->dropped_bytes += node.dropped_bytes;
    totals->divergence += node.divergence;
    stages_.insert(stages_.end(), node.stages.begin(), node.stages.end());
    for (const std::string& sent : node.trees) {
      v1::BackupTree tree;
      if (!tree.ParseFromString(sent)) continue;
      for (v1::BackupTree& planned : trees_) {
        if (planned.number() == tree.number() && planned.node() == name) planned = tree;
      }
    }
  }
}

// Taking the cut moved the nodes' clocks to its stamp. Wall clocks have passed it by now, but for
// very short backups: one after the other, these would move the clocks ever further ahead.
absl::Status BackupRun::wait_for_wall_clocks() {
  for (;;) {
    SLUICE_RETURN_IF_ERROR(job_->stop_status());
    const int64_t left_ms = (cut_due_ns_ - context_.clock->monotonic_ns()) / 1'000'000;
    if (left_ms <= 0) return absl::OkStatus();
    job_->wait(left_ms);
  }
}

absl::Status BackupRun::finish() {
  SLUICE_ASSIGN_OR_RETURN(const Manifest manifest, collect_parts());
  SLUICE_RETURN_IF_ERROR(check_manifest(plan_, manifest));
  SLUICE_ASSIGN_OR_RETURN(auto parts, part_changes(*context_.block, uuid_, archives_));
  BackupHead head = head_;
  if (head.state == BackupState::kConsolidated || parts.size() > kPartsWithHead) {
    SLUICE_RETURN_IF_ERROR(job_->commit(parts));
    parts.clear();
  }
  if (head.state != BackupState::kConsolidated) {
    head.state = BackupState::kConsolidated;
    head.parts = static_cast<uint32_t>(archives_.size());
    SLUICE_RETURN_IF_ERROR(store(head, "all parts are durable", std::move(parts)));
  }
  SLUICE_RETURN_IF_ERROR(job_->stop_status());
  SLUICE_RETURN_IF_ERROR(job_->hold());
  SLUICE_RETURN_IF_ERROR(commit_everywhere(manifest));
  SLUICE_RETURN_IF_ERROR(wait_for_wall_clocks());
  head = head_;
  add_progress_totals(&head.totals);
  head.totals.records = manifest.records();
  head.totals.bytes = manifest.bytes();
  head.manifest_digest = xxh3_128(manifest.encode());
  head.state = BackupState::kCompleted;
  std::vector<ClusterOp> last = {stages_put(uuid_, stages_)};
  if (!trees_.empty()) last.push_back(trees_put(uuid_, trees_));
  return store_last(head,
                    fmt::format("{} records, {} bytes", head.totals.records, head.totals.bytes),
                    std::move(last));
}

}  // namespace sluice

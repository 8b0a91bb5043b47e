// The part of BackupRun that cuts and plans.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/deadline.h"
#include "base/defect.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/backup/backup_run.h"
#include "control/backup/cut_round.h"
#include "control/peers/rpc.h"
#include "control/schedule/replan.h"

namespace sluice {

namespace {

constexpr int64_t kReadableMs = 10'000;
constexpr int64_t kLeastCallMs = 500;
constexpr int64_t kDurableSlotsRetryMs = 200;
constexpr double kMib = 1 << 20;
// Operators' weights say how nodes compare; the plan's times need a rate.
constexpr double kRateOfExplicitWeight = 100.0 * kMib;

// Bytes a second that a weight of 1 stands for. Beside a measured weight, which is in MiB a second,
// an operator's is too.
double unit_of(const std::vector<Member>& members) {
  const bool all_explicit = std::all_of(members.begin(), members.end(), [](const Member& member) {
    return member.info.weight_explicit;
  });
  return all_explicit ? kRateOfExplicitWeight : kMib;
}

// A node's measured rate for what it does, or what its weight stands for where there is none or an
// operator knows better. Its limit holds either way.
double rate_of(const NodeInfo& node, double measured, double unit) {
  double rate = std::max(node.weight, 1e-6) * unit;
  if (!node.weight_explicit && measured > 0) rate = measured;
  return node.rates.limit > 0 ? std::min(rate, node.rates.limit) : rate;
}

PlanNode plan_node(const NodeInfo& node, double unit) {
  return {node.name, rate_of(node, send_rate(node.rates), unit),
          rate_of(node, receive_rate(node.rates), unit)};
}

// Targets share by what they can take; where an operator says how nodes compare, by that.
double target_weight(const NodeInfo& node, double unit) {
  return node.weight_explicit ? node.weight * unit : plan_node(node, unit).receive_rate;
}

}  // namespace

// A target that went down since the backup was asked for is left out, as long as there is another.
absl::StatusOr<std::vector<std::string>> BackupRun::live_targets() {
  const auto snapshot = context_.directory->snapshot();
  if (targets_.empty()) return snapshot->live_names();
  std::vector<std::string> live;
  for (const std::string& target : targets_) {
    if (snapshot->live(target)) {
      live.push_back(target);
    } else {
      publish(fmt::format("target {} is down: planned without it", target));
    }
  }
  if (live.empty()) return unavailable("no target is live ({})", fmt::join(targets_, ", "));
  return live;
}

absl::Status BackupRun::plan_backup() {
  BackupHead head = head_;
  if (resumed_) {
    SLUICE_ASSIGN_OR_RETURN(targets_, load_targets(*context_.block, uuid_));
    SLUICE_ASSIGN_OR_RETURN(sources_, load_sources(*context_.block, uuid_));
  }
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> targets, live_targets());
  if (resumed_) {
    // An earlier coordinator may have left cuts and archive parts of another T, also where
    // its head does not know that T yet, and counts of it.
    SLUICE_RETURN_IF_ERROR(job_->hold());
    drop_backup(context_, uuid_, head.attempt);
    SLUICE_ASSIGN_OR_RETURN(const auto erasures, progress_erasures(*context_.block, uuid_));
    SLUICE_RETURN_IF_ERROR(job_->commit(erasures));
  }
  // Before the cut, as it takes as long as reading their directories does.
  SLUICE_ASSIGN_OR_RETURN(const std::vector<FoundTree> found,
                          look_at_trees(
                              context_, uuid_, head.attempt, sources_, [this] { return stopped(); },
                              [this](std::string message) { publish(std::move(message)); }));
  std::map<std::string_view, std::vector<const FoundTree*>> trees_of;
  trees_.clear();
  for (const FoundTree& tree : found) {
    trees_.push_back(tree.tree);
    trees_of[tree.tree.node()].push_back(&tree);
  }
  CutRoundOptions options;
  options.first_margin_ms = options_.cut_margin_ms;
  options.attempt = head.attempt;
  options.stop = [this] { return stopped(); };
  options.proceed = [this] { return job_->hold(); };
  SLUICE_ASSIGN_OR_RETURN(CutRound round, take_cut(context_, uuid_, options));
  SLUICE_RETURN_IF_ERROR(job_->stop_status());
  cut_due_ns_ = round.due_ns;
  const auto snapshot = context_.directory->snapshot();
  if (snapshot->epoch() != round.epoch) {
    return aborted("the distribution table changed while the cut was taken");
  }
  PlanInput input;
  input.quorum = defect(Defect::kOneDigestIsEnough) ? 1 : context_.cluster().read_quorum();
  input.table = snapshot->table.get();
  input.records = sources_.records;
  const double unit = unit_of(snapshot->members);
  for (const Member& member : snapshot->members) {
    const std::string& name = member.info.name;
    const auto published = round.digests.find(name);
    const bool target = std::find(targets.begin(), targets.end(), name) != targets.end();
    const auto trees = trees_of.find(name);
    if (published == round.digests.end() && !target && trees == trees_of.end()) continue;
    const auto index = static_cast<uint32_t>(input.nodes.size());
    input.nodes.push_back(plan_node(member.info, unit));
    if (target) input.targets.push_back({index, target_weight(member.info, unit)});
    if (trees != trees_of.end()) {
      for (const FoundTree* tree : trees->second) {
        for (PublishedTreeSlot slot : tree->slots) {
          slot.node = index;
          input.trees.push_back(slot);
        }
      }
    }
    if (published == round.digests.end()) continue;
    const int in_table = snapshot->table->find_member(name);
    for (uint32_t slot = 0; in_table >= 0 && slot < snapshot->table->slots(); ++slot) {
      if (!snapshot->table->holds(slot, static_cast<uint32_t>(in_table))) continue;
      input.published.push_back({slot, index, published->second[slot]});
    }
  }
  SLUICE_ASSIGN_OR_RETURN(plan_, make_plan(input));
  if (!dry_run_) SLUICE_RETURN_IF_ERROR(store_trees());
  head.cut = round.cut;
  head.epoch = round.epoch;
  head.error.clear();
  for (const auto& [node, reason] : round.unread) {
    publish(fmt::format("copies of {} are not read: it {}", node, reason));
  }
  SLUICE_RETURN_IF_ERROR(make_backup_plan(&head));
  done_before_.clear();
  rebalances_.begin(now_s());
  return absl::OkStatus();
}

absl::Status BackupRun::make_backup_plan(BackupHead* head) {
  take_totals(head);
  if (dry_run_) return store(*head, "planned only");
  offer_plan(head->attempt, head->attempt);
  PlanChunks chunks = cut_plan(uuid_, head->attempt, plan_);
  for (ClusterOp& chunk : chunks.before_head) {
    SLUICE_RETURN_IF_ERROR(job_->commit({std::move(chunk)}));
  }
  head->plan_chunks = chunks.count;
  head->plan_attempt = head->attempt;
  head->state = BackupState::kEnabled;
  return store(*head,
               fmt::format("{} slots agreed, {} divergent, {} bytes to send", plan_.slots_agreed,
                           plan_.slots_divergent, plan_.total_bytes()),
               std::move(chunks.with_head));
}

absl::Status BackupRun::store_trees() {
  if (trees_.empty()) return absl::OkStatus();
  return job_->commit({trees_put(uuid_, trees_)});
}

void BackupRun::take_totals(BackupHead* head) const {
  head->makespan_s = plan_.makespan_s;
  head->lower_bound_s = plan_.lower_bound_s;
  head->totals.slots = context_.cluster().slots();
  // A slot without records is the same everywhere.
  head->totals.slots_agreed = plan_.slots_agreed - plan_.slots_of_trees() + plan_.slots_empty;
  head->totals.slots_divergent = plan_.slots_divergent;
  head->totals.slots_empty = plan_.slots_empty;
  head->totals.records = head->totals.bytes = 0;
  for (const SlotPlan& slot : plan_.slots) {
    if (tree_number_of(slot.slot) != 0) continue;
    head->totals.records += slot.expected.records;
    head->totals.bytes += slot.expected.bytes;
  }
}

std::vector<PlanTarget> BackupRun::plan_targets(const Plan& plan,
                                                const std::set<std::string>& without) const {
  const auto snapshot = context_.directory->snapshot();
  const double unit = unit_of(snapshot->members);
  std::vector<PlanTarget> targets;
  for (const uint32_t node : plan.targets) {
    if (without.contains(plan.nodes[node].name)) continue;
    const Member* member = snapshot->find(plan.nodes[node].name);
    targets.push_back({node, member == nullptr ? unit : target_weight(member->info, unit)});
  }
  return targets;
}

BackupRun::DurableSlots BackupRun::durable_slots(int64_t patience_ms,
                                                 const std::set<std::string>& without) const {
  std::vector<std::set<uint32_t>> durable(plan_.nodes.size());
  std::atomic<bool> all_have_said{true};
  parallel_for(plan_.targets.size(), [&](size_t i) {
    Deadline deadline(*context_.clock, patience_ms);
    const uint32_t node = plan_.targets[i];
    const std::string& name = plan_.nodes[node].name;
    const auto peer = context_.peers->find(name);
    bool has_said = without.contains(name);
    // One that has not opened its part yet is asked again: its slots would be sent once more.
    while (!has_said && peer.ok() && context_.directory->snapshot()->live(name)) {
      grpc::ClientContext call;
      set_timeout(call, std::max(deadline.left_ms(), kLeastCallMs));
      v1::BackupReference request;
      request.set_backup(uuid_);
      request.set_attempt(head_.attempt);
      v1::SlotList reply;
      const grpc::Status status = (*peer)->peer().DurableSlots(&call, request, &reply);
      (*peer)->note(status);
      has_said = status.ok();
      if (status.ok()) durable[node].insert(reply.slots().begin(), reply.slots().end());
      // A failed backup has no roles that could open it.
      if (head_.state == BackupState::kFailed || !is_transient(from_grpc(status))) break;
      if (stopped() || !deadline.pause(kDurableSlotsRetryMs)) break;
    }
    if (!has_said) all_have_said = false;
  });
  DurableSlots result;
  result.all_have_said = all_have_said;
  for (const SlotPlan& slot : plan_.slots) {
    result.done.push_back(durable[slot.target].contains(slot.slot));
  }
  return result;
}

std::vector<uint32_t> BackupRun::plan_nodes(const std::set<std::string>& names) const {
  std::vector<uint32_t> nodes;
  for (const std::string& name : names) {
    if (const int node = plan_.find_node(name); node >= 0) {
      nodes.push_back(static_cast<uint32_t>(node));
    }
  }
  return nodes;
}

PlanProgress BackupRun::plan_progress(const std::vector<uint8_t>& done) const {
  const double seconds = rebalances_.has_begun() ? rebalances_.seconds_since(now_s()) : 0;
  return {done_before_, done, seconds};
}

absl::Status BackupRun::replan_without(const std::set<std::string>& dead, std::string message) {
  if (++replans_ > options_.max_replans) {
    return unavailable("replanned {} times already; {}", options_.max_replans, message);
  }
  const std::vector<uint32_t> nodes = plan_nodes(dead);
  DurableSlots durable = durable_slots(options_.grace_ms, dead);
  const std::vector<PlanTarget> targets = plan_targets(plan_, dead);
  const uint32_t quorum = context_.cluster().read_quorum();
  absl::StatusOr<Plan> next;
  if (durable.all_have_said) {
    auto rebalanced = rebalance(plan_, plan_progress(durable.done), nodes, targets, quorum);
    if (!rebalanced.ok()) return with_context(rebalanced.status(), message);
    next = std::move(rebalanced->replan.plan);
  } else {
    // Who has not said what it has is not taken for slow: its slots stay with it.
    auto without_dead = replan(plan_, durable.done, nodes, targets, quorum);
    if (!without_dead.ok()) return with_context(without_dead.status(), message);
    next = std::move(without_dead->plan);
  }
  for (size_t i = 0; i < durable.done.size(); ++i) {
    if (dead.contains(plan_.nodes[plan_.slots[i].target].name))
      durable.done[i] = defect(Defect::kDeadTargetIsDone);
  }
  return follow_replan(*std::move(next), std::move(durable.done), std::move(message));
}

// `done`: what is durable at its target in the new plan.
absl::Status BackupRun::follow_replan(Plan plan, std::vector<uint8_t> done, std::string message) {
  plan_ = std::move(plan);
  BackupHead head = head_;
  head.attempt = next_attempt();
  spdlog::info("backup {}: {}", head.name, message);
  publish(std::move(message));
  down_since_ns_.clear();
  SLUICE_RETURN_IF_ERROR(make_backup_plan(&head));
  done_before_ = std::move(done);
  rebalances_.begin(now_s());
  return absl::OkStatus();
}

// Nodes whose cuts the plan reads.
std::vector<std::string> BackupRun::plan_sources() const {
  std::vector<uint8_t> reads(plan_.nodes.size());
  for (const PlanCopy& copy : plan_.copies) reads[copy.node] = 1;
  std::vector<std::string> sources;
  for (size_t node = 0; node < reads.size(); ++node) {
    if (reads[node] != 0) sources.push_back(plan_.nodes[node].name);
  }
  return sources;
}

std::set<std::string> BackupRun::dead_targets() const {
  const auto snapshot = context_.directory->snapshot();
  std::set<std::string> dead;
  for (const uint32_t target : plan_.targets) {
    const std::string& name = plan_.nodes[target].name;
    if (!snapshot->live(name)) dead.insert(name);
  }
  return dead;
}

// A failed backup goes on with its plan where its cuts are still there, without the nodes that are
// not; otherwise from the beginning.
absl::Status BackupRun::resume_plan() {
  BackupHead head = head_;
  head.attempt = next_attempt();
  head.error.clear();
  auto plan = head.plan_chunks > 0 ? load_plan(*context_.block, head)
                                   : absl::StatusOr<Plan>(failed_precondition("it has no plan"));
  absl::Status possible = plan.status();
  if (possible.ok()) {
    plan_ = *std::move(plan);
    SLUICE_ASSIGN_OR_RETURN(trees_, load_trees(*context_.block, uuid_));
    const std::vector<std::string> sources = plan_sources();
    std::set<std::string> dead;
    Mutex mutex;
    parallel_for(sources.size(), [&](size_t i) {
      const auto peer = context_.peers->find(sources[i]);
      grpc::ClientContext call;
      set_timeout(call, kReadableMs);
      v1::CutDigestsRequest request;
      request.set_backup(uuid_);
      request.set_attempt(head_.attempt);
      v1::CutDigestsReply reply;
      const grpc::Status status = peer.ok()
                                      ? (*peer)->peer().CutDigests(&call, request, &reply)
                                      : grpc::Status(grpc::StatusCode::NOT_FOUND, "no member");
      if (status.ok() && reply.taken() && reply.cut() == head.cut) return;
      const MutexLock lock(mutex);
      dead.insert(sources[i]);
    });
    dead.merge(dead_targets());
    if (dead.empty()) {
      head.state = BackupState::kEnabled;
      offer_plan(head.attempt, head.plan_attempt);
      return store(head, "resumed");
    }
    possible = replan_without(dead, "resumed without nodes that are away");
    if (possible.ok() || stopped()) return possible;
  }
  spdlog::info("backup {}: restarted: {}", head.name, message_of(possible));
  head.state = BackupState::kPlanning;
  return store(head, "restarted");
}

}  // namespace sluice

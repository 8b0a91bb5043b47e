#include "bench/simulation/simulation.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "base/random.h"
#include "base/status.h"
#include "bench/simulation/world.h"
#include "control/backup/documents.h"
#include "control/schedule/plan_parts.h"
#include "control/schedule/rebalance_policy.h"

namespace sluice {
namespace {

constexpr char kBackup[] = "00000000-0000-4000-8000-000000000000";
constexpr int kSteps = 400;         // of the promised time
constexpr double kMostSteps = 20;   // promised times
constexpr double kNoticeS = 3 + 6;  // a node's lease, and the coordinator's grace
constexpr int kMostReplans = 8;     // as BackupRunOptions
// Measured on one machine (docs/design/014-etcd.md, docs/performance.md): a commit, what each byte
// of it takes, and a unary call. Reads take what a connection moves in messages of a megabyte.
constexpr double kCommitS = 0.28e-3;
constexpr double kWrittenByteS = 6e-3 / (1 << 20);
constexpr double kReadByteS = 1 / 442e6;
constexpr double kCallS = 194e-6;
constexpr double kCallsAtATime = 8;
constexpr double kPlannedSlotS = 8e-6;  // planning, on one core
constexpr size_t kReportsInCommit = 64;

class Simulation {
 public:
  Simulation(const SimulationSettings& settings, const DistributionTable& table, PlanInput input)
      : settings_(settings), table_(table), input_(std::move(input)), policy_({}) {}

  absl::StatusOr<SimulationResult> run();

 private:
  std::vector<TrueRate> true_rates();
  std::vector<uint32_t> choose_dead();
  absl::Status coordinate();
  absl::Status replan_without_dead();
  absl::Status rebalance_if_worth();
  void follow(Plan plan, std::vector<uint8_t> done);
  void let_die();
  double received_share(const std::vector<uint32_t>& nodes) const;
  double rate_of_living() const;
  void count_plan(const Plan& plan);
  void count_reads(const Plan& plan);
  void count_reports();
  PlanProgress progress(const std::vector<uint8_t>& done) const {
    return {done_before_, done, policy_.seconds_since(world_->now())};
  }

  const SimulationSettings& settings_;
  const DistributionTable& table_;
  const PlanInput input_;
  RebalancePolicy policy_;
  SimulationResult result_;
  std::vector<TrueRate> rates_;
  std::vector<uint32_t> dead_;
  bool has_died_ = false;
  bool is_noticed_ = false;
  int replans_ = 0;
  std::unique_ptr<World> world_;
  std::vector<uint8_t> done_before_;
  std::vector<size_t> reads_;  // by node: bytes of the newest plan
};

std::vector<TrueRate> Simulation::true_rates() {
  std::vector<TrueRate> rates;
  for (const PlanNode& node : input_.nodes) rates.push_back({node.send_rate, node.receive_rate});
  std::vector<uint32_t> order(rates.size());
  for (uint32_t n = 0; n < order.size(); ++n) order[n] = n;
  Random random(Random::mix(settings_.cluster.seed + 1));
  random.shuffle(order);
  result_.slow = static_cast<uint32_t>(settings_.slow_share * static_cast<double>(order.size()));
  for (uint32_t i = 0; i < result_.slow; ++i) {
    rates[order[i]].send *= settings_.slow_rate;
    rates[order[i]].receive *= settings_.slow_rate;
  }
  return rates;
}

// Two replicas of one slot do not both die: nobody could complete a backup without a quorum of a
// divergent slot's.
std::vector<uint32_t> Simulation::choose_dead() {
  std::vector<uint32_t> dead;
  if (settings_.lose_rack) {
    for (uint32_t n = 0; n < table_.members().size(); ++n) {
      if (table_.members()[n].rack == table_.members()[0].rack) dead.push_back(n);
    }
    return dead;
  }
  const auto wanted = static_cast<size_t>(
      std::lround(settings_.dead_share * static_cast<double>(input_.nodes.size())));
  std::vector<std::vector<uint32_t>> slots_of(input_.nodes.size());
  for (uint32_t slot = 0; slot < table_.slots(); ++slot) {
    for (const uint16_t node : table_.replicas_of(slot)) slots_of[node].push_back(slot);
  }
  std::vector<uint8_t> is_hit(table_.slots());
  std::vector<uint32_t> order(input_.nodes.size());
  for (uint32_t n = 0; n < order.size(); ++n) order[n] = n;
  Random random(Random::mix(settings_.cluster.seed + 2));
  random.shuffle(order);
  for (const uint32_t node : order) {
    if (dead.size() == wanted) break;
    const auto hit = [&](uint32_t slot) { return is_hit[slot] != 0; };
    if (std::any_of(slots_of[node].begin(), slots_of[node].end(), hit)) continue;
    for (const uint32_t slot : slots_of[node]) is_hit[slot] = 1;
    dead.push_back(node);
  }
  return dead;
}

// What each node is told of the plan by its coordinator; of the block it reads the head.
void Simulation::count_reads(const Plan& plan) {
  const PlanParts parts(plan);
  reads_.clear();
  for (const PlanNode& node : input_.nodes) {
    size_t bytes = 0;
    for (const std::string& chunk : encode_plan(parts.part_of(node.name), kBackup, 1)) {
      bytes += chunk.size();
    }
    reads_.push_back(bytes);
    result_.node_reads_bytes = std::max(result_.node_reads_bytes, bytes);
    result_.plans_told_bytes += bytes;
  }
}

void Simulation::count_plan(const Plan& plan) {
  size_t bytes = 0;
  const std::vector<std::string> chunks = encode_plan(plan, kBackup, 1);
  for (const std::string& chunk : chunks) bytes += chunk.size();
  BackupHead head;
  head.uuid = kBackup;
  head.name = "nightly-2026-01-31";
  result_.plan_chunks = std::max(result_.plan_chunks, chunks.size());
  result_.plan_bytes = std::max(result_.plan_bytes, bytes);
  count_reads(plan);
  const std::string document = encode(head);
  const auto decoded = decode_backup_head(backup_head_key(head.uuid), document);
  if (!decoded.ok()) throw std::runtime_error(decoded.status().ToString());
  result_.head_bytes = std::max(result_.head_bytes, document.size());
  result_.coordinator_memory_bytes = std::max(
      result_.coordinator_memory_bytes,
      plan.slots.size() * sizeof(SlotPlan) + plan.copies.size() * sizeof(PlanCopy) +
          plan.nodes.size() * (sizeof(PlanNode) + sizeof(NodeLoad) + sizeof(NodeProgress)));
  result_.block_written_bytes += bytes + document.size();
  result_.block_commits += chunks.size() + 1;
  result_.block_read_bytes += plan.nodes.size() * document.size();
  ++result_.plans;
}

// Each node's report is stored with others, at each change of state: source and target, three each.
void Simulation::count_reports() {
  NodeProgress progress;
  progress.node = input_.nodes[0].name;
  progress.stages.resize(5);
  const uint64_t reports = 6 * input_.nodes.size() * result_.plans;
  result_.block_written_bytes += reports * encode(progress).size();
  result_.block_commits += reports / kReportsInCommit + 1;
}

// What it takes until nodes follow a plan: asking all targets what is durable, planning, storing
// the plan, and telling each node its part. Nodes are told one after the other, as fast as the
// coordinator answers; those that have not been told go on with what they know.
void Simulation::follow(Plan plan, std::vector<uint8_t> done) {
  count_plan(plan);
  const auto nodes = static_cast<double>(input_.nodes.size());
  const double stored_at =
      world_->now() + kCallS * nodes / kCallsAtATime +
      kPlannedSlotS * static_cast<double>(plan.slots.size()) +
      kCommitS * static_cast<double>(result_.plan_chunks) +
      kWrittenByteS * static_cast<double>(result_.plan_bytes + result_.head_bytes);
  std::vector<uint32_t> order(input_.nodes.size());
  for (uint32_t n = 0; n < order.size(); ++n) order[n] = n;
  Random random(Random::mix(result_.plans));
  random.shuffle(order);
  std::vector<double> from(order.size());
  double read_at = stored_at;
  for (const uint32_t node : order) {
    read_at += kCallS / kCallsAtATime + kReadByteS * static_cast<double>(reads_[node]);
    from[node] = read_at;
  }
  world_->follow(std::move(plan), std::move(from));
  done_before_ = std::move(done);
  policy_.begin(read_at);
}

absl::Status Simulation::replan_without_dead() {
  if (++replans_ > kMostReplans) return unavailable("replanned {} times already", kMostReplans);
  is_noticed_ = true;
  std::vector<uint8_t> done = world_->done();
  Plan plan;
  if (settings_.rebalances) {
    SLUICE_ASSIGN_OR_RETURN(Rebalance next, rebalance(world_->plan(), progress(done), dead_,
                                                      input_.targets, input_.quorum));
    plan = std::move(next.replan.plan);
  } else {
    SLUICE_ASSIGN_OR_RETURN(Replan next,
                            replan(world_->plan(), done, dead_, input_.targets, input_.quorum));
    plan = std::move(next.plan);
  }
  follow(std::move(plan), std::move(done));
  return absl::OkStatus();
}

absl::Status Simulation::rebalance_if_worth() {
  if (!settings_.rebalances || (has_died_ && !is_noticed_)) return absl::OkStatus();
  std::vector<uint8_t> done = world_->done();
  uint64_t to_do = 0;
  uint64_t now_done = 0;
  for (size_t i = 0; i < done.size(); ++i) {
    if (!done_before_.empty() && done_before_[i] != 0) continue;
    ++to_do;
    now_done += done[i];
  }
  const double share = to_do == 0 ? 0 : static_cast<double>(now_done) / static_cast<double>(to_do);
  if (!policy_.is_due(world_->now(), share)) return absl::OkStatus();
  std::vector<PlanTarget> living;
  for (const uint32_t node : world_->plan().targets) {
    living.push_back({node, table_.members()[node].weight});
  }
  SLUICE_ASSIGN_OR_RETURN(Rebalance next,
                          rebalance(world_->plan(), progress(done), {}, living, input_.quorum));
  if (!policy_.accept(next, world_->now())) return absl::OkStatus();
  ++result_.rebalances;
  follow(std::move(next.replan.plan), std::move(done));
  return absl::OkStatus();
}

double Simulation::rate_of_living() const {
  double rate = 0;
  for (uint32_t n = 0; n < rates_.size(); ++n) {
    const bool is_dead = std::find(dead_.begin(), dead_.end(), n) != dead_.end();
    if (!is_dead) rate += rates_[n].receive;
  }
  return rate;
}

void Simulation::let_die() {
  has_died_ = true;
  result_.death_s = world_->now();
  for (const uint32_t node : dead_) world_->kill(node);
  const std::vector<uint8_t> done = world_->done();
  double left = 0;
  for (size_t i = 0; i < done.size(); ++i) {
    if (done[i] == 0) left += static_cast<double>(world_->plan().bytes_of(world_->plan().slots[i]));
  }
  result_.ideal_rest_s = left / rate_of_living();
}

absl::Status Simulation::coordinate() {
  const double end = kMostSteps * result_.planned_s;
  for (uint64_t step = 0; !world_->is_finished(); ++step) {
    if (world_->now() > end) return deadline_exceeded("not finished after {} s", world_->now());
    world_->advance();
    if (!has_died_ && world_->now() >= result_.planned_s / 2) let_die();
    if (has_died_ && !is_noticed_ && world_->now() >= result_.death_s + kNoticeS) {
      SLUICE_RETURN_IF_ERROR(replan_without_dead());
    }
    if (step % 4 != 0) continue;
    SLUICE_RETURN_IF_ERROR(rebalance_if_worth());
    if (step % 8 == 0) {
      const std::vector<uint8_t> done = world_->done();
      const auto count = static_cast<double>(std::count(done.begin(), done.end(), 1));
      result_.done.emplace_back(world_->now(), count / static_cast<double>(done.size()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SimulationResult> Simulation::run() {
  SLUICE_ASSIGN_OR_RETURN(Plan plan, make_plan(input_));
  rates_ = true_rates();
  dead_ = choose_dead();
  result_.nodes = static_cast<uint32_t>(input_.nodes.size());
  result_.dead = static_cast<uint32_t>(dead_.size());
  result_.planned_s = plan.makespan_s;
  const auto total = static_cast<double>(plan.total_bytes());
  count_plan(plan);
  world_ = std::make_unique<World>(std::move(plan), rates_, result_.planned_s / kSteps);
  policy_.begin(0);
  SLUICE_RETURN_IF_ERROR(coordinate());
  result_.seconds = world_->now();
  result_.rest_s = result_.seconds - result_.death_s;
  result_.lost = world_->lost();
  double rate = 0;
  for (const TrueRate& node : rates_) rate += node.receive;
  const double living = rate_of_living();
  const double moved = std::min(total, rate * result_.death_s);
  result_.ideal_s = result_.death_s + (total - moved + moved * (1 - living / rate)) / living;
  for (const SlotPlan& slot : world_->plan().slots) {
    result_.needed_bytes += world_->plan().bytes_of(slot);
  }
  const World::Counts& counts = world_->counts();
  result_.sent_twice_bytes =
      counts.sent_bytes > result_.needed_bytes ? counts.sent_bytes - result_.needed_bytes : 0;
  result_.given_up_bytes = counts.given_up_bytes;
  result_.given_up_durable_bytes = counts.given_up_durable_bytes;
  result_.lost_with_targets_bytes = counts.lost_with_targets_bytes;
  result_.most_streams = counts.most_streams;
  count_reports();
  return std::move(result_);
}

}  // namespace

absl::StatusOr<SimulationResult> simulate(const SimulationSettings& settings) {
  SLUICE_ASSIGN_OR_RETURN(const DistributionTable table, table_of(settings.cluster));
  return Simulation(settings, table, input_of(settings.cluster, table, 0)).run();
}

}  // namespace sluice

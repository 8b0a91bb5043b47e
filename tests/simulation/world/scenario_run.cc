#include "tests/simulation/world/scenario_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "control/backup/backup_store.h"
#include "tests/simulation/world/faults.h"
#include "tests/simulation/world/oracle.h"
#include "tests/simulation/world/oracle_wire.h"
#include "tests/simulation/world/triggers.h"
#include "tests/simulation/world/workload.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {
namespace {

constexpr char kCluster[] = "a";
constexpr char kOther[] = "b";
constexpr int64_t kSettleMs = 5'000;
constexpr int64_t kEndMs = 1'800'000;
constexpr int kLastPuts = 6;

void sleep_until_ms(int64_t begin_ns, int64_t ms) {
  const int64_t wait_ns = begin_ns + ms * 1'000'000 - now_ns();
  if (wait_ns > 0) sleep_ms(wait_ns / 1'000'000);
}

// And for the coordinator of the last one, which has the lock until all cuts are dropped.
void wait_for_backups_to_end(World& world) {
  const auto all_ended = [&world] {
    const auto lock = world.block(kCluster).get(kBackupLockKey);
    require_ok(lock.status(), "the lock of backups");
    if (lock->has_value()) return false;
    const auto listed = list_backups(world.block(kCluster));
    require_ok(listed.status(), "listing backups");
    return std::all_of(listed->backups.begin(), listed->backups.end(),
                       [](const auto& stored) { return has_ended(stored.head.state); });
  };
  if (!wait_until(kEndMs, all_ended, 500)) fail("I8: a backup does not end");
}

// Everything works again, at once.
void check_all(World& world, Workload& workload, Oracle& oracle) {
  trace("the last checks");
  world.with_client(kCluster, [&](ClusterClient& client) {
    // Keys of many slots, so that each node is asked to write.
    for (int i = 0; i < kLastPuts; ++i) {
      const std::string key = fmt::format("last{}", i);
      size_t number = 0;
      const std::string value = oracle.history().begin(key, 0, &number);
      require_ok(client.put(key, value), "I8: the last put");
      oracle.history().acknowledged(number);
    }
    oracle.check_reads(client);
    require_ok(workload.back_up(client, "last"), "I8: the last backup");
    oracle.check_backups(client, "last");
    const auto outcome = client.restore(restore_of("last"), nullptr);
    require_ok(outcome.status(), "I8: the last restore");
    if (outcome->state != RestoreState::kCompleted) {
      fail(fmt::format("I8: the last restore: {} {}", name_of(outcome->state), outcome->reason));
    }
    oracle.check_reads(client);
  });
  oracle.check_heads();
}

// Each slot's digest is that of its records: a backup checks it.
void check_consistent(ClusterClient& client) {
  const auto backup =
      client.backup_create({.name = "own", .targets = {}, .dry_run = false}, nullptr);
  require_ok(backup.status(), "I8: the other cluster's backup");
  if (backup->state != BackupState::kCompleted) {
    fail(fmt::format("I8: the other cluster's backup: {} {}", name_of(backup->state),
                     backup->reason));
  }
}

void count(std::string_view name, uint64_t number) {
  output(fmt::format("count {} {}\n", name, number));
}

// Lives until the run ends: threads of its world go on until then.
class ScenarioRun {
 public:
  ScenarioRun(const Scenario& scenario, OpHook before)
      : scenario_(scenario),
        before_(std::move(before)),
        world_(Random::mix(scenario.seed)),
        clusters_(make_clusters()),
        oracle_(world_, kCluster, scenario.shape.replicas),
        other_oracle_(world_, kOther, scenario.other.replicas),
        wire_(world_),
        faults_(world_, scenario_, oracle_, clusters_[0]),
        other_faults_(world_, scenario_, other_oracle_, clusters_[1]),
        workload_(world_, scenario_, oracle_, kCluster, kOther),
        triggers_(world_, clusters_, [this](const Op& op) { happen(op); }) {}

  void run() {
    wire_.watch(kCluster, oracle_.history());
    if (scenario_.other.nodes > 0) wire_.watch(kOther, other_oracle_.history());
    // What peers can tell is known where no call fails.
    const bool all_arrive = scenario_.calls.lost + scenario_.calls.broken +
                                scenario_.calls.delayed + scenario_.calls.delayed_from_writers ==
                            0;
    wire_.joins().tells_all([this, all_arrive](const Host& peer) {
      return all_arrive && !world_.is_partitioned() && faults_.is_well(peer);
    });
    wire_.joins().tell_copies([this](const Host& copy) { faults_.copy_joins(copy); });
    workload_.set_other(other_oracle_);
    other_oracle_.restores_from(oracle_);
    live();
    triggers_.disarm();
    faults_.heal();
    other_faults_.heal();
    wait_until_all_serve();
    if (!workload_.finish(kEndMs)) {
      fail(fmt::format("I8: {}do not end\n{}", workload_.describe_remaining(), describe_threads()));
    }
    // Nodes that lost their leases, or were being stopped, come back; what is left behind ends.
    sleep_ms(kSettleMs);
    wait_until_all_serve();
    wait_for_backups_to_end(world_);
    check_all(world_, workload_, oracle_);
    if (scenario_.other.nodes > 0) check_other();
    other_faults_.stop_all();
    faults_.stop_all();
    for (Host& host : world_.all_hosts()) oracle_.check_stopped(host);
    count_all();
  }

 private:
  std::array<std::vector<Host*>, 2> make_clusters() {
    world_.make_cluster(kCluster, scenario_.shape);
    if (scenario_.other.nodes > 0) world_.make_cluster(kOther, scenario_.other);
    return {world_.hosts(kCluster), world_.hosts(kOther)};
  }

  void wait_until_all_serve() {
    faults_.wait_until_all_serve();
    other_faults_.wait_until_all_serve();
  }

  void check_other() {
    world_.with_client(kOther, [&](ClusterClient& client) {
      other_oracle_.check_reads(client);
      if (scenario_.other_writers > 0) check_consistent(client);
    });
  }

  void live() {
    faults_.begin();
    other_faults_.begin();
    workload_.start_writers();
    const int64_t begin_ns = now_ns();
    for (const Op& op : scenario_.ops) {
      sleep_until_ms(begin_ns, op.at_ms);
      if (op.trigger == Op::Trigger::kTime) {
        happen(op);
      } else {
        triggers_.arm(op);
      }
    }
    sleep_until_ms(begin_ns, scenario_.lasts_ms);
  }

  // May be on the thread of any process; waits for nothing.
  void happen(const Op& op) {
    if (before_) before_(op);
    if (!is_fault(op.kind)) {
      ++happened_[op.kind];
      at(now_ns(), [this, op] { workload_.start_operator(op); });
    } else if (op.kind == OpKind::kCrashClient || op.kind == OpKind::kCrashOperator) {
      ++happened_[op.kind];
      workload_.crash_client(op);
    } else {
      (op.cluster == 0 ? faults_ : other_faults_).strike(op);
    }
  }

  void count_all() {
    const History& history = oracle_.history();
    count("acknowledged", history.acknowledged_writes());
    count("unacknowledged", history.writes().size() - history.acknowledged_writes());
    count("backups-completed", workload_.backups_completed());
    count("backups-failed", workload_.backups_failed());
    count("restores-completed", workload_.restores_completed());
    for (const auto& [kind, times] : faults_.fired()) count(name_of(kind), times);
    for (const auto& [kind, times] : other_faults_.fired()) {
      count(fmt::format("other-{}", name_of(kind)), times);
    }
    for (const auto& [kind, times] : happened_) count(name_of(kind), times);
  }

  const Scenario scenario_;
  const OpHook before_;
  World world_;
  const std::array<std::vector<Host*>, 2> clusters_;
  Oracle oracle_;
  Oracle other_oracle_;
  WireOracle wire_;
  Faults faults_;
  Faults other_faults_;
  Workload workload_;
  Triggers triggers_;
  std::map<OpKind, uint64_t> happened_;
};

}  // namespace

void live_through(const Scenario& scenario, const OpHook& before) {
  (new ScenarioRun(scenario, before))->run();
}

Result run_scenario(const Scenario& scenario, bool print, const OpHook& before) {
  Options options;
  options.print_trace = print;
  options.preempted_steps = scenario.preempted_steps;
  return run(scenario.seed, options, [&] {
    trace_logs();
    live_through(scenario, before);
  });
}

}  // namespace sluice::simulation

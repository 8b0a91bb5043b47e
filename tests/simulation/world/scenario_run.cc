#include "tests/simulation/world/scenario_run.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/backup/backup_store.h"
#include "tests/simulation/world/faults.h"
#include "tests/simulation/world/oracle.h"
#include "tests/simulation/world/workload.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {
namespace {

constexpr char kCluster[] = "a";
constexpr char kOther[] = "b";
constexpr int64_t kSettleMs = 5'000;
constexpr int64_t kEndMs = 1'800'000;

void sleep_until_ms(int64_t begin_ns, int64_t ms) {
  const int64_t wait_ns = begin_ns + ms * 1'000'000 - now_ns();
  if (wait_ns > 0) sleep_ms(wait_ns / 1'000'000);
}

void wait_for_backups_to_end(World& world) {
  const auto all_ended = [&world] {
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
    size_t number = 0;
    const std::string value = oracle.history().begin("last", 0, &number);
    require_ok(client.put("last", value), "I8: the last put");
    oracle.history().acknowledged(number);
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

void count(std::string_view name, uint64_t number) {
  output(fmt::format("count {} {}\n", name, number));
}

void count_all(const Workload& workload, Oracle& oracle, const Faults& faults) {
  const History& history = oracle.history();
  count("acknowledged", history.acknowledged_writes());
  count("unacknowledged", history.writes().size() - history.acknowledged_writes());
  count("backups completed", workload.backups_completed());
  count("backups failed", workload.backups_failed());
  count("restores completed", workload.restores_completed());
  for (const auto& [kind, times] : faults.fired()) count(name_of(kind), times);
}

}  // namespace

void live_through(const Scenario& scenario) {
  auto& world = *new World(Random::mix(scenario.seed));
  world.make_cluster(kCluster, scenario.shape);
  if (scenario.other.nodes > 0) world.make_cluster(kOther, scenario.other);
  const int64_t begin_ns = now_ns();
  auto& oracle = *new Oracle(world, kCluster);
  auto& faults = *new Faults(world, scenario, world.hosts(kCluster));
  auto& workload = *new Workload(world, scenario, oracle, kCluster, kOther);
  faults.begin();
  workload.start_writers();
  for (const Op& op : scenario.ops) {
    sleep_until_ms(begin_ns, op.at_ms);
    is_fault(op.kind) ? faults.add(op) : workload.start_operator(op);
  }
  sleep_until_ms(begin_ns, scenario.lasts_ms);
  faults.heal();
  if (!workload.finish(kEndMs)) {
    fail(fmt::format("I8: {} do not end\n{}", workload.describe_remaining(), describe_threads()));
  }
  // Nodes that lost their leases, or were being stopped, come back; what is left behind ends.
  sleep_ms(kSettleMs);
  faults.wait_until_all_serve();
  wait_for_backups_to_end(world);
  check_all(world, workload, oracle);
  faults.stop_all();
  for (Host& host : world.all_hosts()) oracle.check_stopped(host);
  count_all(workload, oracle, faults);
}

Result run_scenario(const Scenario& scenario, bool print) {
  Options options;
  options.print_trace = print;
  return run(scenario.seed, options, [&] {
    trace_logs();
    live_through(scenario);
  });
}

}  // namespace sluice::simulation

#include "tests/simulation/world/scenario_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include "base/status.h"
#include "control/backup/backup_store.h"
#include "control/backup/documents.h"
#include "tests/simulation/world/archive_content.h"
#include "tests/simulation/world/history.h"

namespace sluice::simulation {
namespace {

constexpr char kCluster[] = "a";
constexpr char kOther[] = "b";
constexpr int64_t kServeMs = 120'000;
constexpr int64_t kSuperviseMs = 250;
constexpr int64_t kSettleMs = 5'000;
constexpr int64_t kEndMs = 1'800'000;
constexpr uint64_t kDiskBytes = uint64_t{1} << 40;
constexpr size_t kImported = 12;

// What an operation may answer while there are faults, none of them damage.
bool is_excusable(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return false;
    default:
      return true;
  }
}

// One that may be answered at any time.
void expect_excusable(const absl::Status& status, std::string_view what) {
  if (!status.ok() && !is_excusable(status)) {
    fail(fmt::format("I9: {}: {}", what, status.ToString()));
  }
}

void spawn(std::function<void()> body) { std::thread(std::move(body)).detach(); }

std::string backup_name(size_t number) { return fmt::format("backup{}", number); }

class ScenarioRun {
 public:
  explicit ScenarioRun(const Scenario& scenario)
      : scenario_(scenario), world_(Random::mix(scenario.seed)) {}

  void run();

 private:
  struct Armed {
    Op op;
    uint64_t left;
    bool fired = false;
  };
  struct HostState {
    bool down = false;  // to be left as it is until the time
    int64_t down_until_ns = 0;
    bool data_lost = false;
    bool disk_failed = false;  // writes of its process fail until the store is opened again
  };
  struct Backup {
    int64_t begin_ns;
    int64_t end_ns;
  };

  // --- Faults ---
  void watch_for_triggers();
  void count(Op::Trigger trigger, size_t host);
  void strike(const Op& op);
  void supervise();
  void hold_down(size_t host, int64_t ms);
  void heal();

  // --- Clients ---
  void start_writers();
  void write(ClusterClient& client, size_t writer);
  void put(ClusterClient& client, Random& random, const std::string& key);
  void erase(ClusterClient& client, const std::string& key);
  void get(ClusterClient& client, const std::string& key);
  void import(ClusterClient& client, Random& random);
  void operate(const Op& op, size_t number);
  void back_up(ClusterClient& client, const std::string& name);
  void restore(ClusterClient& client, const RestoreRequest& request);

  // --- At the end ---
  void check_reads(ClusterClient& client);
  void check_backup(ClusterClient& client, const BackupView& backup);
  void check_heads();
  void wait_until_all_serve();
  void stop_all();

  void tell(std::string_view what) {
    trace(fmt::format("{:.6f} s: {}", static_cast<double>(now_ns() - begin_ns_) / 1e9, what));
  }

  const Scenario scenario_;
  World world_;
  int64_t begin_ns_ = 0;
  History history_;
  std::vector<Host*> hosts_;  // of the cluster that is written to
  std::vector<HostState> states_;
  std::vector<std::unique_ptr<Armed>> armed_;
  std::vector<Process*> paused_;
  std::map<std::string, Backup> backups_;  // completed, by UUID: when they were asked for
  bool healed_ = false;
  bool stop_writers_ = false;
  bool stops_all_ = false;
  size_t writers_left_ = 0;
  size_t operators_left_ = 0;
  RunCounts counts_;
};

// --- Faults ---

void ScenarioRun::count(Op::Trigger trigger, size_t host) {
  for (const auto& armed : armed_) {
    if (armed->fired || armed->op.trigger != trigger || armed->op.host != host) continue;
    if (armed->left-- > 0) continue;
    armed->fired = true;
    strike(armed->op);
  }
}

void ScenarioRun::watch_for_triggers() {
  for (size_t i = 0; i < hosts_.size(); ++i) {
    hosts_[i]->mount().before = [this, i](FileCall call, std::string_view) {
      if (call == FileCall::kSync) count(Op::Trigger::kSync, i);
    };
  }
  world_.block_world(kCluster).before_commit = [this](const std::vector<ClusterOp>&) {
    for (size_t i = 0; i < hosts_.size(); ++i) {
      if (hosts_[i]->process() == &Process::current()) count(Op::Trigger::kCommit, i);
    }
  };
  world_.calls().before = [this](const DirectMessage&) {
    for (size_t i = 0; i < hosts_.size(); ++i) {
      if (hosts_[i]->process() == &Process::current()) count(Op::Trigger::kCall, i);
    }
  };
}

void ScenarioRun::hold_down(size_t host, int64_t ms) {
  states_[host].down = true;
  states_[host].down_until_ns = now_ns() + ms * 1'000'000;
}

// May be on any thread, of a host's process too; waits for nothing.
void ScenarioRun::strike(const Op& op) {
  if (healed_) return;
  ++counts_.faults;
  tell(describe(op));
  Host& host = *hosts_[op.host];
  const auto later = [&](std::function<void()> undo) {
    at(now_ns() + op.lasts_ms * 1'000'000, std::move(undo));
  };
  switch (op.kind) {
    case OpKind::kCrash:
    case OpKind::kPowerLoss:
      hold_down(op.host, op.lasts_ms);
      host.crash(op.kind == OpKind::kPowerLoss);
      break;
    case OpKind::kDataLoss:
      hold_down(op.host, op.lasts_ms);
      host.crash(true);
      states_[op.host].data_lost = true;
      host.disk().restore("/data", nullptr);
      break;
    case OpKind::kRestart:
      hold_down(op.host, op.lasts_ms);
      at(now_ns(), [&host] { spawn([&host] { host.stop(); }); });
      break;
    case OpKind::kPause:
      if (Process* const process = host.process(); process != nullptr) {
        process->pause();
        paused_.push_back(process);
        later([process] { process->resume(); });
      }
      break;
    case OpKind::kPartition:
      if (op.host == op.other) break;
      at(now_ns(), [this, op, &host] {
        if (!healed_) world_.partition(host.name(), hosts_[op.other]->name());
      });
      later([this] { world_.heal_partitions(); });
      break;
    case OpKind::kNoBlock:
      host.block_faults.unreachable = true;
      later([&host] { host.block_faults.unreachable = false; });
      break;
    case OpKind::kClockJump: {
      // Hours, or what replicas of one write differ by.
      const int64_t most_ms = op.lasts_ms % 3 == 0 ? 7'200'000 : 3'000;
      const int64_t offset = (op.lasts_ms * 7919 % (2 * most_ms) - most_ms) * 1'000'000;
      host.wall_offset_ns = offset;
      if (Process* const process = host.process()) process->set_wall_offset_ns(offset);
      break;
    }
    case OpKind::kDiskError:
      states_[op.host].disk_failed = true;
      host.mount().write_error = EIO;
      if (op.lasts_ms % 3 == 0) host.mount().sync_error = EIO;
      later([&host] { host.mount().write_error = host.mount().sync_error = 0; });
      break;
    case OpKind::kFullDisk:
      states_[op.host].disk_failed = true;
      host.disk().set_capacity_bytes(host.disk().capacity_bytes() - host.disk().free_bytes());
      later([&host] { host.disk().set_capacity_bytes(kDiskBytes); });
      break;
    case OpKind::kSlowDisk:
      host.mount().slowest_sync_ns = op.lasts_ms * 100'000;
      later([&host] { host.mount().slowest_sync_ns = 200'000; });
      break;
    default:
      fail("not a fault");
  }
}

// Starts what is down, as a service manager does.
void ScenarioRun::supervise() {
  while (true) {
    for (size_t i = 0; i < hosts_.size(); ++i) {
      HostState& state = states_[i];
      if (hosts_[i]->running() || stops_all_) continue;
      if (state.down && now_ns() < state.down_until_ns) continue;
      state.down = false;
      if (absl::IsDataLoss(hosts_[i]->status()) ||
          absl::IsFailedPrecondition(hosts_[i]->status()) ||
          absl::IsInvalidArgument(hosts_[i]->status())) {
        fail(fmt::format("I9: {}: {}", hosts_[i]->name(), hosts_[i]->status().ToString()));
      }
      tell(fmt::format("{} is started; it ended with {}", hosts_[i]->name(),
                       hosts_[i]->status().ToString()));
      hosts_[i]->start(state.data_lost);
    }
    sleep_ms(kSuperviseMs);
    if (stops_all_) return;
  }
}

void ScenarioRun::heal() {
  tell("everything is healed");
  healed_ = true;
  world_.calls().faults = {};
  world_.client_block_faults = {};
  world_.heal_partitions();
  for (Process* const process : paused_) process->resume();
  for (size_t i = 0; i < hosts_.size(); ++i) {
    Host& host = *hosts_[i];
    host.block_faults = {};
    host.wall_offset_ns = 0;
    if (Process* const process = host.process()) process->set_wall_offset_ns(0);
    host.mount().write_error = host.mount().sync_error = 0;
    host.mount().slowest_sync_ns = 200'000;
    host.disk().set_capacity_bytes(kDiskBytes);
    states_[i].down = false;
  }
}

// --- Clients ---

void ScenarioRun::put(ClusterClient& client, Random& random, const std::string& key) {
  const size_t bytes = random.chance(0.03) ? random.below(200'000) : random.below(400);
  size_t number = 0;
  const std::string value = history_.begin(key, bytes, &number);
  const absl::Status status = client.put(key, value);
  if (status.ok()) history_.acknowledged(number);
  expect_excusable(status, "a put");
}

void ScenarioRun::erase(ClusterClient& client, const std::string& key) {
  const size_t number = history_.begin_erasure(key);
  const absl::Status status = client.erase(key);
  if (status.ok()) history_.acknowledged(number);
  expect_excusable(status, "an erasure");
}

void ScenarioRun::get(ClusterClient& client, const std::string& key) {
  const int64_t begin = now_ns();
  const auto value = client.get(key);
  std::optional<std::string> read;
  if (value.ok()) {
    read = *value;
  } else if (!absl::IsNotFound(value.status())) {
    return expect_excusable(value.status(), "a get");
  }
  const std::string fault = history_.fault_of(key, read, begin);
  if (!fault.empty()) fail("I1: get: " + fault);
}

void ScenarioRun::import(ClusterClient& client, Random& random) {
  const auto import = client.import();
  std::map<std::string, size_t> numbers;
  for (size_t i = 0; i < kImported; ++i) {
    const std::string key = fmt::format("k{}", random.below(scenario_.keys));
    if (numbers.contains(key)) continue;
    size_t number = 0;
    const std::string value = history_.begin(key, random.below(300), &number);
    numbers[key] = number;
    require_ok(import->put(key, value), "an imported put");
  }
  const WriteTotals totals = import->finish();
  if (totals.failed != totals.failures.size()) fail("an import does not name what failed");
  for (const RecordFailure& failure : totals.failures) numbers.erase(failure.key);
  if (totals.records != numbers.size()) fail("an import's totals do not add up");
  for (const auto& [key, number] : numbers) history_.acknowledged(number);
}

void ScenarioRun::write(ClusterClient& client, size_t writer) {
  Random random(Random::mix(scenario_.seed ^ (0x77 + writer)));
  while (!stop_writers_) {
    const std::string key = fmt::format("k{}", random.below(scenario_.keys));
    const double kind = random.unit();
    if (kind < 0.6) {
      put(client, random, key);
    } else if (kind < 0.7) {
      erase(client, key);
    } else if (kind < 0.9) {
      get(client, key);
    } else {
      import(client, random);
    }
    sleep_ms(static_cast<int64_t>(random.below(static_cast<uint64_t>(scenario_.longest_pause_ms))));
  }
  --writers_left_;
}

void ScenarioRun::start_writers() {
  writers_left_ = scenario_.writers;
  for (size_t i = 0; i < scenario_.writers; ++i) {
    world_.start_client(fmt::format("writer{}", i + 1), kCluster,
                        [this, i](ClusterClient& client) { write(client, i); });
  }
}

void ScenarioRun::back_up(ClusterClient& client, const std::string& name) {
  const int64_t begin = now_ns();
  const auto backup =
      client.backup_create({.name = name, .targets = {}, .dry_run = false}, nullptr);
  tell(fmt::format("{}: {}", name,
                   backup.ok() ? fmt::format("{} {}", name_of(backup->state), backup->reason)
                               : backup.status().ToString()));
  expect_excusable(backup.status(), "a backup");
  if (!backup.ok()) return;
  if (backup->state == BackupState::kCompleted) {
    ++counts_.backups_completed;
    backups_[backup->uuid] = {begin, now_ns()};
  } else {
    ++counts_.backups_failed;
  }
}

void ScenarioRun::restore(ClusterClient& client, const RestoreRequest& request) {
  const auto outcome = client.restore(request, nullptr);
  tell(fmt::format("restore: {}",
                   outcome.ok() ? fmt::format("{} {}", name_of(outcome->state), outcome->reason)
                                : outcome.status().ToString()));
  expect_excusable(outcome.status(), "a restore");
  if (!outcome.ok() || outcome->state != RestoreState::kCompleted) return;
  ++counts_.restores_completed;
  if (outcome->proof.differing > 0 || outcome->failed > 0) {
    fail("I4: a restore has completed without its proof");
  }
}

void ScenarioRun::operate(const Op& op, size_t number) {
  ++operators_left_;
  const std::string name = backup_name(op.backup);
  const std::string cluster = op.kind == OpKind::kRestoreToOther ? kOther : kCluster;
  world_.start_client(fmt::format("operator{}", number), cluster,
                      [this, op, name](ClusterClient& client) {
                        tell(fmt::format("{} {}", name_of(op.kind), name));
                        absl::Status status;
                        switch (op.kind) {
                          case OpKind::kBackup:
                            back_up(client, name);
                            break;
                          case OpKind::kResume: {
                            const auto resumed = client.backup_resume(name, nullptr);
                            status = resumed.status();
                            break;
                          }
                          case OpKind::kVerify: {
                            const auto verified = client.backup_verify(name, nullptr);
                            status = verified.status();
                            if (verified.ok() && !verified->bad.empty()) {
                              fail(fmt::format("I5: {} does not verify: {}: {}", name,
                                               verified->bad[0].file, verified->bad[0].reason));
                            }
                            break;
                          }
                          case OpKind::kRestore:
                            restore(client, restore_of(name));
                            break;
                          case OpKind::kRestoreToOther:
                            restore(client, restore_of(name, World::url_of(kCluster)));
                            break;
                          case OpKind::kRetry:
                            status = client.restore_retry(nullptr).status();
                            break;
                          case OpKind::kDelete:
                            status = client.backup_delete(name);
                            break;
                          case OpKind::kCancel:
                            status = client.backup_cancel(name).status();
                            break;
                          default:
                            fail("not an operator's");
                        }
                        if (!status.ok())
                          tell(fmt::format("{} {}: {}", name_of(op.kind), name, status.ToString()));
                        expect_excusable(status, name_of(op.kind));
                        --operators_left_;
                      });
}

// --- At the end ---

void ScenarioRun::check_reads(ClusterClient& client) {
  std::map<std::string, std::string> records;
  const int64_t begin = now_ns();
  const auto totals = client.export_records({}, [&](std::string_view key, std::string_view value) {
    if (!records.emplace(key, value).second) fail(fmt::format("I1: {} is exported twice", key));
    return absl::OkStatus();
  });
  require_ok(totals.status(), "I8: exporting all");
  for (const auto& [key, value] : records) {
    if (history_.keys().empty()) fail(fmt::format("{} was never written", key));
  }
  for (const std::string& key : history_.keys()) {
    const auto found = records.find(key);
    const std::string fault = history_.fault_of(
        key, found == records.end() ? std::nullopt : std::optional(found->second), begin);
    if (!fault.empty()) fail("I1: " + fault);
  }
}

void ScenarioRun::check_backup(ClusterClient& client, const BackupView& backup) {
  const auto verified = client.backup_verify(backup.backup, nullptr);
  require_ok(verified.status(), "I5: verifying " + backup.backup);
  if (!verified->bad.empty()) {
    fail(fmt::format("I5: {} does not verify: {}: {}", backup.backup, verified->bad[0].file,
                     verified->bad[0].reason));
  }
  const auto shown = client.backup_show(backup.backup);
  require_ok(shown.status(), "showing " + backup.backup);
  const auto content = read_archive_content(shown->archives);
  require_ok(content.status(), "I5: reading " + backup.backup);
  for (const auto& [key, record] : *content) {
    if (record.version.stamp > shown->cut) {
      fail(fmt::format("I3: {} holds {} with a stamp above its cut", backup.backup, key));
    }
  }
  const auto asked = backups_.find(backup.uuid);
  // One that was resumed, or whose end its client did not see.
  if (asked == backups_.end()) return;
  for (const std::string& key : history_.keys()) {
    const auto found = content->find(key);
    const bool there = found != content->end() && !found->second.tombstone;
    const std::string fault = history_.fault_of(
        key, there ? std::optional(found->second.value) : std::nullopt, asked->second.begin_ns);
    if (!fault.empty()) fail(fmt::format("I2: {}: {}", backup.backup, fault));
  }
}

void ScenarioRun::check_heads() {
  for (const auto& [key, heads] : world_.block_world(kCluster).kept) {
    std::optional<BackupHead> before;
    for (const auto& [revision, text] : heads) {
      auto head = decode_backup_head(key, text);
      require_ok(head.status(), "I6: a backup's head");
      if (before.has_value() && before->uuid == head->uuid) {
        // A deletion takes a completed one back.
        const bool deleted = head->deleting && head->attempt >= before->attempt;
        if (!deleted) require_ok(check_change(*before, *head), "I6: a change of a backup's head");
      }
      before = *std::move(head);
    }
  }
}

void ScenarioRun::stop_all() {
  stops_all_ = true;
  sleep_ms(2 * kSuperviseMs);
  for (Host& host : world_.all_hosts()) {
    host.stop();
    std::error_code error;
    for (const auto& cut :
         std::filesystem::directory_iterator(host.data_folder() + "/cuts", error)) {
      fail(fmt::format("I10: {} leaves a cut: {}", host.name(), cut.path().string()));
    }
  }
}

void ScenarioRun::wait_until_all_serve() {
  for (Host& host : world_.all_hosts()) {
    if (!wait_until(
            kServeMs, [&] { return host.serving(); }, 50)) {
      fail(fmt::format("I8: {} does not serve: {}\n{}", host.name(), host.status().ToString(),
                       describe_threads()));
    }
  }
}

void ScenarioRun::run() {
  world_.make_cluster(kCluster, scenario_.shape);
  if (scenario_.other.nodes > 0) world_.make_cluster(kOther, scenario_.other);
  begin_ns_ = now_ns();
  hosts_ = world_.hosts(kCluster);
  states_.resize(hosts_.size());
  for (Host* const host : hosts_) host->block_faults = scenario_.block;
  world_.client_block_faults = scenario_.block;
  world_.calls().faults = scenario_.calls;
  watch_for_triggers();
  start_writers();
  spawn([this] { supervise(); });
  for (size_t i = 0; i < scenario_.ops.size(); ++i) {
    const Op& op = scenario_.ops[i];
    const int64_t wait_ns = begin_ns_ + op.at_ms * 1'000'000 - now_ns();
    if (wait_ns > 0) sleep_ms(wait_ns / 1'000'000);
    if (!is_fault(op.kind)) {
      operate(op, i);
    } else if (op.trigger == Op::Trigger::kTime) {
      strike(op);
    } else {
      armed_.push_back(std::make_unique<Armed>(Armed{op, op.count}));
    }
  }
  const int64_t left_ns = begin_ns_ + scenario_.lasts_ms * 1'000'000 - now_ns();
  if (left_ns > 0) sleep_ms(left_ns / 1'000'000);
  heal();
  // An operator's part.
  for (size_t i = 0; i < hosts_.size(); ++i) {
    if (states_[i].disk_failed) hosts_[i]->stop();
  }
  wait_until_all_serve();
  stop_writers_ = true;
  if (!wait_until(
          kEndMs, [&] { return writers_left_ == 0 && operators_left_ == 0; }, 100)) {
    fail(fmt::format("I8: {} writers and {} operators do not end\n{}", writers_left_,
                     operators_left_, describe_threads()));
  }
  // Nodes that lost their leases, or were being stopped, come back; what is left behind ends.
  sleep_ms(kSettleMs);
  wait_until_all_serve();
  const auto all_ended = [this] {
    const auto listed = list_backups(world_.block(kCluster));
    require_ok(listed.status(), "listing backups");
    return std::all_of(listed->backups.begin(), listed->backups.end(),
                       [](const auto& stored) { return has_ended(stored.head.state); });
  };
  if (!wait_until(kEndMs, all_ended, 500)) fail("I8: a backup does not end");
  tell("the last checks");
  world_.with_client(kCluster, [this](ClusterClient& client) {
    require_ok(client.put("last", "0"), "I8: the last put");
    check_reads(client);
    back_up(client, "last");
    const auto backups = client.backup_list();
    require_ok(backups.status(), "listing backups");
    for (const BackupView& backup : *backups) {
      if (backup.state == BackupState::kCompleted) {
        check_backup(client, backup);
      } else if (backup.backup == "last") {
        fail(fmt::format("I8: the last backup: {} {}", name_of(backup.state), backup.reason));
      }
    }
    const auto outcome = client.restore(restore_of("last"), nullptr);
    require_ok(outcome.status(), "I8: the last restore");
    if (outcome->state != RestoreState::kCompleted) {
      fail(fmt::format("I8: the last restore: {} {}", name_of(outcome->state), outcome->reason));
    }
    check_reads(client);
  });
  check_heads();
  stop_all();
  counts_.acknowledged = history_.acknowledged_writes();
  counts_.unacknowledged = history_.writes().size() - counts_.acknowledged;
  output(fmt::format("counts {} {} {} {} {} {}\n", counts_.acknowledged, counts_.unacknowledged,
                     counts_.backups_completed, counts_.backups_failed, counts_.restores_completed,
                     counts_.faults));
}

}  // namespace

void live_through(const Scenario& scenario) { (new ScenarioRun(scenario))->run(); }

Result run_scenario(const Scenario& scenario, bool print) {
  Options options;
  options.print_trace = print;
  return run(scenario.seed, options, [&] {
    trace_logs();
    live_through(scenario);
  });
}

}  // namespace sluice::simulation

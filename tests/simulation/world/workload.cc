#include "tests/simulation/world/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "control/backup/backup_store.h"
#include "control/backup/documents.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/archive_content.h"

namespace sluice::simulation {
namespace {

constexpr size_t kImported = 12;
constexpr size_t kImportedVersions = 3;
// More than an import sends together.
constexpr size_t kLargeBytes = size_t{800} << 10;

constexpr uint64_t kRestoresWithinNs = 50'000'000;
constexpr uint64_t kLongestReadPauseMs = 20;

std::string backup_name(size_t number) { return fmt::format("backup{}", number); }

}  // namespace

Workload::Workload(World& world, const Scenario& scenario, Oracle& oracle, std::string cluster,
                   std::string other)
    : world_(world),
      scenario_(scenario),
      oracle_(oracle),
      cluster_(std::move(cluster)),
      other_(std::move(other)),
      random_(Random::mix(scenario.seed ^ 0xc1)) {}

// --- Clients ---

void Workload::start(const std::string& name, const std::string& cluster,
                     std::optional<size_t> writer, World::ClientBody body) {
  ++clients_left_;
  Client& client = clients_.emplace_back(Client{nullptr, writer});
  const std::string numbered = fmt::format("{}#{}", name, clients_.size());
  client.process = &world_.start_client(
      numbered, cluster, [this, &client, body = std::move(body)](ClusterClient& cluster_client) {
        body(cluster_client);
        client.ended = true;
        --clients_left_;
      });
}

void Workload::crash_client(const Op& op) {
  const NoSwitch whole;
  std::vector<Client*> living;
  for (Client& client : clients_) {
    if (client.ended) continue;
    if (op.kind == OpKind::kCrashOperator && client.writer.has_value()) continue;
    living.push_back(&client);
    if (client.process == &Process::current()) {
      living = {&client};
      break;
    }
  }
  if (living.empty()) return;
  Client& client = *living[static_cast<size_t>(op.lasts_ms) % living.size()];
  client.ended = true;
  --clients_left_;
  world_.crash_client(*client.process);
  if (!client.writer.has_value()) return;
  ++clients_left_;  // of the one that comes
  at(now_ns(), [this, writer = *client.writer] {
    --clients_left_;
    start_writer(writer);
  });
}

// --- Writers ---

std::string Workload::draw_key(const Place& place, Random& random) const {
  return fmt::format("{}{}", place.first, random.below(scenario_.keys));
}

void Workload::put(const Place& place, Random& random, const std::string& key) {
  const size_t bytes = random.chance(0.02) ? random.below(200'000) : random.below(400);
  size_t number = 0;
  const std::string value = place.oracle.history().begin(key, bytes, &number);
  const absl::Status status = place.client.put(key, value);
  if (status.ok()) place.oracle.history().acknowledged(number);
  place.oracle.answered(status, "a put");
}

void Workload::erase(const Place& place, const std::string& key) {
  const size_t number = place.oracle.history().begin_erasure(key);
  const absl::Status status = place.client.erase(key);
  if (status.ok()) place.oracle.history().acknowledged(number);
  place.oracle.answered(status, "an erasure");
}

void Workload::import(const Place& place, Random& random) {
  const auto import = place.client.import();
  std::map<std::string, size_t> numbers;
  for (size_t i = 0; i < kImported; ++i) {
    const std::string key = draw_key(place, random);
    if (numbers.contains(key)) continue;
    size_t number = 0;
    const std::string value = place.oracle.history().begin(key, random.below(300), &number);
    numbers[key] = number;
    require_ok(import->put(key, value), "an imported put");
  }
  const WriteTotals totals = import->finish();
  if (totals.failed != totals.failures.size()) fail("an import does not name what failed");
  for (const RecordFailure& failure : totals.failures) numbers.erase(failure.key);
  if (totals.records != numbers.size()) fail("an import's totals do not add up");
  for (const auto& [key, number] : numbers) place.oracle.history().acknowledged(number);
}

// Several versions of one key, each so large that it goes by itself: the last one counts.
void Workload::import_versions(const Place& place, Random& random) {
  const auto import = place.client.import();
  const std::string key = draw_key(place, random);
  size_t number = 0;
  for (size_t i = 0; i < kImportedVersions; ++i) {
    const size_t bytes = kLargeBytes + random.below(1'000);
    const size_t before = number;
    History& history = place.oracle.history();
    const std::string value =
        i == 0 ? history.begin(key, bytes, &number) : history.begin_behind(before, bytes, &number);
    require_ok(import->put(key, value), "an imported put");
  }
  const WriteTotals totals = import->finish();
  if (totals.failed == 0 && totals.records == kImportedVersions) {
    place.oracle.history().acknowledged(number);
  }
}

void Workload::write(const Place& place, size_t writer) {
  Random random(Random::mix(scenario_.seed ^ (0x77 + writer) ^ (clients_.size() << 32)));
  while (!stop_writers_) {
    const std::string key = draw_key(place, random);
    const double kind = random.unit();
    if (kind < 0.6) {
      put(place, random, key);
    } else if (kind < 0.7) {
      erase(place, key);
    } else if (kind < 0.9) {
      get(place, key);
    } else if (kind < 0.999) {
      import(place, random);
    } else {
      import_versions(place, random);
    }
    sleep_ms(static_cast<int64_t>(random.below(static_cast<uint64_t>(scenario_.longest_pause_ms))));
  }
}

void Workload::get(const Place& place, const std::string& key) {
  const int64_t begin = now_ns();
  place.oracle.answered_get(key, place.client.get(key), begin);
}

void Workload::read(const Place& place, size_t reader) {
  Random random(Random::mix(scenario_.seed ^ (0x7ead + reader)));
  while (!stop_writers_) {
    get(place, draw_key(place, random));
    sleep_ms(static_cast<int64_t>(random.below(kLongestReadPauseMs)));
  }
}

void Workload::start_writer(size_t writer) {
  const bool in_other = writer >= scenario_.writers;
  start(
      "writer", in_other ? other_ : cluster_, writer,
      [this, writer, in_other](ClusterClient& client) {
        write(in_other ? Place{client, *other_oracle_, 'w'} : Place{client, oracle_, 'k'}, writer);
      });
}

void Workload::start_writers() {
  for (size_t i = 0; i < scenario_.writers; ++i) start_writer(i);
  for (size_t i = 0; i < scenario_.readers; ++i) {
    start("reader", cluster_, {}, [this, i](ClusterClient& client) {
      read(Place{client, oracle_, 'k'}, i);
    });
  }
}

void Workload::start_other_writers() {
  if (std::exchange(others_write_, true) || scenario_.other.nodes == 0) return;
  for (size_t i = 0; i < scenario_.other_writers; ++i) start_writer(scenario_.writers + i);
}

// --- Operators ---

absl::Status Workload::back_up(ClusterClient& client, const std::string& name) {
  const int64_t begin = now_ns();
  const auto backup =
      client.backup_create({.name = name, .targets = {}, .dry_run = false}, nullptr);
  if (!backup.ok()) return backup.status();
  trace(fmt::format("{}: {} {}", name, name_of(backup->state), backup->reason));
  oracle_.answered_backup(*backup, begin);
  const bool completed = backup->state == BackupState::kCompleted;
  ++(completed ? backups_completed_ : backups_failed_);
  if (completed && scenario_.other.nodes > 0) read_content(name, backup->uuid);
  return absl::OkStatus();
}

absl::Status Workload::restore(ClusterClient& client, const RestoreRequest& request,
                               Restored::End* end) {
  const auto outcome = client.restore(request, nullptr);
  if (!outcome.ok()) return outcome.status();
  trace(fmt::format("restore: {} {}", name_of(outcome->state), outcome->reason));
  oracle_.answered_restore(request.backup, *outcome);
  if (outcome->state == RestoreState::kCompleted) ++restores_completed_;
  if (end == nullptr) return absl::OkStatus();
  if (outcome->state == RestoreState::kCompleted) *end = Restored::End::kCompleted;
  if (outcome->state == RestoreState::kCompletedWithFailures) *end = Restored::End::kWithFailures;
  return absl::OkStatus();
}

// What the backup of this UUID holds, which never changes; false where that is not known.
bool Workload::read_content(const std::string& name, const std::string& uuid) {
  if (contents_.contains(uuid)) return true;
  std::vector<ArchivePlace> places;
  for (Host* const host : world_.hosts(cluster_)) {
    std::error_code error;
    const std::string path = host->archive_folder() + "/" + name;
    if (std::filesystem::exists(path, error)) places.push_back({host->name(), path});
  }
  auto content = read_archive_content(places);
  const auto head = world_.newest_backup(cluster_, name);
  if (!content.ok() || !head.has_value() || head->uuid != uuid) return false;
  contents_[uuid] = *std::move(content);
  return true;
}

absl::Status Workload::restore_here(ClusterClient& client, const std::string& name,
                                    const std::string& prefix) {
  const auto before = world_.newest_backup(cluster_, name);
  const bool is_known = before.has_value() && read_content(name, before->uuid);
  const int64_t begin = now_ns();
  RestoreRequest request = restore_of(name);
  request.prefix = prefix;
  Restored::End end = Restored::End::kOther;
  const absl::Status status = restore(client, request, &end);
  const auto after = world_.newest_backup(cluster_, name);
  if (!is_known || end != Restored::End::kCompleted || before->uuid != after->uuid) return status;
  for (const auto& [key, record] : contents_[before->uuid]) {
    if (key.starts_with(prefix) && !record.tombstone) {
      oracle_.history().restored(key, record.value, begin);
    }
  }
  return status;
}

absl::Status Workload::restore_to_other(ClusterClient& client, const std::string& name) {
  Restored& restored = other_oracle_->restored();
  const auto before = world_.newest_backup(cluster_, name);
  const bool is_known = before.has_value() && read_content(name, before->uuid);
  restored.begin(is_known ? &contents_[before->uuid] : nullptr);
  const uint64_t losses = restored.losses();
  Restored::End end = Restored::End::kOther;
  const absl::Status status = restore(client, restore_of(name, World::url_of(cluster_)), &end);
  const auto after = world_.newest_backup(cluster_, name);
  if (!after.has_value()) {
    restored.end_unknown();
  } else if (is_known && before->uuid == after->uuid) {
    // What was lost meanwhile may have been proved before.
    if (losses != restored.losses()) end = Restored::End::kOther;
    restored.end(after->uuid, contents_[after->uuid], end);
  } else if (is_known) {
    restored.begin(nullptr);  // of which of the two is not known
  }
  return status;
}

std::vector<std::string> Workload::completed_backups() const {
  const NoSwitch whole;
  std::vector<std::string> names;
  for (const auto& [key, heads] : world_.block_world(cluster_).kept) {
    const auto head = decode_backup_head(key, heads.rbegin()->second);
    if (!head.ok() || head->state != BackupState::kCompleted || head->deleting) continue;
    names.push_back(head->name);
  }
  return names;
}

std::string Workload::name_for(const Op& op) {
  if (op.backup < kBackupNames) return backup_name(op.backup);
  std::vector<std::string> names;
  const auto is_one_completed = [&] {
    names = completed_backups();
    return !names.empty();
  };
  if (!wait_until(scenario_.lasts_ms, is_one_completed, 250)) {
    return backup_name(op.backup % kBackupNames);
  }
  return names[op.backup % names.size()];
}

absl::Status Workload::operate(ClusterClient& client, const Op& op, const std::string& name) {
  switch (op.kind) {
    case OpKind::kBackup:
    case OpKind::kBackupTwice:
      return back_up(client, name);
    case OpKind::kResume:
      return client.backup_resume(name, nullptr).status();
    case OpKind::kVerify: {
      const auto verified = client.backup_verify(name, nullptr);
      if (verified.ok()) oracle_.answered_verification(name, *verified);
      return verified.status();
    }
    case OpKind::kRestore:
      return restore_here(client, name, "");
    case OpKind::kRestorePrefix:
      return restore_here(client, name, "k1");
    case OpKind::kRestoreToOther:
      return restore_to_other(client, name);
    case OpKind::kRetry:
    case OpKind::kRetryInOther:
      return client.restore_retry(nullptr).status();
    case OpKind::kDelete:
      return client.backup_delete(name);
    case OpKind::kCancel:
      return client.backup_cancel(name).status();
    default:
      fail("not an operator's");
  }
}

void Workload::start_operator(const Op& op) {
  if (op.kind == OpKind::kRestoreToOther) {
    // While its first slots come.
    const auto delay_ns = static_cast<int64_t>(random_.below(kRestoresWithinNs));
    at(now_ns() + delay_ns, [this] { start_other_writers(); });
  }
  const std::string& cluster = is_in_other(op.kind) ? other_ : cluster_;
  for (int times = op.kind == OpKind::kBackupTwice ? 2 : 1; times > 0; --times) {
    start("operator", cluster, {}, [this, op](ClusterClient& client) {
      const std::string name = name_for(op);
      const std::string what = fmt::format("{} {}", name_of(op.kind), name);
      trace(what);
      const absl::Status status = operate(client, op, name);
      if (!status.ok()) trace(fmt::format("{}: {}", what, status.ToString()));
      oracle_.answered_by_archives(status, name, what);
    });
  }
}

bool Workload::finish(int64_t timeout_ms) {
  stop_writers_ = true;
  return wait_until(
      timeout_ms, [&] { return clients_left_ == 0; }, 100);
}

std::string Workload::describe_remaining() const {
  std::string text;
  for (const Client& client : clients_) {
    if (!client.ended) text += client.process->name() + " ";
  }
  return text;
}

}  // namespace sluice::simulation

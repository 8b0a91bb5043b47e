#include "tests/simulation/world/oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "control/backup/backup_store.h"
#include "control/backup/documents.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/archive_content.h"
#include "tests/simulation/world/archive_damage.h"

namespace sluice::simulation {
namespace {

bool is_excusable(absl::StatusCode code) {
  switch (code) {
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

constexpr std::string_view kOtherManifest = "another manifest";
// What faults do not explain, each the words of a check that something is not as it has to be; and
// a standstill, for no fault lasts as long as nodes are waited for.
constexpr std::array<std::string_view, 17> kNotByFaults = {"damaged",
                                                           "failed its checks",
                                                           "other records",
                                                           "not the copy it published",
                                                           "is not what its replicas published",
                                                           "is finished",
                                                           "is in no target's part",
                                                           "is in the parts of two",
                                                           "slots in the parts",
                                                           "stamped after the cut",
                                                           "made progress",
                                                           "no block from anyone",
                                                           "archive holds slot",
                                                           "does not pass the cut",
                                                           "unreadable",
                                                           kOtherManifest,
                                                           "Corruption"};

}  // namespace

// Whether a damaged part of the backup explains what names the part's host.
bool Oracle::is_damage(std::string_view backup, std::string_view text) const {
  if (archives_->is_elsewhere(backup, text)) return true;
  const auto damaged = archives_->damaged_.find(backup);
  return damaged != archives_->damaged_.end() &&
         std::any_of(damaged->second.begin(), damaged->second.end(), [&](const std::string& host) {
           return text.find(host) != std::string_view::npos;
         });
}

bool Oracle::is_elsewhere(std::string_view backup, std::string_view text) const {
  return std::any_of(copies_.begin(), copies_.end(), [&](Host* copy) {
    return text.find(copy->archive_folder()) != std::string_view::npos &&
           !backups_of(*copy).contains(std::string(backup));
  });
}

void Oracle::check_reason(const std::string& backup, std::string_view reason) const {
  if (is_damage(backup, reason)) return;
  for (const std::string_view words : kNotByFaults) {
    if (reason.find(words) == std::string_view::npos) continue;
    // A part that was lost and made again is not the one that is named by a manifest which other
    // hosts have stored already.
    if (words == kOtherManifest && damaged_.contains(backup)) continue;
    fail(fmt::format("I9: {} has failed: {}", backup, reason));
  }
}

void Oracle::parts_exchanged(const std::set<std::string>& backups) {
  for (const std::string& backup : backups) {
    const auto head = world_.newest_backup(cluster_, backup);
    if (head.has_value() && head->state == BackupState::kCompleted && !head->deleting) {
      exchanged_.insert(head->uuid);
    }
  }
}

void Oracle::answered(const absl::Status& status, std::string_view what) const {
  if (!status.ok() && !is_excusable(status.code())) {
    fail(fmt::format("I9: {}: {}", what, status.ToString()));
  }
}

void Oracle::answered_by_archives(const absl::Status& status, std::string_view backup,
                                  std::string_view what) const {
  if (absl::IsDataLoss(status) && is_damage(backup, std::string(status.message()))) return;
  answered(status, what);
}

void Oracle::answered_get(const std::string& key, const absl::StatusOr<std::string>& value,
                          int64_t begin_ns) {
  std::optional<std::string> read;
  if (value.ok()) {
    read = *value;
  } else if (!absl::IsNotFound(value.status())) {
    return answered(value.status(), "a get");
  }
  const std::string fault = history_.fault_of(key, read, begin_ns, now_ns());
  if (!fault.empty()) fail("I1: get: " + fault);
  const bool settled = !disks_fail_ && begin_ns > disks_failed_until_ns_;
  if (read.has_value() && settled) history_.seen(key, *read);
}

void Oracle::answered_backup(const BackupView& backup, int64_t begin_ns) {
  if (backup.state == BackupState::kCompleted) requested_[backup.uuid] = {begin_ns, now_ns()};
  if (backup.state == BackupState::kFailed) check_reason(backup.backup, backup.reason);
}

void Oracle::answered_verification(std::string_view backup, const VerifyResult& verified) const {
  for (const VerifyProblem& problem : verified.bad) {
    if (is_damage(backup, problem.file.substr(0, problem.file.find(':')))) continue;
    if (archives_->is_elsewhere(backup, problem.reason)) continue;
    fail(fmt::format("I5: {} does not verify: {}: {}", backup, problem.file, problem.reason));
  }
}

void Oracle::answered_restore(std::string_view backup, const RestoreOutcome& restore) const {
  for (const DamagedBlock& block : restore.damaged) {
    if (is_damage(backup, block.part + ": " + block.reason)) continue;
    fail(fmt::format("I9: a restore of {} reports damage: {}: {}", backup, block.part,
                     block.reason));
  }
  if (restore.data_bad && !is_damage(backup, restore.reason)) {
    fail(fmt::format("I9: a restore of {} reports damage: {}", backup, restore.reason));
  }
  if (restore.state != RestoreState::kCompleted) return;
  if (restore.proof.differing > 0 || restore.failed > 0) {
    fail("I4: a restore has completed without its proof");
  }
}

void Oracle::check_reads(ClusterClient& client) const {
  std::map<std::string, std::string> records;
  const int64_t begin = now_ns();
  const auto totals = client.export_records({}, [&](std::string_view key, std::string_view value) {
    if (!records.emplace(key, value).second) fail(fmt::format("I1: {} is exported twice", key));
    return absl::OkStatus();
  });
  require_ok(totals.status(), "I8: exporting all");
  for (const auto& [key, value] : records) {
    if (!history_.wrote(key) && !restored_.may_hold(key, value)) {
      fail(fmt::format("I1: {} was never written", key));
    }
  }
  check_restored(client, records);
  for (const std::string& key : history_.keys()) {
    const auto found = records.find(key);
    const std::string fault = history_.fault_of(
        key, found == records.end() ? std::nullopt : std::optional(found->second), begin, now_ns());
    if (!fault.empty()) fail("I1: " + fault);
  }
}

void Oracle::check_restored(ClusterClient& client,
                            const std::map<std::string, std::string>& records) const {
  if (const std::string fault = restored_.fault_of(records); !fault.empty()) fail("I4: " + fault);
  Restored::Listed listed;
  const absl::Status read = client.restore_failed([&](const FailedRecord& record) {
    listed.keys.insert(record.key);
    if (record.key.empty()) listed.others += record.records + record.deletions;
    return absl::OkStatus();
  });
  if (absl::IsDataLoss(read) && !archives_->damaged_.empty()) return;
  answered(read, "I7: the lists of what restores have left");
  if (!read.ok()) return;
  const std::string fault = restored_.fault_of_lists(records, listed);
  if (!fault.empty()) fail("I7: " + fault);
}

void Oracle::check_backup(ClusterClient& client, const BackupView& backup) const {
  const auto verified = client.backup_verify(backup.backup, nullptr);
  // A part that cannot be opened is named by the error.
  if (absl::IsDataLoss(verified.status()) &&
      is_damage(backup.backup, std::string(verified.status().message()))) {
    return;
  }
  require_ok(verified.status(), "I5: verifying " + backup.backup);
  answered_verification(backup.backup, *verified);
  if (!verified->bad.empty()) return;
  if (exchanged_.contains(backup.uuid)) {
    fail(fmt::format("I5: {} verifies with parts in the wrong places", backup.backup));
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
  check_versions(backup.backup, shown->cut, *content);
  const auto requested = requested_.find(backup.uuid);
  // One that was resumed, or whose end its client did not see.
  if (requested == requested_.end()) return;
  for (const std::string& key : history_.keys()) {
    const auto found = content->find(key);
    const bool there = found != content->end() && !found->second.tombstone;
    const std::string fault =
        history_.fault_of(key, there ? std::optional(found->second.value) : std::nullopt,
                          requested->second.begin_ns, requested->second.end_ns);
    if (fault.empty()) continue;
    const Version version = found == content->end() ? Version() : found->second.version;
    fail(fmt::format("I2: {}: {}; the archive has version {:#x} of {}", backup.backup, fault,
                     version.stamp, version.node));
  }
}

void Oracle::check_versions(const std::string& backup, uint64_t cut,
                            const std::map<std::string, Record>& content) const {
  for (const std::string& key : history_.keys()) {
    const History::Write* const write = history_.newest_at(key, cut);
    if (write == nullptr) continue;
    const auto found = content.find(key);
    if (found != content.end() && found->second.version >= write->version) continue;
    fail(fmt::format("I2: {} lacks {} of stamp {:#x}, up to its cut {:#x}, acknowledged at {} ns",
                     backup, key, write->version.stamp, cut, write->end_ns));
  }
}

void Oracle::check_backups(ClusterClient& client, std::string_view last) const {
  const auto backups = client.backup_list();
  require_ok(backups.status(), "listing backups");
  std::set<std::string> names;
  for (const BackupView& backup : *backups) {
    if (!names.insert(backup.backup).second) {
      fail(fmt::format("I12: there are two backups {}", backup.backup));
    }
    if (backup.state == BackupState::kCompleted) {
      check_backup(client, backup);
    } else if (backup.backup == last) {
      fail(fmt::format("I8: the last backup: {} {}", name_of(backup.state), backup.reason));
    }
  }
}

// Whoever asks for the name of a completed backup finds it.
void Oracle::check_name(const std::string& head_key) const {
  const auto stored = world_.block(cluster_).get(head_key);
  require_ok(stored.status(), "a backup's head");
  if (!stored->has_value()) return;
  const auto head = decode_backup_head(head_key, (*stored)->value);
  require_ok(head.status(), "I6: a backup's head");
  if (head->state != BackupState::kCompleted || head->deleting) return;
  const auto name = world_.block(cluster_).get(backup_name_key(head->name));
  require_ok(name.status(), "a backup's name");
  if (!name->has_value() || (*name)->value != head->uuid) {
    fail(fmt::format("I12: the name {} does not lead to its backup {}", head->name, head->uuid));
  }
}

void Oracle::check_heads() const {
  for (const auto& [key, heads] : world_.block_world(cluster_).kept) check_name(key);
  for (const auto& [key, heads] : world_.block_world(cluster_).kept) {
    std::optional<BackupHead> before;
    for (const auto& [revision, text] : heads) {
      auto head = decode_backup_head(key, text);
      require_ok(head.status(), "I6: a backup's head");
      if (before.has_value() && before->uuid == head->uuid) {
        // A deletion takes a completed one back.
        const bool deleted = head->deleting && head->attempt >= before->attempt;
        if (!deleted) require_ok(check_change(*before, *head), "I6: a change of a backup's head");
        if (before->attempt == head->attempt && before->coordinator != head->coordinator) {
          fail(fmt::format("I6: attempt {} of {} has the coordinators {} and {}", head->attempt,
                           head->name, before->coordinator, head->coordinator));
        }
      }
      if (head->state == BackupState::kFailed) check_reason(head->name, head->error);
      before = *std::move(head);
    }
  }
}

void Oracle::check_stopped(Host& host) const {
  std::error_code error;
  for (const auto& cut : std::filesystem::directory_iterator(host.data_folder() + "/cuts", error)) {
    fail(fmt::format("I10: {} leaves a cut: {}", host.name(), cut.path().string()));
  }
}

}  // namespace sluice::simulation

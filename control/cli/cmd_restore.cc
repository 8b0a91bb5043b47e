// sluice restore.
#include <memory>

#include "base/mutex.h"
#include "base/text.h"
#include "control/cli/backup_report.h"
#include "control/cli/command.h"
#include "control/cli/output_file.h"
#include "control/cli/progress.h"

namespace sluice {
namespace {

struct RestoreArguments {
  RestoreRequest options;
  std::string prefix;  // OLD or OLD=NEW
  std::string on_conflict = "newest";
  bool retry = false;
  std::string export_file;
};

class RestoreWatch {
 public:
  RestoreWatch()
      : bar_([this] {
          const MutexLock lock(mutex_);
          return ProgressBar::State{progress_.bytes_done, progress_.bytes_total, "restore"};
        }) {}
  void report(const RestoreProgress& progress) {
    {
      const MutexLock lock(mutex_);
      progress_ = progress;
    }
    if (!progress.message.empty()) bar_.note("sluice: " + progress.message);
  }

 private:
  Mutex mutex_;
  RestoreProgress progress_ SLUICE_GUARDED_BY(mutex_);
  ProgressBar bar_;
};

std::string left_on_list(uint64_t records, uint64_t deletions) {
  std::string text = counted(records, "record");
  if (deletions > 0) text += " and " + counted(deletions, "deletion");
  return text;
}

Outcome outcome_of(const absl::StatusOr<RestoreOutcome>& result) {
  if (!result.ok()) return failure(result.status());
  Outcome outcome;
  outcome.fields = restore_json(*result);
  outcome.text = restore_text(*result);
  const std::string reason = result->reason.empty() ? "" : ": " + result->reason;
  if (result->state == RestoreState::kFailed || result->state == RestoreState::kCancelled) {
    outcome.code = result->data_bad || result->proof.differing > 0 ? kExitDataBad : kExitFailed;
    outcome.error =
        fmt::format("the restore {}{}",
                    result->state == RestoreState::kFailed ? "failed" : "was cancelled", reason);
  } else if (!result->damaged.empty()) {
    outcome.code = kExitDataBad;
    outcome.error = fmt::format(
        "{} remain on the retry list{}; 'sluice backup verify' names all that is wrong with the "
        "archive: restore what cannot be read from another backup",
        left_on_list(result->failed, result->failed_deletions), reason);
  } else if (result->failed > 0 || result->state == RestoreState::kCompletedWithFailures) {
    outcome.code = kExitRetriesRemain;
    outcome.error = fmt::format(
        "{} remain on the retry list{}; 'sluice restore failed --retry' drives them again",
        left_on_list(result->failed, result->failed_deletions), reason);
  }
  return outcome;
}

// A key may hold '=': the prefix ends before the first one that is not doubled.
void split_prefix(const std::string& text, RestoreRequest* options) {
  std::string* half = &options->prefix;
  half->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '=' && i + 1 < text.size() && text[i + 1] == '=') {
      ++i;
    } else if (text[i] == '=' && !options->renamed.has_value()) {
      half = &options->renamed.emplace();
      continue;
    }
    half->push_back(text[i]);
  }
}

Outcome restore(const Invocation& invocation, const RestoreArguments& arguments) {
  RestoreRequest options = arguments.options;
  split_prefix(arguments.prefix, &options);
  if (arguments.on_conflict == "archive") options.on_conflict = OnConflict::kArchive;
  if (options.delete_extra && options.on_conflict != OnConflict::kArchive) {
    return usage_error("--delete-extra goes with --on-conflict archive");
  }
  if (options.renamed.has_value() && options.prefix.empty() && options.renamed->empty()) {
    return usage_error("--prefix = names no prefix");
  }
  if (options.delete_extra && options.renamed.has_value() && options.renamed->empty()) {
    return usage_error(
        "--delete-extra with --prefix {}= would delete all other keys of the cluster: restore "
        "without it",
        options.prefix);
  }
  if (options.backup.empty() == options.archive_folders.empty()) {
    return usage_error("name a backup, or the directories of an archive with --archive DIR...");
  }
  if (!options.source_cluster.empty()) {
    if (!options.archive_folders.empty())
      return usage_error("--from goes with a backup's name, not with --archive");
    if (const auto url = parse_cluster_url(options.source_cluster); !url.ok()) {
      return usage_error("--from: {}", message_of(url.status()));
    }
  }
  return with_client(invocation, [&](ClusterClient& client) {
    RestoreWatch watch;
    return outcome_of(
        client.restore(options, [&](const RestoreProgress& progress) { watch.report(progress); }));
  });
}

Json failed_json(const FailedRecord& record) {
  return {{"key_b64", base64_encode(record.key)},
          {"node", record.node},
          {"reason", record.reason},
          {"restore", record.restore},
          {"records", record.records},
          {"deletions", record.deletions},
          {"slot", record.slot},
          {"first_block", record.first_block},
          {"blocks", record.blocks}};
}

// The whole list: to the file if one is named, and as the outcome's JSON or text.
absl::Status list_failed(ClusterClient& client, const Invocation& invocation,
                         const std::string& export_file, Outcome* outcome, uint64_t* records,
                         uint64_t* deletions) {
  std::unique_ptr<OutputFile> file;
  if (!export_file.empty()) {
    SLUICE_ASSIGN_OR_RETURN(file, OutputFile::open(export_file));
  }
  Json failed = Json::array();
  TextTable table({"key", "node", "reason"});
  const auto visit = [&](const FailedRecord& record) -> absl::Status {
    *records += record.records;
    *deletions += record.deletions;
    if (file != nullptr) {
      SLUICE_RETURN_IF_ERROR(file->write(
          failed_json(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"));
    }
    if (invocation.json) {
      failed.push_back(failed_json(record));
    } else if (export_file.empty()) {
      const std::string key =
          record.key.empty()
              ? fmt::format("({} in {} of slot {})", left_on_list(record.records, record.deletions),
                            counted(record.blocks, "block"), record.slot)
              : printable(record.key, 64);
      table.add({key, record.node, record.reason});
    }
    return absl::OkStatus();
  };
  SLUICE_RETURN_IF_ERROR(client.restore_failed(visit));
  // The list takes the place of the retry's own number.
  outcome->fields["failed"] = std::move(failed);
  outcome->fields["failed_records"] = *records;
  outcome->fields["failed_deletions"] = *deletions;
  if (*records + *deletions == 0) {
    outcome->text += "nothing is left to retry\n";
  } else if (export_file.empty()) {
    outcome->text += table.str();
  }
  if (file == nullptr) return absl::OkStatus();
  if (export_file == "-") outcome->text.clear();
  return file->commit();
}

Outcome retry_failed(ClusterClient& client) {
  RestoreWatch watch;
  return outcome_of(
      client.restore_retry([&](const RestoreProgress& progress) { watch.report(progress); }));
}

Outcome failed(const Invocation& invocation, const RestoreArguments& arguments) {
  if (arguments.export_file == "-" && invocation.json) {
    return usage_error("--json and --export - would both write stdout; export to a file");
  }
  return with_client(invocation, [&](ClusterClient& client) {
    Outcome outcome;
    if (arguments.retry) outcome = retry_failed(client);
    uint64_t records = 0;
    uint64_t deletions = 0;
    if (const absl::Status status =
            list_failed(client, invocation, arguments.export_file, &outcome, &records, &deletions);
        !status.ok()) {
      return failure(status);
    }
    // A retry that could not be driven has said why.
    if (outcome.code != kExitDone && outcome.code != kExitRetriesRemain) return outcome;
    outcome.code = records + deletions == 0 ? kExitDone : kExitRetriesRemain;
    outcome.error = fmt::format("{} left on the retry list", left_on_list(records, deletions));
    if (!arguments.retry) outcome.error += "; add --retry to drive them again";
    return outcome;
  });
}

}  // namespace

void register_restore(CLI::App& app, Invocation& invocation) {
  const auto arguments = std::make_shared<RestoreArguments>();
  CLI::App* command = add_command(
      app, "restore",
      "Restore a backup into the cluster, empty or not: the newest version of each record wins, or "
      "the backup's",
      "sluice restore nightly\n"
      "  sluice restore nightly --prefix docs/ --dry-run\n"
      "  sluice restore nightly --on-conflict archive    (undo: deleted and overwritten records come "
      "back)\n"
      "  sluice restore nightly --on-conflict archive --delete-extra    (exactly the backup's state)\n"
      "  sluice restore nightly --prefix docs/=docs-of-monday/\n"
      "  sluice --cluster sqlite:/new/cluster.db restore nightly --from sqlite:/old/cluster.db\n"
      "  sluice --cluster sqlite:/new/cluster.db restore --archive /backup/n1/nightly "
      "/backup/n2/nightly\n"
      "\nInterrupted and run again, it goes on. Records that could not be written are kept on a "
      "retry list (exit code 4).");
  command->require_subcommand(0, 1);
  command->add_option("BACKUP", arguments->options.backup, "Its name or UUID");
  command
      ->add_option("--archive", arguments->options.archive_folders,
                   "The directories of an archive's parts, instead of a "
                   "name")
      ->type_name("DIR");
  command
      ->add_option("--from", arguments->options.source_cluster,
                   "The cluster that made the backup, if another one")
      ->type_name("URL");
  command
      ->add_option("--prefix", arguments->prefix,
                   "Only keys that begin with OLD; with =NEW, under keys that begin with NEW "
                   "instead (a = of a key is doubled)")
      ->type_name("OLD[=NEW]");
  command
      ->add_option("--on-conflict", arguments->on_conflict,
                   "newest: what was changed or deleted after the backup stays so, and is counted. "
                   "archive: roll back, the backup's records win over all that was written before "
                   "this command")
      ->type_name("newest|archive")
      ->check(CLI::IsMember({"newest", "archive"}))
      ->capture_default_str();
  command->add_flag("--delete-extra", arguments->options.delete_extra,
                    "With --on-conflict archive: delete keys (of the prefix) that the backup does "
                    "not have");
  command->add_flag("--dry-run", arguments->options.dry_run,
                    "Say what would be written, and write nothing");

  CLI::App* failed_command = add_command(
      *command, "failed",
      "The retry list: records that could not be written (exit code 4 unless it is empty)",
      "sluice restore failed\n  sluice restore failed --retry\n  sluice restore failed --export "
      "failed.jsonl");
  failed_command->add_flag("--retry", arguments->retry, "Drive them again first");
  failed_command
      ->add_option("--export", arguments->export_file, "Write the list as JSON lines; - is stdout")
      ->type_name("FILE");
  // The group's own callback runs as well, and before: the leaf's stays.
  command->callback([&invocation, arguments, command] {
    if (!command->get_subcommands().empty()) return;
    invocation.run = [&invocation, arguments] { return restore(invocation, *arguments); };
  });
  on_run(failed_command, invocation, arguments, failed);
}

}  // namespace sluice

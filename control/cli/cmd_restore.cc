// sluice restore.
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <utility>

#include "base/text.h"
#include "control/cli/backup_report.h"
#include "control/cli/cancel_on_interrupt.h"
#include "control/cli/command.h"
#include "control/cli/output_file.h"
#include "control/cli/progress.h"
#include "control/cli/record_streams.h"
#include "control/contents/contents_source.h"

namespace sluice {
namespace {

struct RestoreArguments {
  RestoreRequest options;
  std::string restore;  // of a command about one
  std::string prefix;   // OLD or OLD=NEW
  std::string on_conflict = "newest";
  bool retry = false;
  std::string export_file;
  // Of a tree.
  TreeChoice choice;
  std::string to;
  std::string path;
  bool numeric_owner = false;
  bool force = false;
};

// Shows what a restore reports, and what it is called.
class RestoreWatch {
 public:
  RestoreWatch()
      : bar_([this] {
          const std::lock_guard lock(mutex_);
          return ProgressBar::State{progress_.bytes_done, progress_.bytes_total,
                                    std::string(progress_.stage)};
        }) {}
  void report(const RestoreProgress& progress) {
    {
      const std::lock_guard lock(mutex_);
      progress_ = progress;
    }
    named_.notify_all();
    if (!progress.message.empty()) bar_.note("sluice: " + progress.message);
  }
  // Waits for it; empty when `stop` comes first.
  std::string name(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    named_.wait(lock, std::move(stop), [this] { return !progress_.restore.empty(); });
    return progress_.restore;
  }
  void end(const absl::StatusOr<RestoreOutcome>& result) {
    if (result.ok() && (result->state == RestoreState::kCompleted ||
                        result->state == RestoreState::kCompletedWithFailures)) {
      bar_.finish();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any named_;
  RestoreProgress progress_;
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
    if (result->state == RestoreState::kCancelled) {
      outcome.error += fmt::format("; 'sluice restore resume {}' goes on with it", result->restore);
    }
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

// An interrupt cancels the restore, which says so and can be resumed.
Outcome drive(const Invocation& invocation,
              const std::function<absl::StatusOr<RestoreOutcome>(
                  ClusterClient& client, const RestoreCallback& progress)>& run) {
  return with_client(invocation, [&](ClusterClient& client) {
    RestoreWatch watch;
    const CancelOnInterrupt cancel(
        [&watch](std::stop_token stop) { return watch.name(std::move(stop)); },
        [&client](const std::string& name) { client.restore_cancel(name).IgnoreError(); });
    const auto result =
        run(client, [&](const RestoreProgress& progress) { watch.report(progress); });
    watch.end(result);
    return outcome_of(result);
  });
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

// Files of a tree into a directory of this machine.
Outcome restore_tree(const Invocation& invocation, const RestoreArguments& arguments) {
  const RestoreRequest& options = arguments.options;
  if (options.backup.empty() == options.archive_folders.empty()) {
    return usage_error("name a backup, or the directories of an archive with --archive DIR...");
  }
  if (arguments.to.empty()) {
    return usage_error("--tree {}: say with --to DIR where its files go", arguments.choice.tree);
  }
  if (!arguments.prefix.empty() || options.delete_extra || options.dry_run ||
      !options.source_cluster.empty() || arguments.on_conflict != "newest") {
    return usage_error(
        "--tree goes with --node, --path, --to, --numeric-owner and --force; the rest is of "
        "records");
  }
  std::string path = arguments.path == "." ? "" : arguments.path;
  while (path.ends_with('/')) path.pop_back();
  TreeExportOptions target;
  target.target.directory = arguments.to;
  target.target.numeric_owner = arguments.numeric_owner;
  target.target.replace_directories = arguments.force;
  return with_backup_contents(invocation, options.backup, options.archive_folders, arguments.choice,
                              [&](BackupContents& contents) {
                                ContentsSource source(contents, path);
                                Outcome outcome = export_tree_from(source, target, "restored");
                                outcome.fields["unchanged"] = 0;
                                return outcome;
                              });
}

Outcome restore(const Invocation& invocation, const RestoreArguments& arguments) {
  if (!arguments.choice.tree.empty()) return restore_tree(invocation, arguments);
  if (!arguments.choice.node.empty() || !arguments.to.empty() || !arguments.path.empty() ||
      arguments.numeric_owner || arguments.force) {
    return usage_error("--node, --to, --path, --numeric-owner and --force go with --tree NAME");
  }
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
  return drive(invocation, [&](ClusterClient& client, const RestoreCallback& progress) {
    return client.restore(options, progress);
  });
}

Outcome resume(const Invocation& invocation, const RestoreArguments& arguments) {
  return drive(invocation, [&](ClusterClient& client, const RestoreCallback& progress) {
    return client.restore_resume(arguments.restore, progress);
  });
}

Json view_json(const RestoreView& view) {
  Json json = {{"restore", view.restore},
               {"backup", view.backup},
               {"state", name_of(view.state)},
               {"on_conflict", name_of(view.on_conflict)},
               {"delete_extra", view.delete_extra},
               {"bytes_done", view.bytes_done},
               {"bytes_total", view.bytes_total},
               {"bytes_per_second", view.bytes_per_second},
               {"records", view.records},
               {"written", view.written},
               {"kept_newer", view.kept_newer},
               {"kept_deleted", view.kept_deleted},
               {"restored_over", view.restored_over},
               {"deleted_extra", view.deleted_extra},
               {"failed", view.failed},
               {"failed_deletions", view.failed_deletions},
               {"created", static_cast<double>(view.created_ms) / 1000},
               {"changed", static_cast<double>(view.changed_ms) / 1000}};
  json["seconds_left"] = view.seconds_left.has_value() ? Json(*view.seconds_left) : Json();
  if (!view.reason.empty()) json["reason"] = view.reason;
  if (!view.stage.empty()) json["stage"] = view.stage;
  if (!view.prefix.empty()) add_bytes(json, "prefix", view.prefix);
  if (view.renamed.has_value()) add_bytes(json, "renamed", *view.renamed);
  return json;
}

std::string progress_text(const RestoreView& view) {
  if (view.bytes_total == 0) return "";
  return fmt::format("{} of {}", human_bytes(static_cast<double>(view.bytes_done)),
                     human_bytes(static_cast<double>(view.bytes_total)));
}

std::string view_text(const RestoreView& view) {
  std::string text = fmt::format("restore {} of backup {}: {}{}\n", view.restore, view.backup,
                                 name_of(view.state), view.stage.empty() ? "" : ", " + view.stage);
  if (!view.reason.empty()) text += fmt::format("  because: {}\n", view.reason);
  if (!view.prefix.empty())
    text += fmt::format("  keys that begin with '{}'\n", printable(view.prefix, 200));
  if (view.renamed.has_value()) {
    text += fmt::format("  under keys that begin with '{}'\n", printable(*view.renamed, 200));
  }
  if (view.on_conflict == OnConflict::kArchive) {
    text += fmt::format("  rolls back to the backup's state{}\n",
                        view.delete_extra ? ", and deletes keys that it does not have" : "");
  }
  text += fmt::format("  begun {}\n", utc_text(view.created_ms));
  if (const std::string progress = progress_text(view); !progress.empty()) {
    text += fmt::format("  {}, {}/s\n", progress,
                        human_bytes(static_cast<double>(view.bytes_per_second)));
  }
  if (view.seconds_left.has_value()) {
    text += fmt::format("  {} left\n", human_seconds(*view.seconds_left));
  }
  if (view.state == RestoreState::kRunning) return text;
  return text + fmt::format(
                    "  {} written, {} kept newer, {} kept deleted, {} restored over, {} extra "
                    "deleted, {} failed\n",
                    human_count(view.written), human_count(view.kept_newer),
                    human_count(view.kept_deleted), human_count(view.restored_over),
                    human_count(view.deleted_extra), human_count(view.failed));
}

Outcome list(const Invocation& invocation, const RestoreArguments&) {
  return with_client(invocation, [&](ClusterClient& client) {
    const auto restores = client.restore_list();
    if (!restores.ok()) return failure(restores.status());
    Outcome outcome;
    outcome.fields["restores"] = Json::array();
    TextTable table({"restore", "backup", "begun", "state", "done", "left"});
    for (const RestoreView& view : *restores) {
      outcome.fields["restores"].push_back(view_json(view));
      table.add({view.restore, view.backup, utc_text(view.created_ms),
                 std::string(name_of(view.state)), progress_text(view),
                 view.seconds_left.has_value() ? human_seconds(*view.seconds_left) : ""});
    }
    outcome.text = restores->empty() ? "no restores\n" : table.str();
    return outcome;
  });
}

Outcome outcome_of_view(const absl::StatusOr<RestoreView>& view) {
  if (!view.ok()) return failure(view.status());
  Outcome outcome;
  outcome.fields = view_json(*view);
  outcome.text = view_text(*view);
  return outcome;
}

// Showing a failed restore is no failure.
Outcome show(const Invocation& invocation, const RestoreArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    return outcome_of_view(client.restore_show(arguments.restore));
  });
}

Outcome cancel(const Invocation& invocation, const RestoreArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    return outcome_of_view(client.restore_cancel(arguments.restore));
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
  const auto result =
      client.restore_retry([&](const RestoreProgress& progress) { watch.report(progress); });
  watch.end(result);
  return outcome_of(result);
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
      "  sluice restore nightly --on-conflict archive    (undo: deleted and overwritten records "
      "come "
      "back)\n"
      "  sluice restore nightly --on-conflict archive --delete-extra    (exactly the backup's "
      "state)\n"
      "  sluice restore nightly --prefix docs/=docs-of-monday/\n"
      "  sluice --cluster sqlite:/new/cluster.db restore nightly --from sqlite:/old/cluster.db\n"
      "  sluice --cluster sqlite:/new/cluster.db restore --archive /backup/n1/nightly "
      "/backup/n2/nightly\n"
      "  sluice restore nightly --tree scratch --node n3 --to /scratch\n"
      "\nInterrupted and run again, it goes on; with --on-conflict archive it begins anew, so that "
      "all that was written before it is run is undone, and 'sluice restore resume' goes on. "
      "Records that could not be written are kept on a retry list (exit code 4).");
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
  command
      ->add_option("--tree", arguments->choice.tree,
                   "Not records, but a tree of files that was backed up where it is")
      ->type_name("NAME");
  command
      ->add_option("--node", arguments->choice.node,
                   "Whose tree, where several nodes had one of that name")
      ->type_name("NODE");
  command->add_option("--to", arguments->to, "The directory of this machine that its files go to")
      ->type_name("DIR");
  command->add_option("--path", arguments->path, "Of the tree only what is there and below");
  command->add_flag("--numeric-owner", arguments->numeric_owner,
                    "Owners of files by number, not by name");
  command->add_flag("--force", arguments->force,
                    "Replace directories that stand in the place of files");

  CLI::App* failed_command = add_command(
      *command, "failed",
      "The retry list: records that could not be written (exit code 4 unless it is empty)",
      "sluice restore failed\n  sluice restore failed --retry\n  sluice restore failed --export "
      "failed.jsonl");
  failed_command->add_flag("--retry", arguments->retry, "Drive them again first");
  failed_command
      ->add_option("--export", arguments->export_file, "Write the list as JSON lines; - is stdout")
      ->type_name("FILE");
  const auto of_one = [&](const char* name, const char* about,
                          Outcome (*run)(const Invocation&, const RestoreArguments&)) {
    CLI::App* one =
        add_command(*command, name, about, fmt::format("sluice restore {} nightly", name));
    one->add_option("RESTORE", arguments->restore,
                    "Its id, or its backup's name where only one restore is of that backup")
        ->required();
    on_run(one, invocation, arguments, run);
  };
  on_run(add_command(*command, "list", "List the restores into this cluster, running or not",
                     "sluice restore list"),
         invocation, arguments, list);
  of_one("show", "Show one restore: how far it is, or how it ended", show);
  of_one("cancel", "Cancel a running restore; what is written stays", cancel);
  of_one("resume",
         "Go on with a restore that was interrupted, cancelled or failed, as it was begun", resume);
  // The group's own callback runs as well, and before: the leaf's stays.
  command->callback([&invocation, arguments, command] {
    if (!command->get_subcommands().empty()) return;
    invocation.run = [&invocation, arguments] { return restore(invocation, *arguments); };
  });
  on_run(failed_command, invocation, arguments, failed);
}

}  // namespace sluice

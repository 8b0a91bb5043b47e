// sluice backup and sluice schedule.
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "base/arena.h"
#include "base/text.h"
#include "control/cli/backup_report.h"
#include "control/cli/cancel_on_interrupt.h"
#include "control/cli/command.h"
#include "control/cli/progress.h"
#include "dataplane/archive/reader.h"

namespace sluice {
namespace {

struct BackupArguments {
  std::string backup;
  BackupOptions create;
  std::vector<std::string> archives;
  bool copies = false;
  bool force = false;
  bool orphans = false;
};

// Shows what a job on the cluster reports, and what it is called.
class JobWatch {
 public:
  JobWatch() : bar_([this] { return state(); }) {}

  void report(const BackupProgress& progress) {
    std::string note;
    bool new_message = false;
    {
      std::lock_guard lock(mutex_);
      new_message = !progress.message.empty() && progress.message != progress_.message;
      const auto before = progress_.state;
      progress_ = progress;
      if (!progress.state.has_value()) progress_.state = before;
      if (progress_.state != before) {
        note = fmt::format("sluice: backup {}: {}", progress.backup, name_of(*progress_.state));
      }
    }
    named_.notify_all();
    if (progress.state == BackupState::kCompleted) bar_.finish();
    if (!note.empty()) bar_.note(note);
    if (new_message) bar_.note("sluice: " + progress.message);
  }
  // Waits for it; empty when `stop` comes first.
  std::string name(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    named_.wait(lock, std::move(stop), [this] { return !progress_.backup.empty(); });
    return progress_.backup;
  }

 private:
  ProgressBar::State state() {
    std::lock_guard lock(mutex_);
    return {progress_.bytes_done, progress_.bytes_total,
            progress_.state.has_value() ? std::string(name_of(*progress_.state)) : std::string()};
  }
  std::mutex mutex_;
  std::condition_variable_any named_;
  BackupProgress progress_;
  ProgressBar bar_;
};

CancelOnInterrupt cancel_on_interrupt(ClusterClient& client, JobWatch& watch) {
  return {[&watch](std::stop_token stop) { return watch.name(std::move(stop)); },
          [&client](const std::string& name) { client.backup_cancel(name).IgnoreError(); }};
}

Outcome outcome_of(const absl::StatusOr<BackupView>& view) {
  if (!view.ok()) return failure(view.status());
  Outcome outcome;
  outcome.fields = backup_json(*view);
  outcome.text = backup_text(*view);
  if (view->state == BackupState::kFailed || view->state == BackupState::kCancelled) {
    outcome.code = kExitFailed;
    outcome.error = fmt::format("backup {} {}{}", view->backup,
                                view->deleting                        ? "is being deleted"
                                : view->state == BackupState::kFailed ? "failed"
                                                                      : "was cancelled",
                                view->reason.empty() ? "" : ": " + view->reason);
    if (view->state == BackupState::kFailed) {
      outcome.error += fmt::format("; 'sluice backup resume {}' goes on with it", view->backup);
    }
  }
  return outcome;
}

// Of a command that ends when the backup does. Its end may be missing: the cluster block took it
// from no coordinator.
Outcome outcome_of_run(const absl::StatusOr<BackupView>& view) {
  Outcome outcome = outcome_of(view);
  if (view.ok() && outcome.code == kExitDone && view->state != BackupState::kCompleted &&
      !view->dry_run) {
    outcome.code = kExitFailed;
    outcome.error = fmt::format(
        "backup {} is not completed, it is {}{}; 'sluice backup resume {}' goes on with it",
        view->backup, name_of(view->state), view->reason.empty() ? "" : ": " + view->reason,
        view->backup);
  }
  if (view.ok() && outcome.code == kExitDone) {
    uint64_t failed = 0;
    for (const TreeView& tree : view->trees) failed += tree.failed;
    if (failed > 0) {
      outcome.code = kExitFailed;
      outcome.error =
          fmt::format("backup {} is completed, without {} entries of trees that could not be read",
                      view->backup, failed);
    }
  }
  if (view.ok() && outcome.code == kExitDone && view->dry_run && !view->reason.empty()) {
    outcome.code = kExitFailed;
    outcome.error = fmt::format("backup {} cannot be planned: {}", view->backup, view->reason);
  }
  return outcome;
}

Outcome create(const Invocation& invocation, const BackupArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    JobWatch watch;
    const CancelOnInterrupt cancel = cancel_on_interrupt(client, watch);
    return outcome_of_run(
        client.backup_create(arguments.create, [&](const BackupProgress& p) { watch.report(p); }));
  });
}

Outcome resume(const Invocation& invocation, const BackupArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    JobWatch watch;
    const CancelOnInterrupt cancel = cancel_on_interrupt(client, watch);
    return outcome_of_run(
        client.backup_resume(arguments.backup, [&](const BackupProgress& p) { watch.report(p); }));
  });
}

Outcome list_orphans(ClusterClient& client) {
  const auto orphans = client.backup_orphans();
  if (!orphans.ok()) return failure(orphans.status());
  Outcome outcome;
  outcome.fields["orphans"] = Json::array();
  TextTable table({"backup", "node", "deleted", "path"});
  for (const OrphanView& orphan : *orphans) {
    outcome.fields["orphans"].push_back(
        {{"backup", orphan.backup},
         {"uuid", orphan.uuid},
         {"node", orphan.node},
         {"path", printable(orphan.path, 4096)},
         {"deleted", static_cast<double>(orphan.deleted_ms) / 1000}});
    table.add(
        {orphan.backup, orphan.node, utc_text(orphan.deleted_ms), printable(orphan.path, 4096)});
  }
  outcome.text = orphans->empty() ? "no parts of deleted backups are left\n" : table.str();
  return outcome;
}

Outcome list(const Invocation& invocation, const BackupArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    if (arguments.orphans) return list_orphans(client);
    const auto backups = client.backup_list();
    if (!backups.ok()) return failure(backups.status());
    Outcome outcome;
    outcome.fields["backups"] = Json::array();
    TextTable table({"backup", "created (UTC)", "state", "records", "bytes", "on disk", "nodes"});
    for (const BackupView& view : *backups) {
      Json nodes = Json::array();
      std::string names;
      for (const ArchivePlace& place : view.archives) {
        nodes.push_back(place.node);
        names += (names.empty() ? "" : ", ") + place.node;
      }
      outcome.fields["backups"].push_back({{"backup", view.backup},
                                           {"state", name_of(view.state)},
                                           {"records", view.records},
                                           {"bytes", view.bytes},
                                           {"created", static_cast<double>(view.created_ms) / 1000},
                                           {"bytes_stored", view.stored_bytes},
                                           {"nodes", std::move(nodes)}});
      table.add({view.backup, utc_text(view.created_ms), std::string(name_of(view.state)),
                 human_count(view.records), human_bytes(static_cast<double>(view.bytes)),
                 view.stored_bytes == 0 ? "" : human_bytes(static_cast<double>(view.stored_bytes)),
                 names});
    }
    outcome.text = backups->empty() ? "no backups\n" : table.str();
    return outcome;
  });
}

// Showing a failed backup is no failure.
Outcome show(const Invocation& invocation, const BackupArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    Outcome outcome = outcome_of(client.backup_show(arguments.backup));
    if (!outcome.fields.empty()) outcome.code = kExitDone;
    return outcome;
  });
}

Outcome cancel(const Invocation& invocation, const BackupArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    Outcome outcome = outcome_of(client.backup_cancel(arguments.backup));
    if (!outcome.fields.empty()) outcome.code = kExitDone;
    return outcome;
  });
}

Outcome remove(const Invocation& invocation, const BackupArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    if (absl::Status status = client.backup_delete(arguments.backup, arguments.force); !status.ok())
      return failure(status);
    Outcome outcome;
    outcome.fields["backup"] = arguments.backup;
    outcome.text = fmt::format("backup {} deleted\n", arguments.backup);
    return outcome;
  });
}

Outcome outcome_of(const VerifyResult& result) {
  Outcome outcome;
  outcome.fields = verify_json(result);
  outcome.text = fmt::format("{} blocks, {}: {}\n", human_count(result.blocks),
                             human_bytes(static_cast<double>(result.bytes)),
                             !result.bad.empty()         ? "BAD"
                             : result.unreadable.empty() ? "all good"
                                                         : "not all could be read");
  for (const auto* problems : {&result.bad, &result.unreadable}) {
    for (const VerifyProblem& problem : *problems) {
      outcome.text += fmt::format("  {} at {}", problem.file, problem.offset);
      if (problem.slot >= 0) outcome.text += fmt::format(", slot {}", problem.slot);
      outcome.text += fmt::format(": {}\n", problem.reason);
    }
  }
  if (result.bad.empty() && !result.unreadable.empty()) {
    outcome.code = kExitFailed;
    outcome.error = fmt::format("not all could be checked, {} could not be read: {}: {}",
                                counted(result.unreadable.size(), "place"),
                                result.unreadable[0].file, result.unreadable[0].reason);
  } else if (!result.bad.empty()) {
    outcome.code = kExitDataBad;
    outcome.error =
        fmt::format("{}, the first is {} at {}: {}", counted(result.bad.size(), "problem"),
                    result.bad[0].file, result.bad[0].offset, result.bad[0].reason);
  }
  return outcome;
}

// A bar, and the call that moves it.
class VerifyWatch {
 public:
  VerifyWatch() : bar_([this] { return ProgressBar::State{done_, total_, "verify"}; }) {}
  void report(uint64_t done, uint64_t total) {
    done_ = done;
    total_ = total;
  }
  void finish() { bar_.finish(); }

 private:
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> total_{0};
  ProgressBar bar_;
};

Outcome verify_archive_command(const BackupArguments& arguments) {
  auto arena = Arena::create({.bytes = kVerifyBuffers * kBufferBytes});
  if (!arena.ok()) return failure(arena.status());
  VerifyWatch watch;
  const auto report = verify_archive(arguments.archives, **arena, [&](uint64_t now, uint64_t all) {
    watch.report(now, all);
    return true;
  });
  if (!report.ok()) return failure(report.status());
  watch.finish();
  return outcome_of(VerifyResult{report->blocks, report->bytes, report->bad, report->unreadable});
}
Outcome verify(const Invocation& invocation, const BackupArguments& arguments) {
  if (arguments.backup.empty() == arguments.archives.empty()) {
    return usage_error("name a backup, or the directories of an archive with --archive DIR...");
  }
  if (!arguments.archives.empty()) return verify_archive_command(arguments);
  return with_client(invocation, [&](ClusterClient& client) {
    VerifyWatch watch;
    const auto result = client.backup_verify(
        arguments.backup, [&](uint64_t done, uint64_t total) { watch.report(done, total); });
    if (!result.ok()) return failure(result.status());
    watch.finish();
    return outcome_of(*result);
  });
}

std::string copies_text(const ScheduleView& view, bool each) {
  if (each) {
    TextTable table({"slot", "source", "target", "state", "bytes"});
    for (const ScheduledCopy& copy : view.copies) {
      table.add({std::to_string(copy.slot), copy.source, copy.target,
                 std::string(name_of(copy.state)), std::to_string(copy.bytes)});
    }
    return table.str();
  }
  struct Sum {
    uint64_t copies = 0;
    uint64_t divergent = 0;
    uint64_t bytes = 0;
  };
  std::map<std::tuple<std::string, std::string, std::string>, Sum> sums;
  for (const ScheduledCopy& copy : view.copies) {
    Sum& sum = sums[{copy.source, copy.target, std::string(name_of(copy.state))}];
    sum.copies += 1;
    sum.divergent += copy.divergent ? 1 : 0;
    sum.bytes += copy.bytes;
  }
  TextTable table({"source", "target", "state", "copies", "divergent", "bytes"});
  for (const auto& [key, sum] : sums) {
    table.add({std::get<0>(key), std::get<1>(key), std::get<2>(key), human_count(sum.copies),
               human_count(sum.divergent), human_bytes(static_cast<double>(sum.bytes))});
  }
  return table.str();
}

std::string nodes_text(const std::vector<ScheduledNode>& nodes) {
  if (nodes.empty()) return "";
  TextTable table({"node", "predicted", "actual", "most of it"});
  for (const ScheduledNode& node : nodes) {
    table.add(
        {node.name, human_seconds(node.predicted_s),
         node.bottleneck == ScheduledNode::Bottleneck::kNone ? "" : human_seconds(node.actual_s),
         std::string(name_of(node.bottleneck))});
  }
  return table.str();
}

Outcome show_schedule(const Invocation& invocation, const BackupArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    const auto view = client.schedule_show(arguments.backup);
    if (!view.ok()) return failure(view.status());
    Outcome outcome;
    outcome.fields = backup_json(view->backup);
    outcome.fields["copies"] = Json::array();
    for (const ScheduledCopy& copy : view->copies) {
      outcome.fields["copies"].push_back({{"slot", copy.slot},
                                          {"source", copy.source},
                                          {"target", copy.target},
                                          {"state", name_of(copy.state)},
                                          {"divergent", copy.divergent},
                                          {"bytes", copy.bytes}});
    }
    outcome.fields["nodes"] = Json::array();
    for (const ScheduledNode& node : view->nodes) {
      outcome.fields["nodes"].push_back({{"name", node.name},
                                         {"predicted_s", node.predicted_s},
                                         {"actual_s", node.actual_s},
                                         {"bottleneck", name_of(node.bottleneck)}});
    }
    const std::string bottleneck = bottleneck_text(view->backup.stages);
    outcome.text =
        fmt::format("backup {}: {}\n{}{}{}", view->backup.backup, name_of(view->backup.state),
                    bottleneck.empty() ? "" : "bounded by " + bottleneck + "\n",
                    nodes_text(view->nodes), copies_text(*view, arguments.copies));
    return outcome;
  });
}

void register_create(CLI::App& backup, Invocation& invocation,
                     const std::shared_ptr<BackupArguments>& arguments) {
  CLI::App* command = add_command(
      backup, "create", "Back the whole cluster up into one consolidated copy",
      "sluice backup create --name nightly\n  sluice backup create --target n1 --target n2\n"
      "  sluice backup create --dry-run    (plan only: bytes, seconds)\n"
      "\nAn interrupt (Ctrl-C) cancels the backup.");
  command->add_option("--name", arguments->create.name,
                      "Its name; made from the date without this");
  command
      ->add_option("--target", arguments->create.targets,
                   "A node that keeps a part of the copy; may be repeated")
      ->allow_extra_args(false)
      ->type_name("NODE");
  command
      ->add_option("--tree", arguments->create.trees,
                   "Of the nodes' trees only those of this name; may be repeated. All without it")
      ->allow_extra_args(false)
      ->type_name("NAME");
  command->add_flag("--no-records", arguments->create.no_records, "Trees alone");
  command->add_flag("--rescan", arguments->create.rescan,
                    "Read all files of trees, whatever is known of them");
  command->add_flag("--dry-run", arguments->create.dry_run, "Plan it, and move nothing");
  on_run(command, invocation, arguments, create);
}

}  // namespace

void register_backup(CLI::App& app, Invocation& invocation) {
  CLI::App* backup = add_command(app, "backup", "Make, list, check, look into and remove backups",
                                 "sluice backup create");
  backup->require_subcommand(1, 1);
  const auto arguments = std::make_shared<BackupArguments>();
  register_create(*backup, invocation, arguments);
  CLI::App* listing = add_command(*backup, "list", "List the backups: dates, sizes, nodes",
                                  "sluice backup list\n  sluice backup list --orphans");
  listing->add_flag("--orphans", arguments->orphans,
                    "List what is left of deleted backups on nodes that were gone: they remove it "
                    "when they return");
  on_run(listing, invocation, arguments, list);
  const auto of_one = [&](const char* name, const char* about,
                          Outcome (*run)(const Invocation&, const BackupArguments&)) {
    CLI::App* command =
        add_command(*backup, name, about, fmt::format("sluice backup {} nightly", name));
    command->add_option("BACKUP", arguments->backup, "Its name or UUID")->required();
    on_run(command, invocation, arguments, run);
    return command;
  };
  of_one("show", "Show one backup", show);
  of_one("resume", "Go on with a backup that failed or whose coordinator died", resume);
  of_one("cancel", "Cancel a running backup", cancel);
  of_one("delete", "Delete a backup and its archives", remove)
      ->add_flag("--force", arguments->force,
                 "Do not wait for nodes that are gone for good: their parts are remembered, and "
                 "removed should they return");
  CLI::App* check = add_command(
      *backup, "verify",
      "Check every block, record and digest of a backup; exit code 3 if something is bad",
      "sluice backup verify nightly\n  sluice backup verify --archive /backup/n1/nightly "
      "/backup/n2/nightly    (needs no "
      "cluster)");
  check->add_option("BACKUP", arguments->backup, "Its name or UUID");
  check->add_option("--archive", arguments->archives, "The directories of an archive's parts")
      ->type_name("DIR");
  on_run(check, invocation, arguments, verify);
  register_contents(*backup, invocation);
  register_backup_files(*backup, invocation);

  CLI::App* schedule = add_command(app, "schedule", "See who sends which copies to whom",
                                   "sluice schedule show nightly");
  schedule->require_subcommand(1, 1);
  CLI::App* show_command =
      add_command(*schedule, "show", "Show the state of each copy of a backup's schedule",
                  "sluice schedule show nightly");
  show_command->add_option("BACKUP", arguments->backup, "Its name or UUID")->required();
  show_command->add_flag("--copies", arguments->copies,
                         "List each copy, not sums by source, target and state");
  on_run(show_command, invocation, arguments, show_schedule);
}

}  // namespace sluice

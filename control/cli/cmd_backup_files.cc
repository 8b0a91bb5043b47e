// sluice backup export and mount: the files of backups, without restoring them.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "control/cli/command.h"
#include "control/cli/output_file.h"
#include "control/cli/progress.h"
#include "control/cli/record_streams.h"
#include "control/cli/standard_streams.h"
#include "control/contents/tar_export.h"
#include "control/mount/file_system.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

struct ExportArguments {
  std::string backup;
  std::vector<std::string> archives;
  TreeChoice choice;
  std::string path;
  std::string tar;
};

// What is in the backup and not in the archive.
std::string left_out_text(const TarExportResult& result) {
  std::string text;
  if (result.records_left_out > 0) {
    text += fmt::format("sluice: left out {} that {} not {} of an imported tree\n",
                        counted(result.records_left_out, "record"),
                        result.records_left_out == 1 ? "is" : "are",
                        result.records_left_out == 1 ? "an entry" : "entries");
  }
  if (result.superseded > 0) {
    text += fmt::format(
        "sluice: left out {} whose place another one has: below what is not a directory now, or "
        "with "
        "the same path\n",
        result.superseded == 1 ? "1 entry" : human_count(result.superseded) + " entries");
  }
  return text;
}

Outcome export_backup(const Invocation& invocation, const ExportArguments& arguments) {
  if (arguments.backup.empty() == arguments.archives.empty()) {
    return usage_error("say one of BACKUP and --archive DIR...");
  }
  if (!arguments.choice.node.empty() && arguments.choice.tree.empty()) {
    return usage_error("--node is of a tree: say which with --tree NAME");
  }
  if (arguments.path.size() > kMaxKeyBytes) {
    return usage_error("a path of {} bytes; keys have at most {}", arguments.path.size(),
                       kMaxKeyBytes);
  }
  const bool to_stdout = arguments.tar == "-";
  if (invocation.json && to_stdout) {
    return usage_error("--json and the archive would both write stdout; name a file with --tar");
  }
  return with_backup_contents(
      invocation, arguments.backup, arguments.archives, arguments.choice,
      [&](BackupContents& contents) {
        RunningStream stream("export");
        const auto file = OutputFile::open(arguments.tar);
        if (!file.ok()) return failure(file.status());
        const std::string path = arguments.path == "." ? "" : arguments.path;
        const auto result = export_tar(contents, path, [&](std::string_view bytes) -> absl::Status {
          if (stream.progress.cancelled) return cancelled("interrupted; no archive is left");
          stream.progress.bytes += bytes.size();
          return (*file)->write(bytes);
        });
        absl::Status status = result.status();
        if (status.ok()) status = (*file)->commit();
        if (!status.ok()) {
          Outcome failed = failure(status);
          if ((*file)->reader_gone()) failed.error.clear();  // it knows
          return failed;
        }
        stream.bar.finish();
        print_stderr("{}", left_out_text(*result));
        Outcome outcome;
        outcome.fields["files"] = result->files;
        outcome.fields["directories"] = result->directories;
        outcome.fields["links"] = result->links;
        outcome.fields["specials"] = result->specials;
        outcome.fields["hard_links"] = result->hard_links;
        outcome.fields["bytes"] = result->bytes;
        outcome.fields["records_left_out"] = result->records_left_out;
        outcome.fields["superseded"] = result->superseded;
        outcome.fields["seconds"] = stream.seconds();
        if (!to_stdout) {
          outcome.text = fmt::format(
              "exported {}, {} and {} with {} of content to {}\n", counted(result->files, "file"),
              result->directories == 1 ? "1 directory"
                                       : human_count(result->directories) + " directories",
              counted(result->links, "symbolic link"),
              human_bytes(static_cast<double>(result->bytes)), printable(arguments.tar, 4096));
        }
        return outcome;
      });
}

// ---- mount

struct MountArguments {
  std::string directory;
  std::vector<std::string> archives;
  bool allow_other = false;
};

// The completed backups of a cluster.
class ClusterSource final : public BackupSource {
 public:
  explicit ClusterSource(ClusterClient& client) : client_(client) {}

  absl::StatusOr<std::vector<MountableBackup>> list() override {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<BackupView> views, client_.backup_list());
    std::vector<MountableBackup> backups;
    for (const BackupView& view : views) {
      if (view.state != BackupState::kCompleted) continue;
      backups.push_back({view.backup, view.uuid, view.created_ms});
    }
    return backups;
  }
  absl::StatusOr<std::unique_ptr<BackupContents>> open(const MountableBackup& backup) override {
    return client_.backup_contents(backup.id, {});
  }

 private:
  ClusterClient& client_;
};

Outcome serve_mount(BackupSource& source, const MountArguments& arguments) {
  const auto system =
      BackupFileSystem::mount(source, {arguments.directory, arguments.allow_other},
                              [](const std::string& line) { print_stderr("sluice: {}\n", line); });
  if (!system.ok()) return failure(system.status());
  const Interrupts::Handler interrupt([&] { (*system)->stop(); });
  print_stderr("sluice: backups are in {}; Ctrl-C or 'umount {}' ends this\n",
               printable(arguments.directory, 4096), printable(arguments.directory, 4096));
  if (const absl::Status served = (*system)->serve(); !served.ok()) return failure(served);
  Outcome outcome;
  add_bytes(outcome.fields, "directory", arguments.directory);
  return outcome;
}

Outcome mount_backups(const Invocation& invocation, const MountArguments& arguments) {
  if (!arguments.archives.empty()) {
    const auto source = open_local_source(arguments.archives);
    return source.ok() ? serve_mount(**source, arguments) : failure(source.status());
  }
  return with_client(invocation, [&](ClusterClient& client) {
    ClusterSource source(client);
    return serve_mount(source, arguments);
  });
}

void register_mount(CLI::App& backup, Invocation& invocation) {
  const auto arguments = std::make_shared<MountArguments>();
  CLI::App* command = add_command(
      backup, "mount", "Show backups as a file system, read-only, until interrupted",
      "sluice backup mount /mnt\n"
      "  sluice backup mount /mnt --archive /backup/*/monday /backup/*/tuesday    (needs no "
      "cluster)\n"
      "\nEach complete backup is a directory of its name, with the files of imported trees and "
      "records as\nfiles. Reading takes what is read from the backup, and no more. Needs FUSE: "
      "/dev/fuse, and root or\nthe program fusermount3.");
  command->add_option("DIR", arguments->directory, "A directory")->required();
  command
      ->add_option("--archive", arguments->archives,
                   "The directories of the parts of one or more archives, in place of a cluster")
      ->type_name("DIR");
  command->add_flag(
      "--allow-other", arguments->allow_other,
      "Let other users in, by the modes and owners of the files; otherwise who mounts "
      "reads all, and nobody else");
  on_run(command, invocation, arguments, mount_backups);
}

}  // namespace

void register_backup_files(CLI::App& backup, Invocation& invocation) {
  const auto arguments = std::make_shared<ExportArguments>();
  CLI::App* command = add_command(
      backup, "export", "Write the files of a backup as an archive for tar",
      "sluice backup export nightly --tar nightly.tar\n"
      "  sluice backup export nightly --tar - --path docs | tar -x -p --xattrs --acls\n"
      "  sluice backup export --archive /backup/n1/nightly /backup/n2/nightly --tar nightly.tar\n"
      "\nHas the files, directories, links, pipes and devices of imported trees, with modes, "
      "owners, times,\nextended attributes and holes; other records are counted and left out. All "
      "content is checked: exit\ncode 3 where that fails, and then there is no FILE (on stdout, no "
      "end of the archive).");
  command->add_option("BACKUP", arguments->backup, "Its name or UUID; left out with --archive");
  command
      ->add_option("--archive", arguments->archives,
                   "The directories of an archive's parts; needs no cluster")
      ->type_name("DIR");
  command
      ->add_option("--tar", arguments->tar,
                   "The archive (pax format), replaced when all is written; - is stdout")
      ->type_name("FILE")
      ->required();
  command->add_option("--path", arguments->path, "Only what is at this path and below it");
  command
      ->add_option("--tree", arguments->choice.tree,
                   "Of a tree that was backed up where it is, not of the records")
      ->type_name("NAME");
  command
      ->add_option("--node", arguments->choice.node,
                   "Whose tree, where several nodes had one of that name")
      ->type_name("NODE");
  on_run(command, invocation, arguments, export_backup);
  register_mount(backup, invocation);
}

}  // namespace sluice

// sluice backup ls, find, cat and diff: what is in a backup, without restoring it.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "control/cli/command.h"
#include "control/cli/output_file.h"
#include "control/cli/standard_streams.h"
#include "control/contents/backup_contents.h"
#include "control/contents/content_reader.h"
#include "control/contents/entry_spill.h"
#include "dataplane/block/record.h"
#include "tree/path_patterns.h"

namespace sluice {
namespace {

// What --json holds in memory, unless another limit is given.
constexpr uint64_t kJsonEntries = 1'000'000;
constexpr int64_t kNanosecondsOfMs = 1'000'000;
constexpr size_t kPrintedPath = size_t{2} * kMaxKeyBytes;

struct ContentsArguments {
  std::string backup;
  std::string path;
  std::vector<std::string> archives;
  TreeChoice choice;
  std::vector<std::string> others;  // diff: directories of the second archive
  std::string prefix;
  std::string name;
  std::string type;
  std::string out;
  uint64_t limit = 0;  // 0: kJsonEntries with --json, else none
  bool zeros = false;
};

// With --archive the first word is the path: the backup has no name then.
Outcome with_contents(const Invocation& invocation, const ContentsArguments& arguments,
                      bool path_needed,
                      const std::function<Outcome(BackupContents&, const std::string&)>& body) {
  std::string path = arguments.path;
  if (arguments.archives.empty()) {
    if (arguments.backup.empty()) {
      return usage_error("name a backup, or the directories of an archive with --archive DIR...");
    }
  } else {
    if (!path.empty()) return usage_error("say one of BACKUP and --archive DIR...");
    path = arguments.backup;
  }
  if (path_needed && path.empty()) return usage_error("say which PATH");
  if (!arguments.choice.node.empty() && arguments.choice.tree.empty()) {
    return usage_error("--node is of a tree: say which with --tree NAME");
  }
  if (path.size() > kMaxKeyBytes) {
    return usage_error("a path of {} bytes; keys have at most {}", path.size(), kMaxKeyBytes);
  }
  return with_backup_contents(invocation, arguments.backup, arguments.archives, arguments.choice,
                              [&](BackupContents& contents) { return body(contents, path); });
}

Json entry_json(const BackupEntry& entry) {
  Json json;
  json["path_b64"] = base64_encode(entry.path);
  json["type"] = name_of(entry.type);
  json["size"] = nullptr;
  json["mode"] = nullptr;
  json["mtime_ns"] = nullptr;
  if (!entry.unresolved) json["size"] = entry.size;
  if (entry.has_metadata()) {
    json["mode"] = entry.mode;
    json["mtime_ns"] = entry.mtime_ns;
  }
  json["node"] = entry.node;
  if (!entry.target.empty()) json["target_b64"] = base64_encode(entry.target);
  return json;
}

// "file       0644          1,234  2026-03-01 12:00:05  notes.txt".
std::string entry_line(const BackupEntry& entry, std::string_view shown) {
  const bool tree = entry.has_metadata();
  const bool sized = entry.type != EntryType::kPrefix && !entry.unresolved;
  std::string line = fmt::format(
      "{:<9}  {:<4}  {:>15}  {:<19}  {}", name_of(entry.type),
      tree ? fmt::format("{:04o}", entry.mode) : "", sized ? human_count(entry.size) : "",
      tree ? utc_text(entry.mtime_ns / kNanosecondsOfMs) : "", printable(shown, kPrintedPath));
  if (entry.type == EntryType::kDirectory || entry.type == EntryType::kPrefix) line += '/';
  if (entry.type == EntryType::kSymlink) line += " -> " + printable(entry.target, kPrintedPath);
  if (entry.type == EntryType::kHardLink) line += " => " + printable(entry.target, kPrintedPath);
  return line + "\n";
}

// Lines go to stdout as they come; with --json they are put into arrays, up to the limit.
class EntryPrinter {
 public:
  static absl::StatusOr<std::unique_ptr<EntryPrinter>> open(const Invocation& invocation,
                                                            const ContentsArguments& arguments) {
    std::unique_ptr<EntryPrinter> printer(new EntryPrinter(invocation.json, arguments.limit));
    if (!invocation.json) {
      SLUICE_ASSIGN_OR_RETURN(printer->file_, OutputFile::open("-"));
    }
    return printer;
  }
  // CANCELLED once there are as many as the limit says.
  template <typename MakeJson, typename MakeLine>
  absl::Status add(const char* array, const MakeJson& make_json, const MakeLine& make_line) {
    if (printed_ == limit_) {
      full_ = true;
      return cancelled("as many as were asked for");
    }
    ++printed_;
    if (file_ != nullptr) return file_->write(make_line());
    fields_[array].push_back(make_json());
    return absl::OkStatus();
  }
  Json& fields() { return fields_; }

  // What a command ends with that had this status.
  Outcome finish(absl::Status status) {
    if (full_ && absl::IsCancelled(status)) status = absl::OkStatus();
    if (status.ok() && file_ != nullptr) status = file_->commit();
    if (!status.ok()) {
      // What comes before a damaged place is shown all the same.
      if (file_ != nullptr && !file_->reader_gone()) file_->commit().IgnoreError();
      Outcome failed = failure(status);
      if (file_ != nullptr && file_->reader_gone()) failed.error.clear();  // it knows
      return failed;
    }
    Outcome outcome;
    fields_["truncated"] = full_;
    outcome.fields = std::move(fields_);
    if (full_ && file_ != nullptr) {
      print_stderr("sluice: there is more: --limit {} was reached\n", limit_);
    }
    return outcome;
  }

 private:
  EntryPrinter(bool json, uint64_t limit)
      : limit_(limit != 0 ? limit
               : json     ? kJsonEntries
                          : std::numeric_limits<uint64_t>::max()) {}

  const uint64_t limit_;
  std::unique_ptr<OutputFile> file_;  // null with --json
  Json fields_ = Json::object();
  uint64_t printed_ = 0;
  bool full_ = false;
};

absl::Status nothing_there(const BackupContents& contents, const std::string& path) {
  return not_found("'{}' is not in {}", printable(path, kMaxKeyBytes), contents.description());
}

// A tree that was imported without a prefix has its root there.
std::string listed_path(const std::string& path) { return path == "." ? "" : path; }

// Hard links say no more than which file they are names of. They are held back until everything
// else is listed; then the files that links name are, wherever they lie, and the two are joined.
class LinkResolver {
 public:
  absl::Status add(const BackupEntry& link) {
    ++links_;
    return entries_.add(kLink, link, link.target + kLinkAfterFile);
  }
  absl::Status resolve(BackupContents& contents, const BackupContents::VisitEntry& visit) {
    if (links_ == 0) return absl::OkStatus();
    ContentsListing files;
    files.linked = true;
    SLUICE_RETURN_IF_ERROR(contents.list(
        files, [this](const BackupEntry& file) { return entries_.add(kFile, file, file.path); }));
    std::optional<BackupEntry> file;
    return entries_.drain([&](uint8_t kind, BackupEntry entry) {
      if (kind == kFile) {
        file = std::move(entry);
        return absl::OkStatus();
      }
      if (file.has_value() && file->path == entry.target) {
        entry.size = file->size;
        entry.mode = file->mode;
        entry.mtime_ns = file->mtime_ns;
        entry.unresolved = false;
      }
      return visit(std::move(entry));
    });
  }

 private:
  static constexpr uint8_t kFile = 0;
  static constexpr uint8_t kLink = 1;
  // Sorts a link behind the file that it names, and before every other file: no path holds a NUL.
  static constexpr char kLinkAfterFile = '\0';

  EntrySpill entries_;
  uint64_t links_ = 0;
};

// As BackupContents::list(), with the hard links at the end, as the files that they are.
absl::Status list_entries(BackupContents& contents, const ContentsListing& listing,
                          const BackupContents::VisitEntry& visit) {
  LinkResolver links;
  SLUICE_RETURN_IF_ERROR(contents.list(listing, [&](BackupEntry entry) {
    return entry.type == EntryType::kHardLink ? links.add(entry) : visit(std::move(entry));
  }));
  return links.resolve(contents, visit);
}

// ---- ls

// The children of a directory, sorted and each once: a prefix is not shown where an entry has its
// path.
class DirectoryPrinter {
 public:
  DirectoryPrinter(EntryPrinter& printer, const std::string& below)
      : printer_(printer), below_(below) {}

  absl::Status add(BackupEntry entry) {
    const bool again = last_.has_value() && last_->path == entry.path;
    if (again && entry.type == EntryType::kPrefix) return absl::OkStatus();
    if (!again || last_->type != EntryType::kPrefix) SLUICE_RETURN_IF_ERROR(finish());
    last_ = std::move(entry);
    return absl::OkStatus();
  }
  absl::Status finish() {
    if (!last_.has_value()) return absl::OkStatus();
    const BackupEntry entry = *std::exchange(last_, std::nullopt);
    const std::string_view shown =
        std::string_view(entry.path).substr(entry.path.starts_with(below_) ? below_.size() : 0);
    return printer_.add(
        "entries", [&] { return entry_json(entry); }, [&] { return entry_line(entry, shown); });
  }

 private:
  EntryPrinter& printer_;
  const std::string& below_;
  std::optional<BackupEntry> last_;
};

absl::Status list_directory(BackupContents& contents, const std::string& path,
                            EntryPrinter& printer) {
  ContentsListing listing;
  listing.path = path;
  listing.children = true;
  EntrySpill children;
  EntrySpill itself;  // the entry at the path, where it is not a directory
  uint64_t below = 0;
  bool found = path.empty();
  SLUICE_RETURN_IF_ERROR(list_entries(contents, listing, [&](const BackupEntry& entry) {
    found = true;
    if (!entry.itself) {
      ++below;
      return children.add(0, entry);
    }
    return entry.type == EntryType::kDirectory ? absl::OkStatus() : itself.add(0, entry);
  }));
  if (!found) return nothing_there(contents, path);
  const std::string prefix = ListedPath(path).below();
  DirectoryPrinter directory(printer, prefix);
  SLUICE_RETURN_IF_ERROR((below > 0 ? children : itself).drain([&](uint8_t, BackupEntry entry) {
    return directory.add(std::move(entry));
  }));
  return directory.finish();
}

Outcome ls(const Invocation& invocation, const ContentsArguments& arguments) {
  return with_contents(
      invocation, arguments, false, [&](BackupContents& contents, const std::string& path) {
        const auto printer = EntryPrinter::open(invocation, arguments);
        if (!printer.ok()) return failure(printer.status());
        (*printer)->fields()["path_b64"] = base64_encode(path);
        (*printer)->fields()["entries"] = Json::array();
        return (*printer)->finish(list_directory(contents, listed_path(path), **printer));
      });
}

// ---- find

std::string_view last_name(std::string_view path) {
  return path.substr(path.find_last_of('/') + 1);
}

absl::Status find_entries(BackupContents& contents, const std::string& path,
                          const ContentsArguments& arguments, std::optional<EntryType> type,
                          EntryPrinter& printer) {
  ContentsListing listing;
  listing.path = path;
  bool found = path.empty();
  const auto print = [&](const BackupEntry& entry) -> absl::Status {
    found = true;
    if (type.has_value() && entry.type != *type) return absl::OkStatus();
    if (!arguments.name.empty() && !name_matches(arguments.name, last_name(entry.path))) {
      return absl::OkStatus();
    }
    return printer.add(
        "entries", [&] { return entry_json(entry); },
        [&] {
          return arguments.zeros ? entry.path + '\0' : printable(entry.path, kPrintedPath) + "\n";
        });
  };
  SLUICE_RETURN_IF_ERROR(list_entries(contents, listing, print));
  return found ? absl::OkStatus() : nothing_there(contents, path);
}

Outcome find(const Invocation& invocation, const ContentsArguments& arguments) {
  const std::optional<EntryType> type = entry_type_named(arguments.type);
  if (!arguments.type.empty() && (!type.has_value() || *type == EntryType::kPrefix)) {
    return usage_error(
        "--type {}: one of record, directory, file, symlink, hardlink, pipe, chardev, blockdev",
        printable(arguments.type));
  }
  if (arguments.name.find('/') != std::string::npos) {
    return usage_error("--name {}: names have no '/'; give a PATH", printable(arguments.name));
  }
  return with_contents(invocation, arguments, false,
                       [&](BackupContents& contents, const std::string& path) {
                         const auto printer = EntryPrinter::open(invocation, arguments);
                         if (!printer.ok()) return failure(printer.status());
                         (*printer)->fields()["path_b64"] = base64_encode(path);
                         (*printer)->fields()["entries"] = Json::array();
                         return (*printer)->finish(
                             find_entries(contents, listed_path(path), arguments, type, **printer));
                       });
}

// ---- cat

Outcome cat(const Invocation& invocation, const ContentsArguments& arguments) {
  const bool to_stdout = arguments.out.empty() || arguments.out == "-";
  if (invocation.json && to_stdout) {
    return usage_error("--json and the content would both write stdout; add --out FILE");
  }
  return with_contents(
      invocation, arguments, true, [&](BackupContents& contents, const std::string& path) {
        // The file is made once it is known that there is something to write.
        std::unique_ptr<OutputFile> file;
        const auto open = [&]() -> absl::Status {
          if (file != nullptr) return absl::OkStatus();
          SLUICE_ASSIGN_OR_RETURN(file, OutputFile::open(to_stdout ? "-" : arguments.out));
          return absl::OkStatus();
        };
        const auto result = read_content(contents, path, [&](std::string_view piece) {
          const absl::Status opened = open();
          return opened.ok() ? file->write(piece) : opened;
        });
        absl::Status status = result.status();
        if (status.ok()) status = open();
        if (status.ok()) status = file->commit();
        if (!status.ok()) {
          Outcome failed = failure(status);
          if (file != nullptr && file->reader_gone()) failed.error.clear();  // it knows
          return failed;
        }
        Outcome outcome;
        outcome.fields["path_b64"] = base64_encode(path);
        outcome.fields["type"] = name_of(result->type);
        outcome.fields["bytes"] = result->bytes;
        return outcome;
      });
}

// ---- diff

constexpr uint8_t kBefore = 0;
constexpr uint8_t kAfter = 1;

// Which slots may hold a difference, on each side; `all` where the two cannot be compared by slot.
struct DifferingSlots {
  std::set<uint32_t> slots[2];
  uint64_t read = 0;
  bool all = false;
};

DifferingSlots differing_slots(const BackupSlots& before, const BackupSlots& after) {
  DifferingSlots differing;
  differing.all = before.slot_bits != after.slot_bits;
  if (differing.all) {
    differing.read = before.slots.size() + after.slots.size();
    return differing;
  }
  const BackupSlots* sides[2] = {&before, &after};
  for (const size_t side : {kBefore, kAfter}) {
    for (const auto& [number, slot] : sides[side]->slots) {
      const auto other = sides[1 - side]->slots.find(number);
      if (other != sides[1 - side]->slots.end() && other->second.digest == slot.digest) continue;
      differing.slots[side].insert(number);
    }
    differing.read += differing.slots[side].size();
  }
  return differing;
}

// Entries of both sides by path, and what became of each.
class DiffPrinter {
 public:
  explicit DiffPrinter(EntryPrinter& printer) : printer_(printer) {}

  absl::Status add(uint8_t side, BackupEntry entry) {
    const bool same = !path_.empty() && entry.path == path_;
    if (!same) SLUICE_RETURN_IF_ERROR(finish());
    path_ = entry.path;
    sides_[side].push_back(std::move(entry));
    return absl::OkStatus();
  }

  // Of one path: what is the same on both sides is left out.
  absl::Status finish() {
    std::vector<BackupEntry> before = std::exchange(sides_[kBefore], {});
    std::vector<BackupEntry> after = std::exchange(sides_[kAfter], {});
    for (auto old = before.begin(); old != before.end();) {
      const auto same = std::find_if(after.begin(), after.end(), [&](const BackupEntry& entry) {
        return entry.type == old->type && entry.digest == old->digest;
      });
      if (same == after.end()) {
        ++old;
        continue;
      }
      after.erase(same);
      old = before.erase(old);
    }
    for (size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
      SLUICE_RETURN_IF_ERROR(
          print(i < before.size() ? &before[i] : nullptr, i < after.size() ? &after[i] : nullptr));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status print(const BackupEntry* before, const BackupEntry* after) {
    const BackupEntry& shown = after != nullptr ? *after : *before;
    const char* array = before == nullptr ? "added" : after == nullptr ? "removed" : "changed";
    const char sign = before == nullptr ? '+' : after == nullptr ? '-' : '~';
    return printer_.add(
        array,
        [&] {
          Json json = entry_json(shown);
          if (before != nullptr && after != nullptr) json["before"] = entry_json(*before);
          return json;
        },
        [&] { return fmt::format("{} {}\n", sign, printable(shown.path, kPrintedPath)); });
  }

  EntryPrinter& printer_;
  std::string path_;
  std::vector<BackupEntry> sides_[2];
};

absl::Status diff_contents(BackupContents& before, BackupContents& after, const std::string& prefix,
                           EntryPrinter& printer) {
  SLUICE_ASSIGN_OR_RETURN(const BackupSlots slots_before, before.slots());
  SLUICE_ASSIGN_OR_RETURN(const BackupSlots slots_after, after.slots());
  const DifferingSlots differing = differing_slots(slots_before, slots_after);
  EntrySpill entries;
  BackupContents* sides[2] = {&before, &after};
  for (const uint8_t side : {kBefore, kAfter}) {
    if (!differing.all && differing.slots[side].empty()) continue;
    ContentsListing listing;
    listing.prefix = prefix;
    listing.digests = true;
    listing.slots = differing.slots[side];
    SLUICE_RETURN_IF_ERROR(sides[side]->list(
        listing, [&](const BackupEntry& entry) { return entries.add(side, entry); }));
  }
  printer.fields()["slots"] = slots_before.slots.size() + slots_after.slots.size();
  printer.fields()["slots_read"] = differing.read;
  DiffPrinter diff(printer);
  SLUICE_RETURN_IF_ERROR(entries.drain(
      [&](uint8_t side, BackupEntry entry) { return diff.add(side, std::move(entry)); }));
  return diff.finish();
}

Outcome diff(const Invocation& invocation, const ContentsArguments& arguments) {
  // Names fill the sides that have no directories.
  std::vector<std::string> names;
  for (const std::string& name : {arguments.backup, arguments.path}) {
    if (!name.empty()) names.push_back(name);
  }
  const size_t directories =
      (arguments.archives.empty() ? 0 : 1) + (arguments.others.empty() ? 0 : 1);
  if (names.size() + directories != 2) {
    return usage_error(
        "name two backups, or the directories of an archive with --archive DIR... in place of the "
        "first and --with DIR... in place of the second");
  }
  if (arguments.prefix.size() > kMaxKeyBytes) {
    return usage_error("--prefix of {} bytes; keys have at most {}", arguments.prefix.size(),
                       kMaxKeyBytes);
  }
  return with_backup_contents(
      invocation, names.empty() ? "" : names.front(), arguments.archives, arguments.choice,
      [&](BackupContents& before) {
        return with_backup_contents(
            invocation, names.empty() ? "" : names.back(), arguments.others, arguments.choice,
            [&](BackupContents& after) {
              const auto printer = EntryPrinter::open(invocation, arguments);
              if (!printer.ok()) return failure(printer.status());
              for (const char* array : {"added", "removed", "changed"}) {
                (*printer)->fields()[array] = Json::array();
              }
              return (*printer)->finish(diff_contents(before, after, arguments.prefix, **printer));
            });
      });
}

// ---- arguments

void add_tree(CLI::App* command, const std::shared_ptr<ContentsArguments>& arguments) {
  command
      ->add_option("--tree", arguments->choice.tree,
                   "Of a tree that was backed up where it is, not of the records")
      ->type_name("NAME");
  command
      ->add_option("--node", arguments->choice.node,
                   "Whose tree, where several nodes had one of that name")
      ->type_name("NODE");
}

void add_backup_and_path(CLI::App* command, const std::shared_ptr<ContentsArguments>& arguments) {
  command->add_option("BACKUP", arguments->backup,
                      "Its name or UUID; left out with --archive, so that PATH comes first");
  command->add_option("PATH", arguments->path, "A key, as bytes, as if it were a path");
  command
      ->add_option("--archive", arguments->archives,
                   "The directories of an archive's parts; needs no cluster")
      ->type_name("DIR");
  add_tree(command, arguments);
}

void add_limit(CLI::App* command, const std::shared_ptr<ContentsArguments>& arguments) {
  command->add_option("--limit", arguments->limit,
                      "Show no more than so many, and say that there are more. With --json it is "
                      "1000000 unless given");
}

}  // namespace

void register_contents(CLI::App& backup, Invocation& invocation) {
  const auto arguments = std::make_shared<ContentsArguments>();
  CLI::App* ls_command = add_command(
      backup, "ls", "List what is directly below a path of a backup, without restoring it",
      "sluice backup ls nightly\n  sluice backup ls nightly docs/manual\n"
      "  sluice backup ls docs/manual --archive /backup/n1/nightly /backup/n2/nightly    (needs no "
      "cluster)\n"
      "\nKeys are shown as paths. Records of imported trees are shown as the files, directories "
      "and "
      "links\nthat they are, others as records. Each holder reads its part once.");
  add_backup_and_path(ls_command, arguments);
  add_limit(ls_command, arguments);
  on_run(ls_command, invocation, arguments, ls);

  CLI::App* find_command =
      add_command(backup, "find", "Print the paths of a backup, those at and below PATH",
                  "sluice backup find nightly docs --name '*.txt' --type file\n"
                  "  sluice backup find nightly --print0 | sort -z\n"
                  "\nPaths come as they are found, in no particular order.");
  add_backup_and_path(find_command, arguments);
  find_command
      ->add_option("--name", arguments->name,
                   "Only names that match: '*', '?' and '[a-z]' as a shell has them")
      ->type_name("GLOB");
  find_command->add_option("--type", arguments->type,
                           "Only record, directory, file, symlink, hardlink, pipe, chardev or "
                           "blockdev");
  find_command->add_flag("--print0", arguments->zeros,
                         "Paths as they are, each with a NUL byte behind it; otherwise bytes that "
                         "are not UTF-8 are shown as \\xNN");
  add_limit(find_command, arguments);
  on_run(find_command, invocation, arguments, find);

  CLI::App* cat_command = add_command(
      backup, "cat", "Write a file's content, or a record's value, as a backup has it",
      "sluice backup cat nightly docs/notes.txt\n"
      "  sluice backup cat nightly docs/disk.img --out disk.img\n"
      "\nEach chunk is checked before it is written, and the whole by its digest: exit code 3 "
      "where "
      "that fails.\nHard links are followed; what has no content is named, with exit code 1.");
  add_backup_and_path(cat_command, arguments);
  cat_command
      ->add_option("--out", arguments->out, "A file, replaced when all is written; - is stdout")
      ->type_name("FILE");
  on_run(cat_command, invocation, arguments, cat);

  CLI::App* diff_command = add_command(
      backup, "diff", "Show what was added (+), removed (-) and changed (~) between two backups",
      "sluice backup diff monday tuesday --prefix docs/\n"
      "  sluice backup diff --archive /old/n1/monday /old/n2/monday --with /new/n1/monday "
      "/new/n2/monday\n"
      "\nOnly slots whose digests differ are read. What was written again with the same content is "
      "not a change.");
  diff_command->add_option("BACKUP1", arguments->backup, "The earlier one: its name or UUID");
  diff_command->add_option("BACKUP2", arguments->path, "The later one");
  diff_command
      ->add_option("--archive", arguments->archives,
                   "The directories of an archive's parts, in place of BACKUP1")
      ->type_name("DIR");
  diff_command
      ->add_option("--with", arguments->others,
                   "The directories of an archive's parts, in place of BACKUP2")
      ->type_name("DIR");
  diff_command->add_option("--prefix", arguments->prefix, "Only keys that begin so");
  add_tree(diff_command, arguments);
  add_limit(diff_command, arguments);
  on_run(diff_command, invocation, arguments, diff);
}

}  // namespace sluice

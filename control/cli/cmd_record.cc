// sluice record: single records, imports and exports.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/descriptor.h"
#include "base/file.h"
#include "base/text.h"
#include "control/cli/cluster_records.h"
#include "control/cli/command.h"
#include "control/cli/jsonl.h"
#include "control/cli/output_file.h"
#include "control/cli/record_streams.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

struct RecordArguments {
  std::string key;
  std::string value;
  bool has_value = false;
  std::string file;
  std::string prefix;
  std::string tree;
  std::string jsonl;
  bool mirror = false;
  bool one_file_system = false;
  std::vector<std::string> exclude;
  bool numeric_owner = false;
  bool force = false;
};

bool check_key(const std::string& key, Outcome* error) {
  if (!key.empty() && key.size() <= kMaxKeyBytes) return true;
  *error = usage_error("a key of {} bytes; keys have 1 to {}", key.size(), kMaxKeyBytes);
  return false;
}

// The bytes of a file, or of stdin for "-"; at most kMaxValueBytes.
absl::StatusOr<std::string> read_value(const std::string& path) {
  UniqueFd fd(path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno_status(errno, fmt::format("open {}", path));
  std::string value;
  while (value.size() <= kMaxValueBytes) {
    const size_t before = value.size();
    value.resize(before + (size_t{1} << 20));
    const ssize_t got = read_some(fd.get(), value.data() + before, value.size() - before);
    value.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0) return errno_status(static_cast<int>(-got), fmt::format("read {}", path));
    if (got == 0) return value;
  }
  return invalid_argument(
      "{} has over {} bytes, the most a value may have; import it with --tree, which cuts files "
      "into "
      "chunks",
      path, kMaxValueBytes);
}

Outcome put(const Invocation& invocation, const RecordArguments& arguments) {
  Outcome outcome;
  if (!check_key(arguments.key, &outcome)) return outcome;
  if (arguments.has_value == !arguments.file.empty()) {
    return usage_error("give the value either as an argument or with --file FILE (- is stdin)");
  }
  std::string value = arguments.value;
  if (!arguments.file.empty()) {
    auto read = read_value(arguments.file);
    if (!read.ok()) return failure(read.status());
    value = *std::move(read);
  }
  return with_client(invocation, [&](ClusterClient& client) {
    if (absl::Status status = client.put(arguments.key, value); !status.ok())
      return failure(status);
    add_bytes(outcome.fields, "key", arguments.key);
    outcome.fields["bytes"] = value.size();
    return outcome;
  });
}

Outcome get(const Invocation& invocation, const RecordArguments& arguments) {
  Outcome outcome;
  if (!check_key(arguments.key, &outcome)) return outcome;
  return with_client(invocation, [&](ClusterClient& client) {
    auto value = client.get(arguments.key);
    if (absl::IsNotFound(value.status())) {
      return failure(not_found("there is no record with the key '{}'", printable(arguments.key)));
    }
    if (!value.ok()) return failure(value.status());
    if (!invocation.json) {
      outcome.text = *std::move(value);
      return outcome;
    }
    add_bytes(outcome.fields, "key", arguments.key);
    outcome.fields["value_b64"] = base64_encode(*value);
    outcome.fields["bytes"] = value->size();
    return outcome;
  });
}

Outcome erase(const Invocation& invocation, const RecordArguments& arguments) {
  Outcome outcome;
  if (!check_key(arguments.key, &outcome)) return outcome;
  return with_client(invocation, [&](ClusterClient& client) {
    if (absl::Status status = client.erase(arguments.key); !status.ok()) return failure(status);
    add_bytes(outcome.fields, "key", arguments.key);
    return outcome;
  });
}

Outcome count(const Invocation& invocation, const RecordArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    const auto records = client.count(arguments.prefix);
    if (!records.ok()) return failure(records.status());
    Outcome outcome;
    outcome.fields["count"] = *records;
    outcome.text = fmt::format("{}\n", *records);
    return outcome;
  });
}

Outcome import_jsonl_command(ClusterClient& client, const RecordArguments& arguments) {
  UniqueFd fd(arguments.jsonl == "-" ? dup(STDIN_FILENO)
                                     : open(arguments.jsonl.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return failure(errno_status(errno, fmt::format("open {}", arguments.jsonl)));
  RunningStream stream("import");
  ClusterSink sink(client);
  SinkTotals totals;
  const absl::Status status = import_jsonl(fd.get(), sink, stream.progress, &totals);
  Outcome outcome;
  describe(&outcome, "imported", totals.records, totals.bytes, stream.seconds());
  outcome.fields["failed"] = totals.failures.count;
  if (totals.failures.count > 0) {
    warn_failures(totals.failures, "not written:");
    outcome.fields["failures"] = failures_json(totals.failures);
    outcome.code = kExitFailed;
    outcome.error =
        fmt::format("{} could not be written", counted(totals.failures.count, "record"));
    if (!totals.failures.first.empty()) {
      outcome.error +=
          fmt::format(", the first is '{}': {}", printable(totals.failures.first[0].path),
                      totals.failures.first[0].reason);
    }
  }
  if (!status.ok()) {
    outcome.code = kExitFailed;
    outcome.error = fmt::format("{}: {}; the {} records before it are imported, nothing after it",
                                arguments.jsonl, message_of(status), totals.records);
  }
  return outcome;
}

absl::StatusOr<TreeImportOptions> import_options(const RecordArguments& arguments) {
  TreeImportOptions options;
  options.root = arguments.tree;
  options.prefix = arguments.prefix;
  options.mirror = arguments.mirror;
  options.scan.one_file_system = arguments.one_file_system;
  for (const std::string& pattern : arguments.exclude)
    SLUICE_RETURN_IF_ERROR(options.scan.exclude.add(pattern));
  return options;
}

Outcome import_command(const Invocation& invocation, const RecordArguments& arguments) {
  if (arguments.tree.empty() == arguments.jsonl.empty())
    return usage_error("say one of --tree DIR and --jsonl FILE");
  if (!arguments.jsonl.empty() && !arguments.prefix.empty()) {
    return usage_error("--prefix goes with --tree; JSON lines carry whole keys");
  }
  if (!arguments.jsonl.empty() &&
      (arguments.mirror || arguments.one_file_system || !arguments.exclude.empty())) {
    return usage_error("--mirror, --one-file-system and --exclude go with --tree");
  }
  const auto options = import_options(arguments);
  if (!options.ok()) return usage_error("--exclude: {}", message_of(options.status()));
  return with_client(invocation, [&](ClusterClient& client) {
    return arguments.tree.empty() ? import_jsonl_command(client, arguments)
                                  : import_tree_command(client, *options);
  });
}

Outcome export_jsonl_command(ClusterClient& client, const RecordArguments& arguments) {
  auto file = OutputFile::open(arguments.jsonl);
  if (!file.ok()) return failure(file.status());
  const char* temporary = std::getenv("TMPDIR");
  const std::string folder = temporary != nullptr && *temporary != '\0' ? temporary
                             : arguments.jsonl == "-"                   ? "/tmp"
                                                      : directory_of(arguments.jsonl);
  RunningStream stream("export");
  ClusterStore source(client);
  const auto totals = export_jsonl(source, arguments.prefix, folder, stream.progress,
                                   [&](std::string_view piece) { return (*file)->write(piece); });
  const absl::Status status = totals.ok() ? (*file)->commit() : totals.status();
  if (!status.ok()) {
    Outcome failed = failure(status);
    if ((*file)->reader_gone()) failed.error.clear();  // it knows, and nobody else asked
    return failed;
  }
  Outcome outcome;
  describe(&outcome, "exported", totals->records, totals->bytes, stream.seconds());
  if (arguments.jsonl == "-") {
    print_stderr("sluice: {}", outcome.text);
    outcome.text.clear();
  }
  return outcome;
}

TreeExportOptions export_options(const RecordArguments& arguments) {
  TreeExportOptions options;
  options.target.directory = arguments.tree;
  options.target.numeric_owner = arguments.numeric_owner;
  options.target.replace_directories = arguments.force;
  options.prefix = arguments.prefix;
  return options;
}

Outcome export_command(const Invocation& invocation, const RecordArguments& arguments) {
  if (arguments.tree.empty() == arguments.jsonl.empty())
    return usage_error("say one of --tree DIR and --jsonl FILE");
  if (arguments.jsonl == "-" && invocation.json) {
    return usage_error(
        "--json and --jsonl - would both write stdout; export to a file, or leave --json out");
  }
  return with_client(invocation, [&](ClusterClient& client) {
    return arguments.tree.empty() ? export_jsonl_command(client, arguments)
                                  : export_tree_command(client, export_options(arguments));
  });
}

void register_single(CLI::App& record, Invocation& invocation,
                     const std::shared_ptr<RecordArguments>& arguments) {
  CLI::App* put_command =
      add_command(record, "put", "Write one record (key: 1 to 4096 bytes, value: at most 64 MiB)",
                  "sluice record put colour blue\n  sluice record put picture --file picture.png\n"
                  "  date | sluice record put now --file -");
  put_command->add_option("KEY", arguments->key, "The key, as bytes")->required();
  CLI::Option* value = put_command->add_option("VALUE", arguments->value, "The value, as bytes");
  put_command->add_option("--file", arguments->file, "Take the value from this file; - is stdin");
  put_command->callback([&invocation, arguments, value] {
    arguments->has_value = value->count() > 0;
    invocation.run = [&invocation, arguments] { return put(invocation, *arguments); };
  });
  CLI::App* get_command = add_command(
      record, "get", "Print one record's value as it is; exit code 1 where there is none",
      "sluice record get colour\n  sluice --json record get colour    (key, value_b64, bytes)");
  get_command->add_option("KEY", arguments->key, "The key, as bytes")->required();
  on_run(get_command, invocation, arguments, get);
  CLI::App* delete_command =
      add_command(record, "delete", "Delete one record; one that is not there is no error",
                  "sluice record delete colour");
  delete_command->add_option("KEY", arguments->key, "The key, as bytes")->required();
  on_run(delete_command, invocation, arguments, erase);
  CLI::App* count_command =
      add_command(record, "count", "Count the records", "sluice record count --prefix docs/");
  count_command->add_option("--prefix", arguments->prefix, "Only keys that begin so");
  on_run(count_command, invocation, arguments, count);
}

void register_streams(CLI::App& record, Invocation& invocation,
                      const std::shared_ptr<RecordArguments>& arguments) {
  CLI::App* import = add_command(
      record, "import", "Write many records: the files of a directory tree, or JSON lines",
      "sluice record import --tree /usr/share/doc --prefix docs/\n"
      "  sluice record import --jsonl records.jsonl\n"
      "  sluice record import --tree ~/project --prefix project/ --mirror --exclude '*.o' "
      "--exclude "
      "/build/\n"
      "\nA tree keeps types, modes, owners, times, links, hard links, holes, extended attributes, "
      "ACLs "
      "and\n"
      "capabilities; sockets are counted and left. Files are cut into chunks of 992 KiB.\n"
      "A PATTERN is as in .gitignore: '*.o' anywhere, '/build/' the directory at the root, "
      "'a/**/b', "
      "'!keep.o'.\n"
      "JSON lines: {\"key\": \"k\", \"value\": \"v\"}, or key_b64 and value_b64 in base64; at most "
      "96 MiB a line.\n"
      "An import ends at the first malformed line; the lines before it are imported.");
  import->add_option("--tree", arguments->tree, "A directory")->type_name("DIR");
  import->add_option("--prefix", arguments->prefix, "Put before each key of a tree");
  import->add_flag("--mirror", arguments->mirror,
                   "Remove what earlier imports put under the prefix and the tree no longer has");
  import->add_flag("--one-file-system", arguments->one_file_system,
                   "Do not enter what is mounted in the tree");
  import
      ->add_option("--exclude", arguments->exclude,
                   "Leave out what the pattern matches, with all below it; any number of times")
      ->type_name("PATTERN")
      ->allow_extra_args(false);
  import->add_option("--jsonl", arguments->jsonl, "A file of JSON lines; - is stdin")
      ->type_name("FILE");
  on_run(import, invocation, arguments, import_command);
  CLI::App* export_app = add_command(
      record, "export", "Read all records: into a directory tree, or as JSON lines sorted by key",
      "sluice record export --tree /tmp/doc --prefix docs/\n"
      "  sluice record export --jsonl records.jsonl && cmp records.jsonl others.jsonl\n"
      "\nSorting takes room for all records in $TMPDIR, or else beside FILE. With FILE - the lines "
      "go to stdout\n"
      "(and --json is refused).");
  export_app->add_option("--tree", arguments->tree, "A directory; made where it is not there")
      ->type_name("DIR");
  export_app->add_option("--prefix", arguments->prefix,
                         "Only keys that begin so; a tree's paths go without it");
  export_app->add_flag("--numeric-owner", arguments->numeric_owner,
                       "Owners by number, also where their names are known here");
  export_app->add_flag("--force", arguments->force,
                       "Replace directories that are not empty by what is not a directory");
  export_app
      ->add_option("--jsonl", arguments->jsonl, "A file, replaced when all is written; - is stdout")
      ->type_name("FILE");
  on_run(export_app, invocation, arguments, export_command);
}

}  // namespace

void register_record(CLI::App& app, Invocation& invocation) {
  CLI::App* record =
      add_command(app, "record", "Write, read, import and export records",
                  "sluice --cluster sqlite:/tmp/demo/cluster.db record put colour blue");
  record->require_subcommand(1, 1);
  const auto arguments = std::make_shared<RecordArguments>();
  register_single(*record, invocation, arguments);
  register_streams(*record, invocation, arguments);
}

}  // namespace sluice

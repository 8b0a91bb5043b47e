#include "control/cli/record_streams.h"

#include <algorithm>

#include "base/text.h"
#include "control/cli/cluster_records.h"
#include "tree/link_groups.h"

namespace sluice {
namespace {

std::string counted_as(uint64_t number, std::string_view one, std::string_view several) {
  return fmt::format("{} {}", human_count(number), number == 1 ? one : several);
}

// One line for each kind of what an import left out.
void say_left_out(const TreeImportResult& result) {
  if (result.sockets > 0) {
    print_stderr("sluice: of {} sockets, devices and pipes {} left out: the sockets\n",
                 human_count(result.sockets + result.specials), human_count(result.sockets));
  }
  if (result.other_file_systems > 0) {
    print_stderr("sluice: {} not entered: other file systems are mounted there\n",
                 counted(result.other_file_systems, "place"));
  }
  if (result.loops > 0) {
    print_stderr("sluice: {} not entered: a directory that they are in is mounted there again\n",
                 counted(result.loops, "place"));
  }
  if (result.split_links > 0) {
    print_stderr(
        "sluice: {} with several names imported once for each name: at most {} are kept "
        "track of\n",
        counted(result.split_links, "file"), LinkGroups::kMaxFiles);
  }
  if (result.leftovers) {
    print_stderr(
        "sluice: chunks of earlier versions of files are left over; the next import of this prefix "
        "removes them\n");
  }
}

void add_counts(const TreeImportResult& result, Json& fields) {
  fields["failed"] = result.failures.count;
  fields["files"] = result.files;
  fields["directories"] = result.directories;
  fields["folders"] = result.directories;  // the name in earlier versions
  fields["links"] = result.links;
  fields["hard_links"] = result.hard_links;
  fields["specials"] = result.specials;
  fields["skipped"] = result.sockets;
  fields["excluded"] = result.excluded;
  fields["other_file_systems"] = result.other_file_systems;
  fields["loops"] = result.loops;
  fields["removed"] = result.removed;
  fields["mirrored"] = result.mirrored;
}

Json not_set_json(const NotSet& not_set) {
  return {{"owner", not_set.owner}, {"set_id", not_set.set_id},         {"xattr", not_set.xattr},
          {"acl", not_set.acl},     {"capability", not_set.capability}, {"device", not_set.device}};
}

// Once for each kind.
void say_not_set(const NotSet& not_set) {
  const auto say = [](uint64_t count, const char* noun, const char* why) {
    if (count > 0) print_stderr("sluice: not set: {}{}\n", counted(count, noun), why);
  };
  say(not_set.owner, "owner", ": files are given to others by root alone (CAP_CHOWN)");
  say(not_set.set_id, "set-user-ID or set-group-ID bit",
      ": the files do not belong to the owners here that they were imported from");
  say(not_set.xattr, "entry's extended attribute", ": no permission, or not on this file system");
  say(not_set.acl, "access control list (ACL)", ": no permission, or not on this file system");
  say(not_set.capability, "file capability set", ": set by root alone (CAP_SETFCAP)");
  say(not_set.device, "device", ": made by root alone (CAP_MKNOD)");
}

// `what` became of these entries. Nothing where there are none.
void fail_with(Outcome* outcome, const StreamFailures& failures, const char* field, int code,
               std::string_view what) {
  if (failures.count == 0) return;
  outcome->fields[field] = failures_json(failures);
  outcome->code = code;
  outcome->error = fmt::format("{} entries {}, the first is {}: {}", failures.count, what,
                               printable(failures.first[0].path), failures.first[0].reason);
}

}  // namespace

void describe(Outcome* outcome, const char* done, uint64_t records, uint64_t bytes,
              double seconds) {
  outcome->fields["records"] = records;
  outcome->fields["bytes"] = bytes;
  outcome->fields["seconds"] = seconds;
  outcome->text = fmt::format("{} {}, {} in {} ({}/s)\n", done, counted(records, "record"),
                              human_bytes(static_cast<double>(bytes)), human_seconds(seconds),
                              human_bytes(static_cast<double>(bytes) / std::max(seconds, 1e-3)));
}

void warn_failures(const StreamFailures& failures, const char* what) {
  for (const StreamFailure& failure : failures.first) {
    print_stderr("sluice: {} {}: {}\n", what, printable(failure.path), failure.reason);
  }
}

Outcome import_tree_command(ClusterClient& client, const TreeImportOptions& options) {
  RunningStream stream("import");
  ClusterStore store(client);
  const auto result = import_tree(options, store, stream.progress);
  if (!result.ok()) return failure(result.status());
  Outcome outcome;
  describe(&outcome, "imported", result->records, result->bytes, stream.seconds());
  add_counts(*result, outcome.fields);
  say_left_out(*result);
  if (options.mirror && result->mirrored > 0)
    outcome.text += fmt::format("removed {} that the tree no longer has\n",
                                counted_as(result->mirrored, "entry", "entries"));
  if (result->mirror_failures.count > 0) {
    warn_failures(result->mirror_failures, "not removed:");
    outcome.code = kExitFailed;
    outcome.error = fmt::format("{} that the tree no longer has could not be removed",
                                counted_as(result->mirror_failures.count, "entry", "entries"));
  }
  warn_failures(result->failures, "not imported:");
  fail_with(&outcome, result->failures, "failures", kExitFailed, "could not be imported");
  return outcome;
}

Outcome export_tree_command(ClusterClient& client, const TreeExportOptions& options) {
  ClusterStore source(client);
  return export_tree_from(source, options, "exported");
}

Outcome export_tree_from(RecordSource& source, const TreeExportOptions& options, const char* done) {
  RunningStream stream(done);
  const auto result = export_tree(options, source, stream.progress);
  if (!result.ok()) return failure(with_context(result.status(), options.target.directory));
  Outcome outcome;
  describe(&outcome, done, result->records, result->bytes, stream.seconds());
  outcome.fields["files"] = result->files;
  outcome.fields["directories"] = result->directories;
  outcome.fields["folders"] = result->directories;  // the name in earlier versions
  outcome.fields["links"] = result->links;
  outcome.fields["hard_links"] = result->hard_links;
  outcome.fields["specials"] = result->specials;
  outcome.fields["changed_while_read"] = result->changed;
  outcome.fields["superseded"] = result->superseded;
  outcome.fields["skipped"] = result->other_records;
  outcome.fields["failed"] = result->failures.count + result->damaged.count;
  if (result->other_records > 0) {
    print_stderr("sluice: {} records that are not entries of a tree were skipped\n",
                 result->other_records);
  }
  if (result->superseded > 0) {
    print_stderr(
        "sluice: {} of earlier imports skipped: they are below what is no longer a directory "
        "(import with --mirror removes them)\n",
        counted_as(result->superseded, "entry", "entries"));
  }
  outcome.fields["not_set"] = not_set_json(result->not_set);
  say_not_set(result->not_set);
  warn_failures(result->failures, fmt::format("not {}:", done).c_str());
  warn_failures(result->damaged, "damaged:");
  fail_with(&outcome, result->failures, "failures", kExitFailed,
            fmt::format("could not be {} to {}", done, options.target.directory));
  fail_with(&outcome, result->damaged, "damaged", kExitDataBad, "are damaged");
  return outcome;
}

}  // namespace sluice

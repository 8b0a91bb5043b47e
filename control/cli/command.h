// The commands, and what they share. Each register_* function adds one group to the program's
// arguments; the chosen leaf command leaves a function in Invocation::run, which the program calls
// once parsing is done.
#ifndef SLUICE_CONTROL_CLI_COMMAND_H_
#define SLUICE_CONTROL_CLI_COMMAND_H_

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/statusor.h"
#include "control/cli/outcome.h"
#include "control/client/cluster_client.h"
#include "control/contents/backup_contents.h"

namespace sluice {

struct Invocation {
  std::string cluster;  // --cluster or SLUICE_CLUSTER
  bool json = false;
  bool json_progress = false;
  std::function<Outcome()> run;
  // Set by commands that handle signals themselves (node).
  bool own_signals = false;
};

// A leaf or group with its example under its help text.
CLI::App* add_command(CLI::App& parent, const std::string& name, const std::string& about,
                      const std::string& example = "");

// Runs `run` when the leaf was chosen.
template <typename Arguments>
void on_run(CLI::App* command, Invocation& invocation, const std::shared_ptr<Arguments>& arguments,
            Outcome (*run)(const Invocation&, const std::type_identity_t<Arguments>&)) {
  command->callback([&invocation, arguments, run] {
    invocation.run = [&invocation, arguments, run] { return run(invocation, *arguments); };
  });
}

// Whether a cluster was named, and legally; otherwise the usage error to end with.
bool check_cluster(const Invocation& invocation, Outcome* error);
absl::StatusOr<std::unique_ptr<ClusterClient>> open_client(const Invocation& invocation);

// Runs `body` with an open client; the client's errors end the command.
Outcome with_client(const Invocation& invocation,
                    const std::function<Outcome(ClusterClient&)>& body);

// Runs `body` with what a backup holds: the one of this name, or with `archives` the one in these
// directories.
Outcome with_backup_contents(const Invocation& invocation, const std::string& backup,
                             const std::vector<std::string>& archives, const TreeChoice& choice,
                             const std::function<Outcome(BackupContents&)>& body);

// A positive finite number.
bool parse_weight(const std::string& text, double* weight);
// Bytes a second: a positive number with a unit, as 25MB/s, 1.5 GiB/s or 1000000; "/s" may be left
// out. Units of 1000 are kB, MB and GB, units of 1024 KiB, MiB and GiB.
bool parse_rate(const std::string& text, uint64_t* bytes_per_second);
// NAME=VALUE into its halves, neither of them empty.
bool split_assignment(const std::string& text, std::string* name, std::string* value);

void register_local(CLI::App& app, Invocation& invocation);
void register_node(CLI::App& app, Invocation& invocation);
void register_cluster(CLI::App& app, Invocation& invocation);
void register_record(CLI::App& app, Invocation& invocation);
void register_backup(CLI::App& app, Invocation& invocation);
// Into the group "backup".
void register_contents(CLI::App& backup, Invocation& invocation);
void register_backup_files(CLI::App& backup, Invocation& invocation);
void register_restore(CLI::App& app, Invocation& invocation);
void register_table(CLI::App& app, Invocation& invocation);
void register_bench(CLI::App& app, Invocation& invocation);
void register_doctor(CLI::App& app, Invocation& invocation);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_COMMAND_H_

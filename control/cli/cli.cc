#include "control/cli/cli.h"

#include <csignal>
#include <exception>
#include <string_view>

#include "control/cli/command.h"
#include "control/cli/progress.h"

namespace sluice {
namespace {

constexpr char kAbout[] =
    "Sluice keeps replicated records on a cluster of serving nodes, backs the whole cluster up "
    "into one\n"
    "consolidated copy (the newest version of every record, once), and restores it into any "
    "cluster.\n";

constexpr char kFooter[] =
    "\nA first round, on one machine:\n"
    "  sluice local up --dir /tmp/demo --nodes 3\n"
    "  export SLUICE_CLUSTER=sqlite:/tmp/demo/cluster.db\n"
    "  sluice record import --tree /usr/share/doc\n"
    "  sluice backup create --name first\n"
    "  sluice backup verify first\n"
    "  sluice local down --dir /tmp/demo\n"
    "\nGlobal options may stand before or after the command. Arguments that begin with a dash go "
    "after '--':\n"
    "  sluice record put -- -key -value\n"
    "Bytes are in units of 1024 (KiB, MiB), times in seconds.\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 data failed a check, 4 done but records remain "
    "to be retried.";

// Before parsing, so that a usage error is JSON too.
bool wants_json(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--") return false;
    if (argument == "--json") return true;
  }
  return false;
}

void register_version(CLI::App& app, Invocation& invocation) {
  CLI::App* version = add_command(app, "version", "Print the program's version", "sluice version");
  version->callback([&invocation] {
    invocation.run = [] {
      Outcome outcome;
      outcome.fields["version"] = SLUICE_VERSION;
      outcome.text = "sluice " SLUICE_VERSION "\n";
      return outcome;
    };
  });
}

void register_all(CLI::App& app, Invocation& invocation) {
  app.require_subcommand(1, 1);
  app.fallthrough();
  app.footer(kFooter);
  app.set_version_flag("--version", "sluice " SLUICE_VERSION,
                       "Print the program's version and exit");
  app.add_option("--cluster", invocation.cluster,
                 "The cluster: sqlite:PATH, or etcd://HOST:PORT[,HOST:PORT...]/PREFIX")
      ->envname("SLUICE_CLUSTER")
      ->type_name("URL");
  app.add_flag("--json", invocation.json, "Print exactly one JSON object on stdout");
  app.add_flag("--json-progress", invocation.json_progress,
               "Print progress as JSON lines on stderr, on a terminal or not");
  register_local(app, invocation);
  register_node(app, invocation);
  register_cluster(app, invocation);
  register_record(app, invocation);
  register_backup(app, invocation);
  register_restore(app, invocation);
  register_table(app, invocation);
  register_bench(app, invocation);
  register_doctor(app, invocation);
  register_version(app, invocation);
}

// The word that stands where a command's name is expected; empty when there is none.
std::string unknown_command(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_name() != "RequiredError") return "";
  const CLI::App* deepest = &app;
  while (!deepest->get_subcommands().empty()) deepest = deepest->get_subcommands().front();
  if (deepest->get_subcommands([](const CLI::App*) { return true; }).empty()) return "";
  for (const std::string& word : app.remaining(true)) {
    if (!word.starts_with("-")) {
      return fmt::format("'{}' is no command{}", word,
                         deepest == &app ? "" : " of 'sluice " + deepest->get_name() + "'");
    }
  }
  return "";
}

Outcome parse_error(const CLI::App& app, const CLI::ParseError& error, bool json) {
  Outcome outcome;
  if (error.get_name() == "CallForVersion") {
    outcome.text = error.what() + std::string("\n");
    outcome.fields["version"] = SLUICE_VERSION;
    return outcome;
  }
  if (error.get_exit_code() == 0) {
    outcome.text = app.help("", error.get_name() == "CallForAllHelp" ? CLI::AppFormatMode::All
                                                                     : CLI::AppFormatMode::Normal);
    outcome.fields["help"] = outcome.text;
    return outcome;
  }
  outcome.code = kExitUsage;
  const std::string unknown = unknown_command(app, error);
  outcome.error = (unknown.empty() ? std::string(error.what()) : unknown) +
                  (json ? "" : "; see sluice --help, or --help after the command");
  return outcome;
}

Outcome run(const Invocation& invocation) {
  try {
    return invocation.run();
  } catch (const std::exception& error) {
    // Nothing of the project throws; memory that is used up and defects of libraries end here.
    return failure(internal_error("unexpected: {}", error.what()));
  }
}

}  // namespace

namespace {

int parse_and_run(int argc, char** argv, bool json) {
  // A write that cannot be made is an error like others.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  CLI::App app(kAbout, "sluice");
  Invocation invocation;
  register_all(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return print_outcome(parse_error(app, error, json), json);
  }
  if (invocation.json_progress) ProgressBar::use_json_lines();
  if (!invocation.own_signals) Interrupts::begin(invocation.json);
  const Outcome outcome = run(invocation);
  if (!invocation.own_signals) Interrupts::end();
  return print_outcome(outcome, invocation.json);
}

}  // namespace

int run_cli(int argc, char** argv) {
  const bool json = wants_json(argc, argv);
  try {
    return parse_and_run(argc, argv, json);
  } catch (const std::exception& error) {
    return print_outcome(failure(internal_error("unexpected: {}", error.what())), json);
  }
}

}  // namespace sluice

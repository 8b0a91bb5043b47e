// The program `sluice`.
#ifndef SLUICE_CONTROL_CLI_CLI_H_
#define SLUICE_CONTROL_CLI_CLI_H_

namespace sluice {

// Parses the arguments, runs the command and prints what came of it. Returns the exit code. Called
// once, from main().
int run_cli(int argc, char** argv);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_CLI_H_

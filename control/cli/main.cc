#include <unistd.h>

#include <cstdio>

#include "control/cli/cli.h"

// Ends without running the destructors of static objects: gRPC's threads may be using its own until
// the very end.
int main(int argc, char** argv) {
  const int code = sluice::run_cli(argc, argv);
  std::fflush(nullptr);
  _exit(code);
}

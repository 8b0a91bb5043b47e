#include <unistd.h>

#include <cstdio>

#include "control/cli/cli.h"
#include "control/cli/standard_streams.h"

// Ends without running the destructors of static objects: gRPC's threads may be using its own until
// the very end.
int main(int argc, char** argv) {
  sluice::open_standard_streams();
  const int code = sluice::run_cli(argc, argv);
  std::fflush(nullptr);
  _exit(code);
}

#include <unistd.h>

#include <cstdio>
#include <exception>
#include <new>
#include <string_view>

#include "control/cli/cli.h"
#include "control/cli/standard_streams.h"

namespace {

std::terminate_handler others_end = nullptr;

// Memory that cannot be had where nothing can be given up for it ends the process. Allocates
// nothing.
void end_with_reason() {
  try {
    if (std::current_exception() != nullptr) throw;
  } catch (const std::bad_alloc&) {
    constexpr std::string_view kText =
        "sluice: out of memory: the process ends; raise its memory limit (of a node: arena_bytes, "
        "memtable_bytes and block_cache_bytes in its configuration bound most of what it takes)\n";
    (void)!write(STDERR_FILENO, kText.data(), kText.size());
  } catch (...) {
    // The handler that was there names it.
  }
  others_end();
}

}  // namespace

// Ends without running the destructors of static objects: gRPC's threads may be using its own until
// the very end.
int main(int argc, char** argv) {
  others_end = std::set_terminate(end_with_reason);
  sluice::open_standard_streams();
  const int code = sluice::run_cli(argc, argv);
  std::fflush(nullptr);
  _exit(code);
}

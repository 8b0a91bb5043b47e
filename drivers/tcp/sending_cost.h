// What it costs to give a block to the kernel by write and by sendfile, measured where the program
// runs: sendfile saves a copy, but takes and gives back a reference to every page, and which of the
// two is the dearer depends on the kernel and on the processor.
#ifndef SLUICE_DRIVERS_TCP_SENDING_COST_H_
#define SLUICE_DRIVERS_TCP_SENDING_COST_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "drivers/tcp/tcp.h"

namespace sluice::tcp {

// Processor time of the sending thread for one block of 1 MiB, the lowest of the rounds.
struct SendingCost {
  int64_t write_ns = 0;
  int64_t sendfile_ns = 0;
};

// Sends blocks over a loopback connection of its own, in turn by the one and by the other, for at
// most `limit_ns`. DEADLINE_EXCEEDED when not even one round was completed in that time. What is
// counted is the sending thread's processor time, so other load on the machine hardly shows.
absl::StatusOr<SendingCost> measure_sending_cost(int64_t limit_ns);

// Whether large messages go by sendfile. kMeasured measures at the first call of the process, which
// takes at most about 20 ms; every later call gives the same answer at once. Where it cannot be
// measured, they do not. Thread-safe.
bool uses_sendfile(TcpOptions::SendBy send_by);

}  // namespace sluice::tcp

#endif  // SLUICE_DRIVERS_TCP_SENDING_COST_H_

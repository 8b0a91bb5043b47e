// What the driver asks of its sockets. Options that a kernel does not have are left out.
#ifndef SLUICE_DRIVERS_TCP_SOCKET_OPTIONS_H_
#define SLUICE_DRIVERS_TCP_SOCKET_OPTIONS_H_

#include <cstdint>

#include "base/socket_address.h"

namespace sluice::tcp {

void set_option(int fd, int level, int name, int value);

// Low latency, and a dead peer noticed in bounded time whether or not something is being sent to
// it. kSetUpCalls system calls.
inline constexpr int kSetUpCalls = 6;
void set_up_socket(int fd, int64_t dead_peer_timeout_ms);

// For a socket that is connected. Between two ends on one machine nothing is congested, so there it
// is spared a congestion control that paces (BBR paces by timers, which halves the rate); others
// keep the system's. Returns the system calls made.
int leave_out_pacing_on_one_machine(int fd);
// Whether two ends of a connection that have these addresses are on one machine: the same host
// address, or one that is loopback's.
bool on_one_machine(const SocketAddress& a, const SocketAddress& b);

// Makes close() drop what the kernel still holds of our buffers, instead of sending it later with
// whatever the buffers then contain.
void reset_on_close(int fd);

}  // namespace sluice::tcp

#endif  // SLUICE_DRIVERS_TCP_SOCKET_OPTIONS_H_

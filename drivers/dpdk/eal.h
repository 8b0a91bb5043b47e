// DPDK's environment (EAL) inside this process: begun once, with the first port, and kept to the
// end of the process, because DPDK cannot begin it twice. All ports share it. It is kept tame: no
// thread of the program is pinned or taken over, nothing is written to standard output, no files
// are left behind, and no device is touched but the ones that ports name. Thread-safe.
//
// Memory: huge pages when enough of them are free, else normal pages, which only virtual devices
// can use. What a site needs otherwise, it puts into the environment variable SLUICE_DPDK_EAL: DPDK
// arguments, separated by spaces, added to the ones made here.
#ifndef SLUICE_DRIVERS_DPDK_EAL_H_
#define SLUICE_DRIVERS_DPDK_EAL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"

namespace sluice::dpdk {

// Begins the environment if it has not begun. FAILED_PRECONDITION with DPDK's own words otherwise.
absl::Status begin_eal();
// Whether DPDK's memory is of huge pages; known once begun.
bool eal_has_huge_pages();

// "net_af_packet0" is made, "0000:3b:00.0" is found; nothing of it is shared.
inline bool is_virtual_device(std::string_view device) { return device.rfind("net_", 0) == 0; }

// Takes a device into this process; its DPDK port number. NOT_FOUND, ALREADY_EXISTS or
// FAILED_PRECONDITION, with what to do.
absl::StatusOr<uint16_t> take_device(const std::string& device, const std::string& arguments);
// Stops and closes the port and gives its device back.
void give_back_device(uint16_t port);

// Makes an arena known to DPDK, so that a device may read it. Counted: each success needs one
// forget_memory before the arena goes.
absl::Status know_memory(Arena& arena);
void forget_memory(Arena& arena);

// What DPDK last complained about on this thread's behalf, to be put into an error; then forgotten.
std::string take_last_complaint();

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_EAL_H_

// A short measurement of what this machine can do for a node: well under a second.
#ifndef SLUICE_CONTROL_NODE_MEASURE_H_
#define SLUICE_CONTROL_NODE_MEASURE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "control/membership/weights.h"

namespace sluice {

// Checksum rate of cold memory, rate of O_DIRECT writes (where the file system has them) to a file
// of its own in `folder`, which is removed again, and free space there.
absl::StatusOr<MeasuredRates> measure_rates(const std::string& folder, Clock& clock);

// Bytes a second of the network device that has this address (HOST:PORT, the host a numeric
// address), as its driver reports them below `devices`; 0 where none has it or none is reported, as
// for the loopback. No other node is needed for it: at a start there may be none.
inline constexpr char kNetworkDevices[] = "/sys/class/net";
double reported_link_rate(const std::string& address, const std::string& devices);

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_MEASURE_H_

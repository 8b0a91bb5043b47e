// A short measurement of what this machine can do for a node: well under a second.
#ifndef SLUICE_CONTROL_NODE_MEASURE_H_
#define SLUICE_CONTROL_NODE_MEASURE_H_

#include <string>

#include "absl/status/statusor.h"
#include "control/membership/weights.h"

namespace sluice {

// Checksum rate of cold memory, and rate of O_DIRECT writes (where the file system has them) to a
// file of its own in `folder`, which is removed again.
absl::StatusOr<MeasuredRates> measure_rates(const std::string& folder);

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_MEASURE_H_

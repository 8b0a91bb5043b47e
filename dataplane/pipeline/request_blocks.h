// The blocks of one data writing request. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_REQUEST_BLOCKS_H_
#define SLUICE_DATAPLANE_PIPELINE_REQUEST_BLOCKS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

// A request's payload is one block or several, each at a multiple of 4 KiB, as it stands in an
// archive; between them is padding, whose content nobody looks at. Blocks of many small slots go
// together: what a message costs is paid once.
struct RequestBlock {
  uint32_t slot = 0;
  std::span<const uint8_t> bytes;
};
// Views of the payload, at least one. DATA_LOSS where it is something else, FAILED_PRECONDITION for
// blocks of other slot bits. Each block's checksum is for whoever uses the block.
absl::StatusOr<std::vector<RequestBlock>> split_request(std::span<const uint8_t> payload,
                                                        uint32_t slot_bits);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_REQUEST_BLOCKS_H_

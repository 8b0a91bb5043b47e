#include "dataplane/pipeline/request_blocks.h"

#include <cstddef>

#include "base/status.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/block/block.h"

namespace sluice {

absl::StatusOr<std::vector<RequestBlock>> split_request(std::span<const uint8_t> payload,
                                                        uint32_t slot_bits) {
  std::vector<RequestBlock> blocks;
  for (size_t at = 0; at < payload.size() || blocks.empty();) {
    const std::span<const uint8_t> rest = payload.subspan(at);
    SLUICE_ASSIGN_OR_RETURN(const BlockHeader header, peek_block_header(rest));
    if (header.stored_bytes > rest.size()) {
      return data_loss("a request of {} bytes ends inside its block {}", payload.size(),
                       blocks.size());
    }
    if (header.slot_bits != slot_bits) {
      return failed_precondition("a block for {} slot bits in a cluster of {}", header.slot_bits,
                                 slot_bits);
    }
    blocks.push_back({header.slot, rest.first(header.stored_bytes)});
    // The last one ends the payload.
    const size_t next = at + padded(header.stored_bytes);
    const bool last = header.stored_bytes == rest.size();
    if (!last && next >= payload.size()) {
      return data_loss("a request of {} bytes holds more than its blocks", payload.size());
    }
    at = last ? payload.size() : next;
  }
  return blocks;
}

}  // namespace sluice

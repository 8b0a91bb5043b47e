// Reads one block of a segment and proves that it is the one an index lists.
#ifndef SLUICE_DATAPLANE_ARCHIVE_SEGMENT_READER_H_
#define SLUICE_DATAPLANE_ARCHIVE_SEGMENT_READER_H_

#include <span>
#include <string>

#include "absl/status/status.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/block/block.h"

namespace sluice {

// Reads the block with its padding into page-aligned `into`, which has room for
// padded(location.bytes). DATA_LOSS when the file ends before.
absl::Status read_padded(int fd, const BlockLocation& location, std::span<uint8_t> into,
                         const std::string& path);

// Checks header, checksum and padding of what read_padded() read. DATA_LOSS when it is another
// block than the location says, however whole that one may be.
// `slot_bits` 0: not known.
absl::Status check_block(const BlockLocation& location, uint32_t slot_bits,
                         std::span<const uint8_t> padded_block);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_SEGMENT_READER_H_

#include "dataplane/archive/segment_reader.h"

#include "base/status.h"
#include "dataplane/archive/folder.h"

namespace sluice {

absl::Status read_padded(int fd, const BlockLocation& location, std::span<uint8_t> into,
                         const std::string& path) {
  const uint64_t bytes = padded(location.bytes);
  SLUICE_ASSIGN_OR_RETURN(const size_t got, read_at(fd, location.offset, into.first(bytes), path));
  if (got < bytes) return data_loss("truncated: {} of {} bytes are there", got, bytes);
  return absl::OkStatus();
}

absl::Status check_block(const BlockLocation& location, uint32_t slot_bits,
                         std::span<const uint8_t> padded_block) {
  SLUICE_ASSIGN_OR_RETURN(const BlockReader reader, BlockReader::open(padded_block));
  const BlockHeader& header = reader.header();
  if (header.checksum != location.checksum || header.stored_bytes != location.bytes ||
      header.slot != location.slot || header.entries != location.entries ||
      header.flags != location.flags) {
    return data_loss("holds a block of slot {} that the index does not list there", header.slot);
  }
  if (slot_bits != 0 && header.slot_bits != slot_bits) {
    return data_loss("holds a block of {} slot bits in an archive of {}", header.slot_bits,
                     slot_bits);
  }
  if (!is_zero(padded_block.subspan(location.bytes))) return data_loss("padding is not zero");
  return absl::OkStatus();
}

}  // namespace sluice

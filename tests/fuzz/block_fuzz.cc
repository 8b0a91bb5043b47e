// Feeds a block reader anything. With a fuzzer that is not told how to make checksums, most inputs
// end at the checksum; so the input is read once as it is and once with the right checksum written
// into it.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/checksum.h"
#include "dataplane/block/block.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

// What the reader hands out must keep the format's promises, whatever the input was.
void read_block(std::string_view input) {
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(input.data()),
                                       input.size());
  require_readable(peek_block_header(bytes).status());
  auto reader = BlockReader::open(bytes);
  require_readable(reader.status());
  if (!reader.ok()) return;
  const auto first_key = reader->first_key();
  const auto last_key = reader->last_key();
  std::string last;
  uint32_t entries = 0;
  BlockEntry entry;
  for (;;) {
    const auto more = reader->next(&entry);
    require_readable(more.status());
    if (!more.ok()) return;
    if (!*more) break;
    require(!entry.key.empty() && entry.key.size() <= kMaxKeyBytes && entry.key > last);
    require(entry.value_bytes <= kMaxValueBytes &&
            entry.fragment_offset + entry.fragment.size() <= entry.value_bytes);
    require(is_possible_slot(reader->header().slot, reader->header().slot_bits) &&
            is_of_slot(entry.key, reader->header().slot, reader->header().slot_bits));
    // Every byte can be read.
    (void)xxh3_64(entry.fragment);
    last = entry.key;
    require(entries++ > 0 || (first_key.ok() && *first_key == last));
  }
  require(entries == reader->header().entries && last_key.ok() && *last_key == last);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string input(reinterpret_cast<const char*>(data), size);
  read_block(input);
  if (size < BlockHeader::kBytes) return 0;
  const size_t stored = load_le<uint32_t>(input.data() + 16);
  if (stored < BlockHeader::kBytes || stored > size) return 0;
  store_le(input.data(), xxh3_64(input.data() + 8, stored - 8));
  read_block(input);
  return 0;
}

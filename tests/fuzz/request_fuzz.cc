// Feeds the splitter of data writing requests anything.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "dataplane/pipeline/request_blocks.h"

using namespace sluice;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto blocks = split_request({data, size}, 4);
  if (!blocks.ok()) return 0;
  const uint8_t* end = data;
  for (const RequestBlock& block : *blocks) {
    // In order, apart from each other, and inside.
    if (block.bytes.data() < end || (block.bytes.data() - data) % 4096 != 0) std::abort();
    end = block.bytes.data() + block.bytes.size();
  }
  if (blocks->empty() || end != data + size) std::abort();
  return 0;
}

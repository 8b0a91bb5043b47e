// Feeds the splitter of data writing requests anything.
#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/pipeline/request_blocks.h"
#include "tests/fuzz/oracle.h"

using namespace sluice;
using sluice::testing::require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto blocks = split_request({data, size}, 4);
  sluice::testing::require_readable(blocks.status());
  if (!blocks.ok()) return 0;
  const uint8_t* end = data;
  for (const RequestBlock& block : *blocks) {
    // In order, apart from each other, and inside.
    require(block.bytes.data() >= end && (block.bytes.data() - data) % 4096 == 0);
    end = block.bytes.data() + block.bytes.size();
  }
  require(!blocks->empty() && end == data + size);
  return 0;
}

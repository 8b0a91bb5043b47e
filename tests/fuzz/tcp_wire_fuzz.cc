// Feeds what reads a tcp connection's first bytes and frames' heads anything.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "drivers/tcp/wire.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice::tcp;
using sluice::testing::require;
using sluice::testing::require_readable;

constexpr uint64_t kLimit = 1'052'672;

void read_preamble(std::span<const uint8_t> data) {
  const absl::Status status = check_preamble(data.data(), kLimit);
  require_readable(status);
  std::array<uint8_t, kPreambleBytes> ours{};
  encode_preamble(ours.data(), kLimit);
  require(status.ok() == std::equal(ours.begin(), ours.end(), data.begin()));
}

void read_header(std::span<const uint8_t> data) {
  const FrameHeader header = decode_header(data.data());
  const absl::Status status = check_header(header, kLimit);
  require_readable(status);
  if (!status.ok()) return;
  const bool carries_block = header.is(FrameType::kData) || header.is(FrameType::kHeld);
  require(carries_block || header.is(FrameType::kUpdate) || header.is(FrameType::kClose));
  require(header.length >= 1 && header.length <= kLimit);
  require(carries_block || header.length == kTotalsBytes);
  if (carries_block || data.size() < kControlBytes) return;
  std::array<uint8_t, kControlBytes> again{};
  encode_control(again.data(), static_cast<FrameType>(header.type),
                 decode_totals(data.data() + kHeaderBytes));
  require(std::equal(again.begin(), again.end(), data.begin()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size >= kHeaderBytes) read_header({data, size});
  if (size >= kPreambleBytes) read_preamble({data, size});
  return 0;
}

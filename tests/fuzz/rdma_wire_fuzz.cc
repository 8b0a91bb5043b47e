// Feeds the rdma driver's readers anything: a peer's hello, its refusal, and a run of control
// frames. The first byte says which. Each input is read once as it is, and hellos and refusals once
// with the right magic written into them, since most inputs would end at it.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/bytes.h"
#include "drivers/rdma/wire.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using namespace sluice::rdma;
using sluice::testing::require;
using sluice::testing::require_readable;

constexpr uint64_t kLimit = 1'052'672;
constexpr uint64_t kPosted = 1000;
constexpr uint64_t kReceived = 500;
constexpr uint32_t kControlSent = 40;
constexpr uint32_t kDepth = 256;

// A hello that is taken is one that this side could have sent.
void read_hello(std::span<const uint8_t> data) {
  RefusalCode code{};
  const auto hello = check_hello(data, kLimit, &code);
  if (!hello.ok()) {
    require_readable(hello.status());
    require(code >= RefusalCode::kNotSluice && code <= RefusalCode::kMessageLimit);
    return;
  }
  require(hello->version == kProtocolVersion && hello->max_message_bytes == kLimit);
  require(hello->receive_depth > 0 && hello->control_depth == kControlDepth);
  std::array<uint8_t, kHelloBytes> again{};
  encode_hello(again.data(), *hello);
  require(std::equal(again.begin(), again.end(), data.begin()));
}

void read_refusal(std::span<const uint8_t> data) {
  const absl::Status status = describe_refusal(data, kLimit);
  require(!status.ok());
  require_readable(status);
}

// Whatever frames come, the counts stay within what was sent and posted, and never go back. A
// frame's first byte is the length that the device reports for it.
void read_frames(std::span<const uint8_t> data) {
  PeerState state(kDepth);
  while (data.size() > kFrameBytes) {
    const PeerState before = state;
    const Frame frame = decode_frame(data.data() + 1);
    const absl::Status status = state.take(frame, data[0], kPosted, kControlSent, kReceived);
    if (!status.ok()) {
      require_readable(status);
      require(state.granted() == before.granted() && state.received() == before.received() &&
              state.closed() == before.closed());
      return;
    }
    require(data[0] == kFrameBytes);
    require(state.received() >= before.received() && state.received() <= kPosted);
    require(state.granted() >= before.granted() && state.granted() >= state.received() &&
            state.granted() - state.received() <= kDepth);
    require(state.control_received() >= before.control_received() &&
            state.control_received() <= kControlSent);
    require(!before.closed() || frame.type == static_cast<uint32_t>(FrameType::kUpdate));
    require(!state.closed() || state.sent() >= kReceived);
    data = data.subspan(1 + kFrameBytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(rest.data()), rest.size());
  switch (data[0] % 3) {
    case 0:
      read_hello(bytes);
      if (rest.size() < kHelloBytes) return 0;
      store_le<uint64_t>(rest.data(), kMagic);
      read_hello(bytes);
      break;
    case 1:
      read_refusal(bytes);
      if (rest.size() < kRefusalBytes) return 0;
      store_le<uint64_t>(rest.data(), kRefusalMagic);
      read_refusal(bytes);
      break;
    default:
      read_frames(bytes);
      break;
  }
  return 0;
}

// One link flat out: what `sluice bench link` runs. The sender fills each block's header, with a
// checksum of the rest, anew; the receiver verifies every one and reports back what it got.
//
// A link is one or several streams (connections), each with its own sequence, end and report. Each
// end serves all of its streams on the calling thread, from one endpoint and one pool of buffers
// that they share equally.
//
// Message: u32 magic, u32 kind, u64 sequence, u64 block length, u64 XXH3-64 of the rest (0: none),
// the rest. The header is part of the block, so that a block of 4096 bytes is a message of 4096
// bytes, as it is for other measuring tools; a block shorter than the header is sent as 32 bytes.
#ifndef SLUICE_DRIVERS_LINK_BENCH_H_
#define SLUICE_DRIVERS_LINK_BENCH_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/arena.h"
#include "drivers/transport.h"

namespace sluice {

inline constexpr size_t kLinkHeaderBytes = 32;
inline constexpr size_t kMaxLinkStreams = 64;

struct LinkOptions {
  size_t streams = 1;  // 1 to kMaxLinkStreams; both ends need the same number
  // Of this end, at least 3 and 2 for each stream; fewer where the arena has fewer. All of them are
  // used in turn: few stay in the processor's cache, many come from memory each time.
  size_t buffers = 128;
};

struct LinkResult {
  double gbit_s = 0;        // block bits over `seconds`
  double seconds = 0;       // from the first block to the last one's verification
  uint64_t blocks = 0;      // verified by the receiver, bad ones included; of all streams
  uint64_t bytes = 0;       // of these blocks
  uint64_t bad_blocks = 0;  // with a wrong header, sequence or checksum, as the receiver found
  double cpu_s = 0;         // of the calling thread
};

// Listens, says where, serves the first peers that send a block, as many as there are streams, to
// their end. Others are cut off; those that connect and send nothing hold nobody up
// (base/newcomers.h). DEADLINE_EXCEEDED when nothing arrives for idle_timeout_ns.
absl::StatusOr<LinkResult> run_link_receiver(
    Transport& transport, Arena& arena, std::string_view listen,
    const std::function<void(std::string_view bound_address)>& on_listening,
    int64_t idle_timeout_ns, const LinkOptions& options = {});

// Sends blocks of `block_bytes` bytes for about `seconds`. Without `checksum` only headers
// are verified. The counts are those that the receiver reports.
absl::StatusOr<LinkResult> run_link_sender(Transport& transport, Arena& arena,
                                           std::string_view address, double seconds,
                                           size_t block_bytes, bool checksum,
                                           const LinkOptions& options = {});

}  // namespace sluice

#endif  // SLUICE_DRIVERS_LINK_BENCH_H_

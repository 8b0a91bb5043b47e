// The envelope: what a session adds to a block on the wire. It is a fixed trailer BEHIND the block
// in the same buffer, so a block starts page-aligned and is written with O_DIRECT from where it was
// received. docs/streams.md has the layout to the byte.
//
// A message is `payload_bytes` bytes of payload followed by the envelope. Of kBlock the payload is
// one block, of kWriteRequest one or several, of kRecordWrite a batch of records, which carry their
// own checksums; of every other kind it is a small document, whose checksum stands in the envelope.
// The envelope's own checksum covers the rest of it.
#ifndef SLUICE_DATAPLANE_STREAM_ENVELOPE_H_
#define SLUICE_DATAPLANE_STREAM_ENVELOPE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"

namespace sluice {

enum class MessageKind : uint16_t {
  kHello = 1,       // connecting side, first message of a connection
  kHelloReply = 2,  // accepting side: accept, or refuse with a reason
  kKeepalive = 3,   // nothing to say; seen by the exchange alone
  kBlock = 4,       // one block of (slot, attempt), number `sequence` from 0
  // A slot ends that has no records, or that has no kEndOfSlot on its last block. With a payload it
  // tells the digest of its blocks, which nobody knew before they were read.
  kSlotEnd = 5,
  kSlotsDurable = 6,  // target to source: a list of slots that need not be sent (again)
  kSlotRefused = 7,   // target to source: send this slot again from its start; payload: reason
  kStreamEnd = 8,     // the sender has nothing more to say
  kWriteRequest = 9,  // blocks to apply; attempt is the table's epoch
  kWriteReply = 10,   // the answer to the request of the same sequence
  kError = 11,        // why the sender closes the stream; payload: status
  kLotEnd = 12,       // the sender has no more blocks of `lot`; answered by a kWriteReply
  kRecordWrite = 13,  // a batch of records (record_batch.h) to apply with the version override;
                      // attempt is the table's epoch; answered by a kWriteReply
  // Of a merge (merge_lists.h); sequence is (number of the request << 32) + number of the answer.
  kSummaryRequest = 14,  // target to source: the summaries of this slot's records, please
  kSummaries = 15,       // some of them, in key order
  kRecordRequest = 16,   // target to source: these records of the slot; answered by kBlock
};
inline constexpr uint16_t kLastMessageKind = 16;

struct Envelope {
  static constexpr size_t kBytes = 80;
  static constexpr uint32_t kMagic = 0x4e454c53;  // "SLEN"

  // Flags. Unknown ones are refused.
  // kBlock, kSummaries: the slot's last one, or of what was asked for. kRecordRequest: the slot's
  // last request.
  static constexpr uint16_t kEndOfSlot = 1;
  static constexpr uint16_t kRestart =
      2;  // kBlock, kSlotEnd of sequence 0: forget what came of this slot before
  static constexpr uint16_t kListComplete =
      4;  // kSlotsDurable: the list a new stream begins with is complete
  static constexpr uint16_t kKeep =
      8;  // kWriteRequest: need not be durable before the end of `lot`
  static constexpr uint16_t kKnownFlags = 15;

  MessageKind kind = MessageKind::kKeepalive;
  uint16_t flags = 0;
  uint32_t slot = 0;
  uint32_t payload_bytes = 0;
  uint64_t attempt = 0;
  uint64_t sequence = 0;
  // kRecordWrite: the version of every record. kWriteRequest without kKeep: 0, or the version that
  // every record but tombstones gets in place of its own. Else 0.
  uint64_t version_override = 0;  // stamp
  uint32_t version_node = 0;
  uint64_t lot = 0;  // kWriteRequest with kKeep, kLotEnd: which lot; else 0

  // Writes the trailer behind the payload, which stands at the buffer's start, and returns the
  // message's length. `envelope`'s payload_bytes is at most kMaxBlockBytes.
  static uint32_t seal(const Envelope& envelope, BlockBuffer& buffer);
  // DATA_LOSS with what is wrong. Also checks the payload of kinds that are no blocks.
  static absl::StatusOr<Envelope> open(std::span<const uint8_t> message);
  // Whether the payload has a checksum of its own.
  bool carries_block() const {
    return kind == MessageKind::kBlock || kind == MessageKind::kWriteRequest ||
           kind == MessageKind::kRecordWrite;
  }
};

// The payloads of the small kinds. All lists and texts are bounded; decoders treat their input as
// hostile.

// kError, kHelloReply (OK: accepted), kSlotRefused.
std::string encode_status(const absl::Status& status);
// The decoded status; DATA_LOSS when the payload is none. Texts are cut at kMaxReasonBytes.
inline constexpr size_t kMaxReasonBytes = 1024;
absl::Status decode_status(std::string_view payload);

// kSlotsDurable: ascending or not, each slot a u32.
inline constexpr size_t kMaxSlotsPerMessage = 128 << 10;
std::string encode_slots(std::span<const uint32_t> slots);
absl::StatusOr<std::vector<uint32_t>> decode_slots(std::string_view payload);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STREAM_ENVELOPE_H_

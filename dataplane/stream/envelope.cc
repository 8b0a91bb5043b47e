#include "dataplane/stream/envelope.h"

#include <cassert>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/status.h"

namespace sluice {
namespace {

// Where the fields stand, from the envelope's first byte.
constexpr size_t kMagicAt = 0;
constexpr size_t kKindAt = 4;
constexpr size_t kFlagsAt = 6;
constexpr size_t kSlotAt = 8;
constexpr size_t kPayloadBytesAt = 12;
constexpr size_t kAttemptAt = 16;
constexpr size_t kSequenceAt = 24;
constexpr size_t kVersionOverrideAt = 32;
// XXH3-64 of the payload, of kinds whose payload has no checksum of its own; else zero.
constexpr size_t kPayloadChecksumAt = 40;
constexpr size_t kZeroAt = 48;
constexpr size_t kLotAt = 56;
constexpr size_t kVersionNodeAt = 64;
constexpr size_t kZero32At = 68;
constexpr size_t kChecksumAt = 72;
static_assert(kChecksumAt + 8 == Envelope::kBytes);
static_assert(Envelope::kBytes <= kEnvelopeRoom);

}  // namespace

uint32_t Envelope::seal(const Envelope& envelope, BlockBuffer& buffer) {
  assert(envelope.payload_bytes <= kMaxBlockBytes);
  assert(envelope.payload_bytes + kBytes <= buffer.capacity());
  uint8_t* const at = buffer.data() + envelope.payload_bytes;
  store_le<uint32_t>(at + kMagicAt, kMagic);
  store_le<uint16_t>(at + kKindAt, static_cast<uint16_t>(envelope.kind));
  store_le<uint16_t>(at + kFlagsAt, envelope.flags);
  store_le<uint32_t>(at + kSlotAt, envelope.slot);
  store_le<uint32_t>(at + kPayloadBytesAt, envelope.payload_bytes);
  store_le<uint64_t>(at + kAttemptAt, envelope.attempt);
  store_le<uint64_t>(at + kSequenceAt, envelope.sequence);
  store_le<uint64_t>(at + kVersionOverrideAt, envelope.version_override);
  store_le<uint64_t>(at + kPayloadChecksumAt,
                     envelope.carries_block() ? 0 : xxh3_64(buffer.data(), envelope.payload_bytes));
  store_le<uint64_t>(at + kZeroAt, 0);
  store_le<uint64_t>(at + kLotAt, envelope.lot);
  store_le<uint32_t>(at + kVersionNodeAt, envelope.version_node);
  store_le<uint32_t>(at + kZero32At, 0);
  store_le<uint64_t>(at + kChecksumAt, xxh3_64(at, kChecksumAt));
  return envelope.payload_bytes + static_cast<uint32_t>(kBytes);
}

absl::StatusOr<Envelope> Envelope::open(std::span<const uint8_t> message) {
  if (message.size() < kBytes) {
    return data_loss("message of {} bytes: shorter than an envelope", message.size());
  }
  const uint8_t* const at = message.data() + message.size() - kBytes;
  if (load_le<uint32_t>(at + kMagicAt) != kMagic)
    return data_loss("no envelope behind the message");
  if (load_le<uint64_t>(at + kChecksumAt) != xxh3_64(at, kChecksumAt) ||
      load_le<uint32_t>(at + kZero32At) != 0 || load_le<uint64_t>(at + kZeroAt) != 0) {
    return data_loss("envelope's checksum does not hold");
  }
  const uint16_t kind = load_le<uint16_t>(at + kKindAt);
  if (kind == 0 || kind > kLastMessageKind) return data_loss("message of unknown kind {}", kind);
  Envelope envelope;
  envelope.kind = static_cast<MessageKind>(kind);
  envelope.flags = load_le<uint16_t>(at + kFlagsAt);
  envelope.slot = load_le<uint32_t>(at + kSlotAt);
  envelope.payload_bytes = load_le<uint32_t>(at + kPayloadBytesAt);
  envelope.attempt = load_le<uint64_t>(at + kAttemptAt);
  envelope.sequence = load_le<uint64_t>(at + kSequenceAt);
  envelope.version_override = load_le<uint64_t>(at + kVersionOverrideAt);
  envelope.lot = load_le<uint64_t>(at + kLotAt);
  envelope.version_node = load_le<uint32_t>(at + kVersionNodeAt);
  if ((envelope.flags & ~kKnownFlags) != 0) {
    return data_loss("envelope with unknown flags {:#x}", envelope.flags);
  }
  const bool of_lot =
      envelope.kind == MessageKind::kLotEnd ||
      (envelope.kind == MessageKind::kWriteRequest && (envelope.flags & kKeep) != 0);
  if (of_lot != (envelope.lot != 0)) return data_loss("envelope of lot {:#x}", envelope.lot);
  const bool has_version = envelope.version_override != 0 || envelope.version_node != 0;
  const bool may_have_version =
      envelope.kind == MessageKind::kRecordWrite ||
      (envelope.kind == MessageKind::kWriteRequest && (envelope.flags & kKeep) == 0);
  if (has_version && (!may_have_version || envelope.version_override == 0)) {
    return data_loss("envelope with a version override");
  }
  if (envelope.payload_bytes != message.size() - kBytes ||
      envelope.payload_bytes > kMaxBlockBytes) {
    return data_loss("envelope of a payload of {} bytes in a message of {}", envelope.payload_bytes,
                     message.size());
  }
  const uint64_t checksum =
      envelope.carries_block() ? 0 : xxh3_64(message.data(), envelope.payload_bytes);
  if (load_le<uint64_t>(at + kPayloadChecksumAt) != checksum) {
    return data_loss("checksum of a small message does not hold");
  }
  return envelope;
}

std::string encode_status(const absl::Status& status) {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put<uint8_t>(static_cast<uint8_t>(status.code()));
  out.put_string(message_of(status).substr(0, kMaxReasonBytes));
  return bytes;
}

absl::Status decode_status(std::string_view payload) {
  ByteReader in(payload);
  uint8_t code = 0;
  std::string_view text;
  if (!in.get(&code) || !in.get_string(&text, kMaxReasonBytes) || !in.done() ||
      code > static_cast<uint8_t>(absl::StatusCode::kUnauthenticated)) {
    return data_loss("damaged reason of a peer");
  }
  if (code == 0) return absl::OkStatus();
  // Printable only: it goes to logs and terminals.
  std::string reason(text);
  for (char& c : reason) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return absl::Status(static_cast<absl::StatusCode>(code), reason);
}

std::string encode_slots(std::span<const uint32_t> slots) {
  assert(slots.size() <= kMaxSlotsPerMessage);
  std::string bytes;
  bytes.reserve(slots.size() * 4);
  ByteWriter out(&bytes);
  for (const uint32_t slot : slots) out.put<uint32_t>(slot);
  return bytes;
}

absl::StatusOr<std::vector<uint32_t>> decode_slots(std::string_view payload) {
  if (payload.size() % 4 != 0 || payload.size() / 4 > kMaxSlotsPerMessage) {
    return data_loss("list of slots of {} bytes", payload.size());
  }
  std::vector<uint32_t> slots(payload.size() / 4);
  ByteReader in(payload);
  for (uint32_t& slot : slots) in.get(&slot);
  return slots;
}

}  // namespace sluice

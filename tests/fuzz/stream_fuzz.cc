// Feeds the readers of messages between nodes anything: the envelope, the hello and the small
// payloads. The first byte chooses the reader; an envelope is read once more with its checksums
// made right.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "dataplane/block/record_batch.h"
#include "dataplane/pipeline/record_writes.h"
#include "dataplane/pipeline/write_lots.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/stream/envelope.h"
#include "dataplane/stream/hello.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

// What is taken is what the encoder writes.
template <typename Payload>
void round_trip(std::string_view bytes) {
  const absl::StatusOr<Payload> payload = Payload::decode(bytes);
  require_readable(payload.status());
  if (payload.ok()) require(payload->encode() == bytes);
}

// A failure's text is made printable, and slots may come in any order, so what is taken is encoded
// in another way the first time, and in the same way from then on.
template <typename Payload>
void settle(std::string_view bytes) {
  const absl::StatusOr<Payload> payload = Payload::decode(bytes);
  require_readable(payload.status());
  if (!payload.ok()) return;
  const std::string first = payload->encode();
  const absl::StatusOr<Payload> again = Payload::decode(first);
  require(again.ok() && again->encode() == first);
}

BlockBuffer one_buffer() {
  static const std::unique_ptr<Arena> arena = *Arena::create({.bytes = kBufferBytes});
  static const std::unique_ptr<BlockPool> pool = *arena->make_pool("fuzz", 1);
  return pool->try_take();
}

void read_envelope(std::span<const uint8_t> message) {
  const absl::StatusOr<Envelope> envelope = Envelope::open(message);
  require_readable(envelope.status());
  if (!envelope.ok()) return;
  require(envelope->payload_bytes + Envelope::kBytes == message.size());
  require((envelope->flags & ~Envelope::kKnownFlags) == 0);
  if (message.size() > kBufferBytes) return;
  const BlockBuffer buffer = one_buffer();
  std::copy(message.begin(), message.end(), buffer.data());
  std::fill_n(buffer.data() + envelope->payload_bytes, Envelope::kBytes, uint8_t{0xa5});
  BlockBuffer sealed = buffer.share();
  require(Envelope::seal(*envelope, sealed) == message.size());
  require(std::equal(message.begin(), message.end(), sealed.data()));
}

void read_envelopes(std::string message) {
  const auto bytes = [&] {
    return std::span(reinterpret_cast<const uint8_t*>(message.data()), message.size());
  };
  read_envelope(bytes());
  if (message.size() < Envelope::kBytes || message.size() > kBufferBytes) return;
  auto* const at = reinterpret_cast<uint8_t*>(message.data()) + message.size() - Envelope::kBytes;
  const size_t payload = message.size() - Envelope::kBytes;
  store_le<uint32_t>(at, Envelope::kMagic);
  store_le<uint32_t>(at + 12, static_cast<uint32_t>(payload));
  store_le<uint64_t>(at + 48, 0);
  store_le<uint32_t>(at + 68, 0);
  Envelope kind;
  kind.kind = static_cast<MessageKind>(load_le<uint16_t>(at + 4));
  store_le<uint64_t>(at + 40, kind.carries_block() ? 0 : xxh3_64(message.data(), payload));
  store_le<uint64_t>(at + 72, xxh3_64(at, 72));
  read_envelope(bytes());
}

void read_status(std::string_view bytes) {
  const absl::Status status = decode_status(bytes);
  const std::string_view text = message_of(status);
  require(text.size() <= kMaxReasonBytes);
  for (const char c : text) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  require(decode_status(encode_status(status)) == status);
}

void read_slots(std::string_view bytes) {
  const auto slots = decode_slots(bytes);
  require_readable(slots.status());
  if (slots.ok()) require(encode_slots(*slots) == bytes);
}

void read_batch(std::string_view bytes) {
  auto reader =
      RecordBatchReader::open({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  require_readable(reader.status());
  if (!reader.ok()) return;
  std::string again(bytes.size(), '\0');
  RecordBatchBuilder builder;
  builder.begin({reinterpret_cast<uint8_t*>(again.data()), again.size()});
  for (;;) {
    RecordView record;
    const auto more = reader->next(&record);
    require_readable(more.status());
    if (!more.ok()) return;
    if (!*more) break;
    require(!record.key.empty() && record.key.size() <= kMaxKeyBytes &&
            record.value.size() <= kMaxValueBytes);
    require(!record.tombstone || record.value.empty());
    require(builder.add(record));
  }
  require(builder.records() == reader->records() && builder.finish() == bytes.size());
  require(again == bytes);
}

void read_batches(std::string bytes) {
  read_batch(bytes);
  if (bytes.size() < RecordBatchBuilder::kHeaderBytes) return;
  store_le(bytes.data(), xxh3_64(bytes.data() + 8, bytes.size() - 8));
  read_batch(bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      round_trip<Hello>(rest);
      break;
    case 1:
      read_envelopes(rest);
      break;
    case 2:
      read_status(rest);
      break;
    case 3:
      read_slots(rest);
      break;
    case 4:
      read_batches(rest);
      break;
    case 5:
      settle<ApplyAnswer>(rest);
      settle<RecordWriteReply>(rest);
      break;
    case 6:
      round_trip<LotEnd>(rest);
      break;
    default:
      settle<WriteReply>(rest);
      break;
  }
  return 0;
}

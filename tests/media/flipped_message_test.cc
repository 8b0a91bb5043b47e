// Flips single bits of messages on their way and opens them as their receivers do: each flip is
// found, or stands in padding that nobody reads. SLUICE_ROUNDS=N: that many flips of each kind;
// each failure names its seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/random.h"
#include "dataplane/block/record_batch.h"
#include "dataplane/pipeline/request_blocks.h"
#include "dataplane/stream/envelope.h"
#include "tests/dataplane/block/records.h"

namespace sluice::testing {
namespace {

constexpr uint32_t kSlotBits = 4;
constexpr uint32_t kSlot = 7;

class FlippedMessage : public ::testing::Test {
 protected:
  FlippedMessage() {
    Arena::Options options;
    options.bytes = kBufferBytes;
    arena_ = *Arena::create(options);
    pool_ = *arena_->make_pool("test", 1);
    buffer_ = pool_->try_take();
  }

  static std::vector<Record> records() {
    Random random(3);
    return make_records(random, kSlot, kSlotBits, {.count = 12, .max_value = 900});
  }

  // What the receiver of this message reads, or what it finds wrong.
  static absl::StatusOr<std::string> read(std::span<const uint8_t> message) {
    SLUICE_ASSIGN_OR_RETURN(const Envelope envelope, Envelope::open(message));
    const std::span<const uint8_t> payload = message.first(envelope.payload_bytes);
    std::string text = fmt::format("{} {} {} {} {} {} {}\n", static_cast<int>(envelope.kind),
                                   envelope.flags, envelope.slot, envelope.attempt,
                                   envelope.sequence, envelope.version_override, envelope.lot);
    switch (envelope.kind) {
      case MessageKind::kBlock:
        SLUICE_RETURN_IF_ERROR(add_block(payload, &text));
        break;
      case MessageKind::kWriteRequest: {
        SLUICE_ASSIGN_OR_RETURN(const auto blocks, split_request(payload, kSlotBits));
        for (const RequestBlock& block : blocks) {
          SLUICE_RETURN_IF_ERROR(add_block(block.bytes, &text));
        }
        break;
      }
      case MessageKind::kRecordWrite: {
        SLUICE_ASSIGN_OR_RETURN(RecordBatchReader batch, RecordBatchReader::open(payload));
        RecordView record;
        for (;;) {
          SLUICE_ASSIGN_OR_RETURN(const bool more, batch.next(&record));
          if (!more) break;
          text += fmt::format("{}={}\n", record.key, record.value);
        }
        break;
      }
      default: {
        SLUICE_ASSIGN_OR_RETURN(
            const auto slots,
            decode_slots({reinterpret_cast<const char*>(payload.data()), payload.size()}));
        text += fmt::format("{}\n", fmt::join(slots, " "));
      }
    }
    return text;
  }

  static absl::Status add_block(std::span<const uint8_t> block, std::string* text) {
    SLUICE_ASSIGN_OR_RETURN(
        const std::vector<Record> found,
        unpack({std::string(reinterpret_cast<const char*>(block.data()), block.size())}));
    for (const Record& record : found) *text += fmt::format("{}={}\n", record.key, record.value);
    return absl::OkStatus();
  }

  void flip_bits(MessageKind kind, std::string_view payload) {
    std::memcpy(buffer_.data(), payload.data(), payload.size());
    Envelope envelope;
    envelope.kind = kind;
    envelope.slot = kSlot;
    envelope.attempt = 3;
    envelope.sequence = 5;
    envelope.payload_bytes = static_cast<uint32_t>(payload.size());
    const std::span<uint8_t> message(buffer_.data(), Envelope::seal(envelope, buffer_));
    const absl::StatusOr<std::string> sent = read(message);
    ASSERT_TRUE(sent.ok()) << sent.status();
    const char* const set = std::getenv("SLUICE_ROUNDS");
    const uint64_t rounds = set == nullptr ? 25'000 : std::strtoull(set, nullptr, 10);
    uint64_t harmless = 0;
    for (uint64_t seed = 0; seed < rounds; ++seed) {
      Random random(Random::mix(seed));
      uint8_t& byte = message[random.below(message.size())];
      const auto mask = static_cast<uint8_t>(1 << random.below(8));
      byte ^= mask;
      const absl::StatusOr<std::string> received = read(message);
      byte ^= mask;
      if (!received.ok()) continue;
      ++harmless;
      ASSERT_EQ(*received, *sent) << "seed " << seed;
    }
    RecordProperty("harmless", static_cast<int>(harmless));
    // Only a request of several blocks has padding.
    if (kind != MessageKind::kWriteRequest) {
      EXPECT_EQ(harmless, 0u);
    }
  }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<BlockPool> pool_;
  BlockBuffer buffer_;
};

TEST_F(FlippedMessage, OfABlockIsFound) {
  flip_bits(MessageKind::kBlock, pack(records(), kSlot, kSlotBits).at(0));
}

TEST_F(FlippedMessage, OfARequestIsFoundOrHarmless) {
  std::string payload;
  for (const std::string& block : pack(records(), kSlot, kSlotBits, 8 << 10)) {
    payload.resize((payload.size() + 4095) / 4096 * 4096);
    payload += block;
  }
  flip_bits(MessageKind::kWriteRequest, payload);
}

TEST_F(FlippedMessage, OfABatchOfRecordsIsFound) {
  std::vector<uint8_t> memory(kMaxBlockBytes);
  RecordBatchBuilder builder;
  builder.begin(memory);
  for (const Record& record : records()) ASSERT_TRUE(builder.add(record.view()));
  const uint32_t bytes = builder.finish();
  flip_bits(MessageKind::kRecordWrite, {reinterpret_cast<const char*>(memory.data()), bytes});
}

TEST_F(FlippedMessage, OfAListIsFound) {
  const std::vector<uint32_t> slots = {1, 2, 3, 5, 8, 13};
  flip_bits(MessageKind::kSlotsDurable, encode_slots(slots));
}

}  // namespace
}  // namespace sluice::testing

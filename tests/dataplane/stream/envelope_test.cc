#include "dataplane/stream/envelope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/status.h"
#include "dataplane/stream/hello.h"

namespace sluice {
namespace {

class EnvelopeTest : public testing::Test {
 protected:
  EnvelopeTest() {
    Arena::Options options;
    options.bytes = kBufferBytes;
    arena_ = *Arena::create(options);
    pool_ = *arena_->make_pool("test", 1);
    buffer_ = pool_->try_take();
  }
  std::span<const uint8_t> message(uint32_t bytes) { return {buffer_.data(), bytes}; }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<BlockPool> pool_;
  BlockBuffer buffer_;
};

TEST_F(EnvelopeTest, EveryFieldRoundTrips) {
  Envelope envelope;
  envelope.kind = MessageKind::kBlock;
  envelope.flags = Envelope::kEndOfSlot | Envelope::kRestart;
  envelope.slot = 123456;
  envelope.payload_bytes = 777;
  envelope.attempt = uint64_t{1} << 60;
  envelope.sequence = 9876543210;
  std::memset(buffer_.data(), 0x5a, 777);
  const uint32_t bytes = Envelope::seal(envelope, buffer_);
  EXPECT_EQ(bytes, 777 + Envelope::kBytes);
  absl::StatusOr<Envelope> opened = Envelope::open(message(bytes));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->kind, envelope.kind);
  EXPECT_EQ(opened->flags, envelope.flags);
  EXPECT_EQ(opened->slot, envelope.slot);
  EXPECT_EQ(opened->payload_bytes, 777);
  EXPECT_EQ(opened->attempt, envelope.attempt);
  EXPECT_EQ(opened->sequence, envelope.sequence);
}

TEST_F(EnvelopeTest, LayoutIsTheDocumentedOne) {
  Envelope envelope;
  envelope.kind = MessageKind::kSlotRefused;
  envelope.flags = Envelope::kListComplete;
  envelope.slot = 0x01020304;
  envelope.payload_bytes = 2;
  envelope.attempt = 5;
  envelope.sequence = 6;
  buffer_.data()[0] = 'h';
  buffer_.data()[1] = 'i';
  const uint32_t bytes = Envelope::seal(envelope, buffer_);
  ASSERT_EQ(bytes, 82);
  const uint8_t* at = buffer_.data() + 2;
  EXPECT_EQ(std::memcmp(at, "SLEN", 4), 0);
  EXPECT_EQ(load_le<uint16_t>(at + 4), 7);
  EXPECT_EQ(load_le<uint16_t>(at + 6), 4);
  EXPECT_EQ(load_le<uint32_t>(at + 8), 0x01020304u);
  EXPECT_EQ(load_le<uint32_t>(at + 12), 2u);
  EXPECT_EQ(load_le<uint64_t>(at + 16), 5u);
  EXPECT_EQ(load_le<uint64_t>(at + 24), 6u);
  EXPECT_EQ(load_le<uint64_t>(at + 32), 0u);
  EXPECT_EQ(load_le<uint64_t>(at + 40), xxh3_64("hi"));
  EXPECT_EQ(load_le<uint64_t>(at + 48), 0u);
  EXPECT_EQ(load_le<uint64_t>(at + 56), 0u);
  EXPECT_EQ(load_le<uint64_t>(at + 64), 0u);
  EXPECT_EQ(load_le<uint64_t>(at + 72), xxh3_64(at, 72));
}

TEST_F(EnvelopeTest, LotsAndVersionsAreOfTheirKindsAlone) {
  const auto opened = [this](const Envelope& envelope) {
    return Envelope::open(message(Envelope::seal(envelope, buffer_)));
  };
  Envelope kept;
  kept.kind = MessageKind::kWriteRequest;
  kept.flags = Envelope::kKeep;
  kept.lot = 0xfedcba9876543210;
  const auto back = opened(kept);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->lot, kept.lot);
  EXPECT_EQ(load_le<uint64_t>(buffer_.data() + 56), kept.lot);
  Envelope records;
  records.kind = MessageKind::kRecordWrite;
  records.version_override = 0x1122334455667788;
  records.version_node = 9;
  const auto versions = opened(records);
  ASSERT_TRUE(versions.ok()) << versions.status();
  EXPECT_EQ(versions->version_override, records.version_override);
  EXPECT_EQ(versions->version_node, 9u);
  EXPECT_EQ(load_le<uint64_t>(buffer_.data() + 32), records.version_override);
  EXPECT_EQ(load_le<uint32_t>(buffer_.data() + 64), 9u);

  records.kind = MessageKind::kWriteRequest;
  EXPECT_TRUE(opened(records).ok()) << "restamped";
  records.version_override = 0;
  EXPECT_FALSE(opened(records).ok()) << "a node without a stamp";
  records.version_override = 1;
  kept.version_override = 1;
  EXPECT_FALSE(opened(kept).ok()) << "a version of what is kept for a lot";
  kept.version_override = 0;

  kept.flags = 0;
  EXPECT_FALSE(opened(kept).ok()) << "a lot of a block that is not kept";
  kept.flags = Envelope::kKeep;
  kept.lot = 0;
  EXPECT_FALSE(opened(kept).ok()) << "kept for no lot";
  records.kind = MessageKind::kBlock;
  EXPECT_FALSE(opened(records).ok()) << "a version of a block";
}

TEST_F(EnvelopeTest, EveryFlippedBitOfASmallMessageIsFound) {
  Envelope envelope;
  envelope.kind = MessageKind::kSlotsDurable;
  envelope.payload_bytes = 12;
  std::memcpy(buffer_.data(), "slots slots ", 12);
  const uint32_t bytes = Envelope::seal(envelope, buffer_);
  ASSERT_TRUE(Envelope::open(message(bytes)).ok());
  for (uint32_t bit = 0; bit < bytes * 8; ++bit) {
    buffer_.data()[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    EXPECT_EQ(Envelope::open(message(bytes)).status().code(), absl::StatusCode::kDataLoss) << bit;
    buffer_.data()[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
  for (uint32_t size = 0; size < bytes; ++size) EXPECT_FALSE(Envelope::open(message(size)).ok());
  EXPECT_FALSE(Envelope::open(message(bytes + 1)).ok());
}

TEST(PayloadTest, StatusesRoundTripBoundedAndPrintable) {
  EXPECT_EQ(decode_status(encode_status(unavailable("disk n7 is gone"))),
            unavailable("disk n7 is gone"));
  EXPECT_TRUE(decode_status(encode_status(absl::OkStatus())).ok());
  EXPECT_EQ(
      message_of(decode_status(encode_status(unavailable("{}", std::string(5000, 'x'))))).size(),
      kMaxReasonBytes);
  EXPECT_EQ(message_of(decode_status(encode_status(unavailable("\x1b[2Jboo\n")))), "?[2Jboo?");
  EXPECT_EQ(decode_status("").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(decode_status("\x55\x01x").code(), absl::StatusCode::kDataLoss);
}

TEST(PayloadTest, SlotListsRoundTrip) {
  const std::vector<uint32_t> slots = {0, 7, 1 << 19};
  absl::StatusOr<std::vector<uint32_t>> decoded = decode_slots(encode_slots(slots));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(*decoded, slots);
  EXPECT_FALSE(decode_slots("abc").ok());
  EXPECT_FALSE(decode_slots(std::string(kMaxSlotsPerMessage * 4 + 4, '\0')).ok());
}

TEST(HelloTest, RoundTripsAndRefusesEveryTruncation) {
  Hello hello;
  hello.cluster = "cluster";
  hello.node = "n1";
  hello.target = "n2";
  hello.incarnation = 4;
  hello.kind = StreamKind::kBackupMerge;
  hello.job = "job";
  hello.attempt = 3;
  hello.authentication = "token";
  const std::string bytes = hello.encode();
  absl::StatusOr<Hello> decoded = Hello::decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->encode(), bytes);
  EXPECT_EQ(decoded->kind, StreamKind::kBackupMerge);
  EXPECT_EQ(decoded->target, "n2");
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(Hello::decode(std::string_view(bytes).substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(Hello::decode(bytes + "x").ok());
}

TEST(HelloTest, WhatItDoesNotKnowIsRefusedWithAReason) {
  Hello later;
  later.protocol_min = Hello::kProtocol + 1;
  later.protocol_max = Hello::kProtocol + 2;
  EXPECT_EQ(Hello::decode(later.encode()).status().code(), absl::StatusCode::kFailedPrecondition);
  Hello feature;
  feature.features = 1 << 5;
  EXPECT_EQ(Hello::decode(feature.encode()).status().code(), absl::StatusCode::kFailedPrecondition);
  Hello kind;
  kind.kind = static_cast<StreamKind>(9);
  EXPECT_EQ(Hello::decode(kind.encode()).status().code(), absl::StatusCode::kFailedPrecondition);
  Hello huge;
  huge.authentication = std::string(Hello::kMaxAuthenticationBytes + 1, 'a');
  EXPECT_EQ(Hello::decode(huge.encode()).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice

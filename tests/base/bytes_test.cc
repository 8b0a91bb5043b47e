#include "base/bytes.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/random.h"

namespace sluice {
namespace {

TEST(BytesTest, VarintsRoundTripInTheirShortestForm) {
  Random random(1);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t value =
        i == 0 ? std::numeric_limits<uint64_t>::max() : random.next() >> random.below(64);
    std::string bytes;
    ByteWriter(&bytes).put_varint(value);
    EXPECT_EQ(bytes.size(), varint_size(value));
    ByteReader reader(bytes);
    uint64_t got = 0;
    ASSERT_TRUE(reader.get_varint(&got));
    EXPECT_EQ(got, value);
    EXPECT_TRUE(reader.done());
  }
}

TEST(BytesTest, MalformedVarintsAreRefusedAndNothingMoves) {
  for (const std::string& bytes : {std::string(), std::string("\x80"), std::string("\x80\x00", 2),
                                   std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
                                   std::string("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")}) {
    ByteReader reader(bytes);
    uint64_t value = 7;
    EXPECT_FALSE(reader.get_varint(&value));
    EXPECT_EQ(reader.remaining(), bytes.size());
    EXPECT_EQ(value, 7u);
  }
}

TEST(BytesTest, StringsRespectTheirLimitAndTheInputsEnd) {
  std::string bytes;
  ByteWriter(&bytes).put_string("hello");
  std::string_view text;
  EXPECT_FALSE(ByteReader(bytes).get_string(&text, 4));
  EXPECT_FALSE(ByteReader(std::string_view(bytes).substr(0, 5)).get_string(&text, 100));
  ByteReader reader(bytes);
  ASSERT_TRUE(reader.get_string(&text, 5));
  EXPECT_EQ(text, "hello");
}

TEST(BytesTest, IntegersAreLittleEndian) {
  std::string bytes;
  ByteWriter writer(&bytes);
  writer.put<uint32_t>(0x01020304);
  EXPECT_EQ(bytes, std::string("\x04\x03\x02\x01"));
  ByteReader reader(bytes);
  uint64_t wide = 0;
  EXPECT_FALSE(reader.get(&wide));
  uint32_t value = 0;
  EXPECT_TRUE(reader.get(&value));
  EXPECT_EQ(value, 0x01020304u);
}

}  // namespace
}  // namespace sluice

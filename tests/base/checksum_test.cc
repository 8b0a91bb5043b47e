#include "base/checksum.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace sluice {
namespace {

// The empty input's values are those of the XXH3 specification's reference implementation.
TEST(ChecksumTest, KnownValues) {
  EXPECT_EQ(xxh3_64(""), 0x2d06800538d394c2u);
  EXPECT_EQ(xxh3_128("").to_hex(), "99aa06d3014798d86001c324468d497f");
}

TEST(ChecksumTest, PiecesGiveTheSameAsTheWhole) {
  Random random(2);
  std::string data(300'000, '\0');
  for (char& c : data) c = static_cast<char>(random.next());
  for (size_t size : {size_t{0}, size_t{1}, size_t{16}, size_t{17}, size_t{128}, size_t{129},
                      size_t{240}, size_t{241}, size_t{1024}, size_t{4096}, data.size()}) {
    StreamingXxh3 hasher;
    for (size_t at = 0; at < size;) {
      const size_t piece = std::min<size_t>(1 + random.below(5000), size - at);
      hasher.update(data.data() + at, piece);
      at += piece;
    }
    EXPECT_EQ(hasher.digest128(), xxh3_128(data.data(), size)) << size;
    EXPECT_EQ(hasher.digest64(), xxh3_64(data.data(), size)) << size;
  }
}

TEST(ChecksumTest, DigestsAddAndSubtractMod2To128) {
  Random random(3);
  for (int i = 0; i < 1000; ++i) {
    const Digest128 a{random.next(), random.next()};
    const Digest128 b{random.next(), random.next()};
    Digest128 sum = a;
    sum += b;
    unsigned __int128 expected = (static_cast<unsigned __int128>(a.high) << 64 | a.low) +
                                 (static_cast<unsigned __int128>(b.high) << 64 | b.low);
    EXPECT_EQ(sum.low, static_cast<uint64_t>(expected));
    EXPECT_EQ(sum.high, static_cast<uint64_t>(expected >> 64));
    sum -= b;
    EXPECT_EQ(sum, a);
  }
}

TEST(ChecksumTest, HexRoundTripsAndRefusesOtherText) {
  const Digest128 digest = xxh3_128("x");
  Digest128 got;
  ASSERT_TRUE(Digest128::from_hex(digest.to_hex(), &got));
  EXPECT_EQ(got, digest);
  EXPECT_FALSE(Digest128::from_hex("", &got));
  EXPECT_FALSE(Digest128::from_hex(std::string(31, 'a'), &got));
  EXPECT_FALSE(Digest128::from_hex(std::string(32, 'G'), &got));
}

}  // namespace
}  // namespace sluice

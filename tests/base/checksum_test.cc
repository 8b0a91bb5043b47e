#include "base/checksum.h"

#include <cpuid.h>
#include <gtest/gtest.h>
#include <immintrin.h>

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

// Bit 2 of what XGETBV answers for 1: upper halves of vector registers are in use.
__attribute__((target("xsave"))) bool upper_halves_in_use() { return (_xgetbv(1) & 4) != 0; }
__attribute__((target("avx"))) void zero_upper_halves() { _mm256_zeroupper(); }
bool can_tell_upper_halves() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx") && __get_cpuid_count(0xd, 1, &a, &b, &c, &d) != 0 &&
         (a & 4) != 0;
}

// SSE code that runs after it, RocksDB's checksums for one, would be slow.
TEST(ChecksumTest, LeavesNoUpperHalvesOfVectorRegistersInUse) {
  if (!can_tell_upper_halves()) GTEST_SKIP() << "skipped: this processor does not tell";
  const std::string data(100'000, 'x');
  for (const size_t size : {size_t{1}, size_t{240}, size_t{241}, size_t{1024}, data.size()}) {
    zero_upper_halves();
    (void)xxh3_64(data.data(), size);
    EXPECT_FALSE(upper_halves_in_use()) << size;
    (void)xxh3_128(data.data(), size);
    EXPECT_FALSE(upper_halves_in_use()) << size;
    StreamingXxh3 hasher;
    for (int i = 0; i < 3; ++i) hasher.update(data.data(), size);
    EXPECT_FALSE(upper_halves_in_use()) << size;
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

#include "base/stream_copy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/random.h"

namespace sluice {
namespace {

// Every alignment and length: the copy, and not a byte beside it.
TEST(StreamCopyTest, CopiesAtEveryAlignmentAndLength) {
  constexpr size_t kRoom = 1024;
  alignas(64) uint8_t to[kRoom];
  uint8_t from[kRoom];
  Random random(5);
  for (uint8_t& byte : from) byte = static_cast<uint8_t>(random.next());
  for (size_t at : {0, 1, 16, 63, 64}) {
    for (size_t source : {0, 1, 7, 32}) {
      for (size_t bytes : {0, 1, 63, 64, 65, 128, 512, 513, 640}) {
        std::memset(to, 0xee, kRoom);
        stream_copy(to + at, from + source, bytes);
        ASSERT_EQ(std::memcmp(to + at, from + source, bytes), 0) << at << " " << bytes;
        for (size_t i = 0; i < kRoom; ++i) {
          const bool beside = i < at || i >= at + bytes;
          ASSERT_TRUE(!beside || to[i] == 0xee) << at << " " << bytes << " " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace sluice

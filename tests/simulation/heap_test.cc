#include "tests/simulation/heap.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

void expect(bool holds, std::string_view what) {
  if (!holds) fail(what);
}

std::string addresses() {
  const Result result = run(1, Options(), [] {
    for (const size_t bytes : {1, 40, 1000, 5000, 3'000'000}) {
      void* const memory = std::malloc(bytes);
      output(fmt::format("{} {} ", memory, malloc_usable_size(memory)));
    }
  });
  EXPECT_TRUE(result.passed()) << result.failure;
  return result.output;
}

TEST(Heap, IsTheSameWhateverTheParentHas) {
  const std::string first = addresses();
  std::vector<std::string> held;
  for (int i = 0; i < 300; ++i) {
    held.emplace_back(entropy() % 5000, 'x');
    if (i % 3 == 0) held.erase(held.begin());
  }
  EXPECT_EQ(addresses(), first);
}

TEST(Heap, GivesMemoryOfAllSizesThatNobodyElseHas) {
  auto of_parent = std::make_unique<std::string>(1000, 'p');
  const Result result = run(1, Options(), [&of_parent] {
    Random random(1);
    struct Block {
      size_t bytes;
      char fill;
    };
    std::map<char*, Block> blocks;
    for (int i = 0; i < 30'000; ++i) {
      if (blocks.size() > 300) {
        const auto any = std::next(blocks.begin(), static_cast<ptrdiff_t>(random.below(300)));
        const auto [memory, block] = *any;
        expect(std::count(memory, memory + block.bytes, block.fill) ==
                   static_cast<ptrdiff_t>(block.bytes),
               "somebody else has written here");
        std::free(memory);
        blocks.erase(any);
      }
      const size_t bytes = random.below(size_t{1} << random.below(18));
      const size_t alignment = size_t{16} << random.below(9);
      const uint64_t way = random.below(4);
      void* memory = nullptr;
      if (way == 0) memory = std::malloc(bytes);
      if (way == 1) memory = std::calloc(1, bytes);
      if (way == 2) memory = std::realloc(std::malloc(10), bytes);
      if (way == 3) expect(posix_memalign(&memory, alignment, bytes) == 0, "posix_memalign");
      auto* const begin = static_cast<char*>(memory);
      expect(reinterpret_cast<uintptr_t>(begin) % (way == 3 ? alignment : 16) == 0, "alignment");
      expect(malloc_usable_size(begin) >= bytes, "usable bytes");
      if (way == 1) expect(std::count(begin, begin + bytes, '\0') == ptrdiff_t(bytes), "zeros");
      const auto fill = static_cast<char>(i);
      std::memset(begin, fill, bytes);
      blocks[begin] = {bytes, fill};
    }
    // What the parent had may be freed and grow.
    expect(*of_parent == std::string(1000, 'p'), "the parent's");
    of_parent->append(5000, 'q');
    expect(of_parent->substr(0, 1000) == std::string(1000, 'p'), "moved");
    of_parent = nullptr;
    auto* const grown = static_cast<char*>(
        std::realloc(std::strcpy(static_cast<char*>(std::malloc(6)), "grown"), 100'000));
    expect(std::string(grown) == "grown", "realloc");
    errno = 0;
    void* volatile too_much = std::malloc(size_t{1} << 50);
    expect(too_much == nullptr && errno == ENOMEM, "more than there is");
  });
  EXPECT_TRUE(result.passed()) << result.failure;
  EXPECT_EQ(*of_parent, std::string(1000, 'p'));
}

}  // namespace
}  // namespace sluice::simulation

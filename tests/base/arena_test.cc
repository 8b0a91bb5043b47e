#include "base/arena.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "base/status.h"

namespace sluice {
namespace {

std::unique_ptr<Arena> make_arena(size_t buffers) {
  Arena::Options options;
  options.buffer_bytes = 8192;
  options.bytes = buffers * options.buffer_bytes;
  auto arena = Arena::create(options);
  EXPECT_TRUE(arena.ok()) << arena.status();
  return *std::move(arena);
}

TEST(ArenaTest, BuffersAreDistinctAlignedAndInTheMemfd) {
  auto arena = make_arena(4);
  auto pool = *arena->make_pool("test", 4);
  std::vector<BlockBuffer> buffers;
  for (int i = 0; i < 4; ++i) {
    buffers.push_back(pool->try_take());
    ASSERT_TRUE(buffers.back());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffers.back().data()) % 4096, 0u);
    std::memset(buffers.back().data(), i + 1, buffers.back().capacity());
  }
  EXPECT_FALSE(pool->try_take());
  for (int i = 0; i < 4; ++i) {
    uint8_t byte = 0;
    ASSERT_EQ(pread(arena->memfd(), &byte, 1, static_cast<off_t>(buffers[i].offset() + 8191)), 1);
    EXPECT_EQ(byte, i + 1);
  }
}

TEST(ArenaTest, ASharedBufferGoesHomeWithItsLastReference) {
  auto arena = make_arena(1);
  auto pool = *arena->make_pool("test", 1);
  BlockBuffer first = pool->try_take();
  BlockBuffer second = first.share();
  first.reset();
  EXPECT_EQ(pool->free(), 0u);
  second.reset();
  EXPECT_EQ(pool->free(), 1u);
}

TEST(ArenaTest, OnePoolCannotUseUpAnother) {
  auto arena = make_arena(3);
  auto greedy = *arena->make_pool("greedy", 2);
  auto other = *arena->make_pool("other", 1);
  BlockBuffer a = greedy->try_take();
  BlockBuffer b = greedy->try_take();
  EXPECT_FALSE(greedy->try_take());
  EXPECT_TRUE(other->try_take());
}

TEST(ArenaTest, APoolTooLargeIsRefusedAndNamed) {
  auto arena = make_arena(2);
  auto pool = arena->make_pool("restore window", 3);
  ASSERT_FALSE(pool.ok());
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(message_of(pool.status()).find("restore window"), std::string_view::npos);
  EXPECT_TRUE(arena->make_pool("fits", 2).ok());
}

TEST(ArenaTest, ADestroyedPoolGivesItsBuffersBack) {
  auto arena = make_arena(2);
  { auto pool = *arena->make_pool("first", 2); }
  EXPECT_EQ(arena->unassigned(), 2u);
  EXPECT_TRUE(arena->make_pool("second", 2).ok());
}

TEST(ArenaTest, ADestroyedPoolWaitsForItsBuffers) {
  auto arena = make_arena(2);
  auto pool = *arena->make_pool("first", 2);
  std::atomic<bool> ended = false;
  std::thread driver([&, held = pool->try_take()]() mutable {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(ended);
    held.reset();
  });
  pool.reset();
  ended = true;
  EXPECT_EQ(arena->unassigned(), 2u);
  driver.join();
}

TEST(ArenaTest, TakeWaitsForAnotherThreadsBuffer) {
  auto arena = make_arena(1);
  auto pool = *arena->make_pool("test", 1);
  BlockBuffer held = pool->try_take();
  EXPECT_FALSE(pool->take(1));
  std::thread giver([&] { held.reset(); });
  EXPECT_TRUE(pool->take(60'000));
  giver.join();
}

TEST(ArenaTest, ThreadsNeverHoldOneBufferTogether) {
  auto arena = make_arena(3);
  auto pool = *arena->make_pool("test", 3);
  std::vector<std::atomic<int>> holders(3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        BlockBuffer buffer = pool->take(60'000);
        ASSERT_TRUE(buffer);
        EXPECT_EQ(holders[buffer.index()].fetch_add(1), 0);
        holders[buffer.index()].fetch_sub(1);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(pool->free(), 3u);
}

TEST(ArenaTest, SizesThatCannotWorkAreRefused) {
  Arena::Options options;
  options.buffer_bytes = 5000;
  EXPECT_EQ(Arena::create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.buffer_bytes = 8192;
  options.bytes = 8191;
  EXPECT_EQ(Arena::create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

// Reserves huge pages while it lives, where this process may.
class HugePages {
 public:
  explicit HugePages(size_t more) : before_(count()) { reserve(before_ + more); }
  ~HugePages() { reserve(before_); }
  static size_t count() {
    size_t pages = 0;
    std::ifstream(kFile) >> pages;
    return pages;
  }
  size_t got() const { return count() - before_; }

 private:
  static constexpr const char* kFile = "/proc/sys/vm/nr_hugepages";
  static void reserve(size_t pages) { std::ofstream(kFile) << pages; }
  const size_t before_;
};

TEST(ArenaTest, TakesHugePagesWhereEnoughAreFree) {
  constexpr size_t kPage = size_t{2} << 20;
  constexpr size_t kWanted = 3 + Arena::kHugeLeft / kPage;
  const HugePages pages(kWanted);
  if (pages.got() < kWanted) GTEST_SKIP() << "skipped: huge pages cannot be reserved";
  Arena::Options options;
  options.bytes = 3 * kPage;
  options.pages = Arena::Pages::kHugeIfFree;
  {
    const auto arena = *Arena::create(options);
    EXPECT_TRUE(arena->has_huge_pages());
    const auto pool = *arena->make_pool("all", arena->buffers());
    const BlockBuffer buffer = pool->try_take();
    std::memset(buffer.data(), 7, buffer.capacity());
  }
  // What is left to others is not taken.
  size_t free = 0;
  std::ifstream("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") >> free;
  options.bytes = (free + 1) * kPage;
  const auto arena = Arena::create(options);
  ASSERT_TRUE(arena.ok()) << arena.status();
  EXPECT_FALSE((*arena)->has_huge_pages());
  options.pages = Arena::Pages::kHuge;
  EXPECT_EQ(Arena::create(options).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace sluice

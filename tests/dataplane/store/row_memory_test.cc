#include "dataplane/store/row_memory.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace sluice {
namespace {

TEST(RowMemory, APieceIsUsedAgainWhileAnotherIsInUse) {
  const auto memory = std::make_shared<RowMemory>();
  const RowMemory::Piece held = memory->take(1);
  RowMemory::Piece piece = memory->take(300'000);
  const char* const at = piece.get();
  piece.reset();
  const RowMemory::Piece again = memory->take(310'000);  // rounded to the same size
  EXPECT_EQ(again.get(), at);
  const RowMemory::Piece another = memory->take(310'000);
  EXPECT_NE(another.get(), at);
}

TEST(RowMemory, NothingIsKeptWhenNothingIsInUse) {
  const auto memory = std::make_shared<RowMemory>();
  std::vector<RowMemory::Piece> pieces;
  for (int i = 0; i < 10; ++i) pieces.push_back(memory->take(1 << 20));
  EXPECT_EQ(memory->kept_bytes(), 0u);
  while (pieces.size() > 1) pieces.pop_back();
  EXPECT_EQ(memory->kept_bytes(), size_t{9} << 20);
  pieces.clear();
  EXPECT_EQ(memory->kept_bytes(), 0u);
}

TEST(RowMemory, SmallPiecesAreNotKept) {
  const auto memory = std::make_shared<RowMemory>();
  const RowMemory::Piece held = memory->take(1 << 20);
  memory->take(2000).reset();
  EXPECT_EQ(memory->kept_bytes(), 0u);
}

TEST(RowMemory, KeepsNoMoreThanItMay) {
  const auto memory = std::make_shared<RowMemory>();
  std::vector<RowMemory::Piece> pieces;
  for (size_t bytes = 0; bytes < 2 * RowMemory::kMostKept; bytes += 8 << 20) {
    pieces.push_back(memory->take(8 << 20));
  }
  while (pieces.size() > 1) pieces.pop_back();
  EXPECT_EQ(memory->kept_bytes(), RowMemory::kMostKept);
}

TEST(RowMemory, APieceOutlivesWhoGaveIt) {
  auto memory = std::make_shared<RowMemory>();
  RowMemory::Piece piece = memory->take(100);
  memory.reset();
  piece[99] = 'x';
}

TEST(RowMemory, ManyThreads) {
  const auto memory = std::make_shared<RowMemory>();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&memory, t] {
      for (int i = 0; i < 2000; ++i) {
        RowMemory::Piece piece = memory->take(1000 * static_cast<size_t>(1 + (i + t) % 200));
        piece[0] = static_cast<char>(t);
        ASSERT_EQ(piece[0], static_cast<char>(t));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory->kept_bytes(), 0u);
}

}  // namespace
}  // namespace sluice

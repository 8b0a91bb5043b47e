#include "dataplane/archive/write_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "dataplane/archive/folder.h"
#include "tests/dataplane/archive/small_archive.h"

namespace sluice::testing {
namespace {

std::shared_ptr<UniqueFd> open_file(const std::string& path, int flags) {
  auto file = open_direct(path, flags);
  EXPECT_TRUE(file.ok()) << file.status();
  return std::make_shared<UniqueFd>(*std::move(file));
}

TEST(WriteQueue, WritesEverythingWhereItBelongs) {
  Memory memory(4);
  ScratchFolder scratch;
  const std::string path = scratch / "file";
  constexpr size_t kBytes = 8192;
  constexpr size_t kWrites = 50;
  {
    WriteQueue queue(3, "test", nullptr);
    const auto file = open_file(path, O_WRONLY | O_CREAT);
    for (size_t i = 0; i < kWrites; ++i) {
      BlockBuffer buffer = memory.pool->take(60'000);
      std::memset(buffer.data(), static_cast<int>('A' + i), kBytes);
      ASSERT_TRUE(queue.write(file, i * kBytes, std::move(buffer), kBytes).ok());
    }
    ASSERT_TRUE(queue.flush().ok());
    // All buffers are home without another call.
    EXPECT_EQ(memory.pool->free(), memory.pool->size());
  }
  const std::string content = slurp(path);
  ASSERT_EQ(content.size(), kBytes * kWrites);
  for (size_t i = 0; i < kWrites; ++i) {
    EXPECT_EQ(content.substr(i * kBytes, kBytes), std::string(kBytes, static_cast<char>('A' + i)));
  }
}

// In a pool no larger than what is in flight, a holder that only waits for a buffer must get one.
TEST(WriteQueue, BuffersComeHomeWithoutBeingAskedFor) {
  Memory memory(2);
  ScratchFolder scratch;
  WriteQueue queue(8, "test", nullptr);
  const auto file = open_file(scratch / "file", O_WRONLY | O_CREAT);
  for (uint64_t i = 0; i < 20; ++i) {
    BlockBuffer buffer = memory.pool->take(60'000);
    ASSERT_TRUE(buffer);
    ASSERT_TRUE(queue.write(file, i * 4096, std::move(buffer), 4096).ok());
  }
  EXPECT_TRUE(queue.flush().ok());
}

// Into a pipe that takes one page at a time, so that the first writes are in flight until it is
// read: what follows them becomes one write, and every write is taken up again where it stopped.
TEST(WriteQueue, GathersSmallBlocksWhileOthersAreInFlight) {
  constexpr size_t kBytes = 8192;
  constexpr size_t kBlocks = 7;
  Memory memory(kBlocks);
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const auto file = std::make_shared<UniqueFd>(ends[1]);
  ASSERT_GT(fcntl(ends[1], F_SETPIPE_SZ, 4096), 0);
  Stage stage(system_clock());
  WriteQueue queue(kBlocks, "test", nullptr, &stage);
  if (!queue.uses_io_uring()) GTEST_SKIP() << "the kernel has no io_uring";
  for (size_t i = 0; i < kBlocks; ++i) {
    BlockBuffer buffer = memory.pool->take(60'000);
    std::memset(buffer.data(), static_cast<int>('A' + i), kBytes);
    // The last one belongs elsewhere.
    const uint64_t offset = (i + (i + 1 == kBlocks ? 1 : 0)) * kBytes;
    ASSERT_TRUE(queue.write(file, offset, std::move(buffer), kBytes).ok());
  }
  std::map<char, size_t> found;
  char page[4096];
  for (size_t all = 0; all < kBlocks * kBytes;) {
    const ssize_t size = read(reader.get(), page, sizeof page);
    ASSERT_GT(size, 0);
    for (ssize_t i = 0; i < size; ++i) ++found[page[i]];
    all += static_cast<size_t>(size);
  }
  ASSERT_TRUE(queue.flush().ok());
  for (size_t i = 0; i < kBlocks; ++i) EXPECT_EQ(found[static_cast<char>('A' + i)], kBytes);
  EXPECT_EQ(queue.counts().blocks, kBlocks);
  EXPECT_EQ(queue.counts().writes, 4u);
  EXPECT_EQ(memory.pool->free(), memory.pool->size());
  // Each write is submitted, and again after each page; waiting for an end may cost a call as well.
  const uint64_t ends_of_writes = kBlocks * kBytes / 4096;
  EXPECT_GE(stage.times().system_calls, ends_of_writes);
  EXPECT_LE(stage.times().system_calls, 2 * ends_of_writes + 1);
}

TEST(WriteQueue, TheFirstErrorIsForGood) {
  Memory memory(4);
  ScratchFolder scratch;
  const std::string path = scratch / "file";
  spit(path, "");
  WriteQueue queue(2, "write to the place", nullptr);
  const auto unwritable = open_file(path, O_RDONLY);
  absl::Status status = queue.write(unwritable, 0, memory.pool->take(60'000), 4096);
  if (status.ok()) status = queue.flush();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(message_of(status).find("write to the place"), std::string_view::npos) << status;
  const auto file = open_file(path, O_WRONLY);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(queue.write(file, 0, memory.pool->take(60'000), 4096), status);
  }
  EXPECT_EQ(queue.flush(), status);
  EXPECT_EQ(memory.pool->free(), memory.pool->size());
}

TEST(WriteQueue, WriteFullyGivesUpOnADiskThatTakesNothing) {
  int calls = 0;
  const WriteFunction none = [&calls](int, const void*, size_t, off_t) -> ssize_t {
    ++calls;
    return 0;
  };
  EXPECT_EQ(write_fully(none, 0, "abc", 0, "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace sluice::testing

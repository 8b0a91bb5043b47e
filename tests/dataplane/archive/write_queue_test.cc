#include "dataplane/archive/write_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

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

#include "base/sorted_spill.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <string>

#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

std::string drained(SortedSpill& spill) {
  std::string all;
  EXPECT_TRUE(spill
                  .drain([&](std::string_view piece) {
                    all += piece;
                    return absl::OkStatus();
                  })
                  .ok());
  return all;
}

// Runs of a few hundred bytes make several levels of merging.
TEST(SortedSpill, SortsWithAnyRunSize) {
  for (const size_t run_bytes : {size_t{1}, size_t{300}, size_t{20'000}, size_t{1} << 26}) {
    Random random(run_bytes);
    SortedSpill spill(testing::TempDir(), run_bytes);
    std::map<std::string, std::string> expected;
    const int lines = run_bytes == 1 ? 9000 : 5000;
    for (int i = 0; i < lines; ++i) {
      std::string key;
      for (uint64_t j = 1 + random.below(12); j > 0; --j)
        key.push_back(static_cast<char>(random.below(256)));
      const std::string line = std::string(random.below(60), 'x') + std::to_string(i) + "\n";
      if (!expected.emplace(key, line).second) continue;
      ASSERT_TRUE(spill.add(key, line).ok());
    }
    std::string all;
    for (const auto& [key, line] : expected) all += line;
    EXPECT_EQ(drained(spill), all) << "run size " << run_bytes;
  }
}

TEST(SortedSpill, LinesLargerThanItsBuffersStayWhole) {
  SortedSpill spill(testing::TempDir(), 1000);
  const std::string large(3 * SortedSpill::kReadBytes + 17, 'b');
  ASSERT_TRUE(spill.add("b", large).ok());
  ASSERT_TRUE(spill.add("c", "c").ok());
  ASSERT_TRUE(spill.add("a", "a").ok());
  EXPECT_TRUE(drained(spill) == "a" + large + "c");
}

TEST(SortedSpill, OrdersKeysAsUnsignedBytesAndIsEmptyAfterwards) {
  SortedSpill spill(testing::TempDir());
  ASSERT_TRUE(spill.add("\xff", "3").ok());
  ASSERT_TRUE(spill.add("a", "1").ok());
  ASSERT_TRUE(spill.add("a\x01", "2").ok());
  EXPECT_EQ(drained(spill), "123");
  EXPECT_EQ(drained(spill), "");
}

TEST(SortedSpill, SaysWhichFolderItCannotUse) {
  SortedSpill spill("/nonexistent", 1);
  ASSERT_TRUE(spill.add("a", "a").ok());
  const absl::Status status = spill.add("b", "b");
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_NE(status.ToString().find("/nonexistent"), std::string::npos);
}

TEST(SortedSpill, NamesTheDirectoryThatIsFull) {
  const std::string folder = testing::TempDir() + "/sluice-spill-" + std::to_string(entropy());
  std::filesystem::create_directories(folder);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};  // a write beyond it fails as one on a full disk does
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  SortedSpill spill(folder, 1000);
  absl::Status status;
  for (int i = 0; i < 10 && status.ok(); ++i) status = spill.add("key", std::string(10'000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(message_of(status).find(folder), std::string_view::npos) << status;
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sluice

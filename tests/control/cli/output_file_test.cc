#include "control/cli/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/file.h"
#include "base/random.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(directory_); }
  void TearDown() override { fs::remove_all(directory_); }

  static absl::Status write(const fs::path& path, std::string_view content) {
    auto file = OutputFile::open(path);
    if (!file.ok()) return file.status();
    if (absl::Status status = (*file)->write(content); !status.ok()) return status;
    return (*file)->commit();
  }
  static std::string content_of(const fs::path& path) { return *read_file(path, 1 << 20); }

  const fs::path directory_ =
      fs::path(testing::TempDir()) / ("sluice-output-" + std::to_string(entropy()));
};

TEST_F(OutputFileTest, WhatReplacesAFileHasItsModeAndOwner) {
  const fs::path path = directory_ / "secret";
  std::ofstream(path) << "old";
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(chown(path.c_str(), 12345, 54321), 0);
  }
  {
    auto file = OutputFile::open(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->write("new").ok());
    // Also before it is there.
    for (const auto& entry : fs::directory_iterator(directory_)) {
      struct stat info {};
      ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 0777, 0600u) << entry.path();
    }
    ASSERT_TRUE((*file)->commit().ok());
  }
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  if (root) {
    EXPECT_EQ(std::pair(info.st_uid, info.st_gid), std::pair(uid_t{12345}, gid_t{54321}));
  }
  EXPECT_EQ(content_of(path), "new");
}

TEST_F(OutputFileTest, ALinkStaysALink) {
  std::ofstream(directory_ / "file") << "old";
  fs::create_symlink("file", directory_ / "link");
  ASSERT_TRUE(write(directory_ / "link", "new").ok());
  EXPECT_TRUE(fs::is_symlink(directory_ / "link"));
  EXPECT_EQ(content_of(directory_ / "file"), "new");
}

TEST_F(OutputFileTest, ANameOfTheGreatestLengthIsWritten) {
  const fs::path path = directory_ / std::string(255, 'n');
  for (const char* content : {"one", "two"}) {
    const absl::Status status = write(path, content);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(content_of(path), content);
  }
}

TEST_F(OutputFileTest, NothingIsLeftAsideWithoutACommit) {
  {
    auto file = OutputFile::open(directory_ / "file");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->write("content").ok());
  }
  EXPECT_TRUE(fs::is_empty(directory_));
  EXPECT_TRUE(absl::IsInvalidArgument(write(directory_, "content")));
}

}  // namespace
}  // namespace sluice

#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/random.h"

namespace sluice {
namespace {

class FileTest : public testing::Test {
 protected:
  FileTest() : folder_(testing::TempDir() + "sluice-file-" + make_uuid()) {}
  ~FileTest() override { std::filesystem::remove_all(folder_); }
  const std::string folder_;
};

TEST_F(FileTest, AWrittenFileReplacesTheOldOneAndLeavesNothingAside) {
  ASSERT_TRUE(make_folders(folder_ + "/a/b").ok());
  const std::string path = folder_ + "/a/b/file";
  ASSERT_TRUE(write_file_durably(path, "one").ok());
  ASSERT_TRUE(write_file_durably(path, "two").ok());
  EXPECT_EQ(*read_file(path, 100), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/a/b"), {}), 1);
}

TEST_F(FileTest, AFailedWriteLeavesTheOldFile) {
  ASSERT_TRUE(make_folders(folder_ + "/target").ok());
  // A folder stands where the file should go: the rename fails after the content was written aside.
  EXPECT_FALSE(write_file_durably(folder_ + "/target", "content").ok());
  EXPECT_TRUE(std::filesystem::is_directory(folder_ + "/target"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FileTest, OfSeveralFilesEachIsWholeAndNothingIsLeftAside) {
  ASSERT_TRUE(make_folders(folder_ + "/target").ok());
  ASSERT_TRUE(write_files_durably({{folder_ + "/a", "one"}, {folder_ + "/b", "two"}}).ok());
  EXPECT_EQ(*read_file(folder_ + "/a", 100), "one");
  EXPECT_EQ(*read_file(folder_ + "/b", 100), "two");
  EXPECT_FALSE(write_files_durably({{folder_ + "/a", "new"}, {folder_ + "/target", "x"}}).ok());
  EXPECT_EQ(*read_file(folder_ + "/a", 100), "new");
  EXPECT_FALSE(write_files_durably({{folder_ + "/b", "x"}, {folder_ + "/none/c", "x"}}).ok());
  EXPECT_EQ(*read_file(folder_ + "/b", 100), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 3);
  EXPECT_TRUE(write_files_durably({}).ok());
}

TEST_F(FileTest, RemovingSucceedsWhereThereIsNothingAndNamesWhatItCannotRemove) {
  ASSERT_TRUE(make_folders(folder_).ok());
  const std::string path = folder_ + "/file";
  ASSERT_TRUE(write_file_durably(path, "content").ok());
  EXPECT_TRUE(remove_file(path).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(remove_file(path).ok());
  const absl::Status directory = remove_file(folder_);
  EXPECT_FALSE(directory.ok());
  EXPECT_NE(directory.message().find(folder_), std::string_view::npos);
}

TEST_F(FileTest, ReadingIsBoundedAndSaysWhatIsWrong) {
  ASSERT_TRUE(make_folders(folder_).ok());
  ASSERT_TRUE(write_file_durably(folder_ + "/file", "12345").ok());
  EXPECT_EQ(read_file(folder_ + "/file", 4).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(read_file(folder_ + "/none", 4).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(read_file(folder_, 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(make_folders(folder_ + "/file/below").code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice

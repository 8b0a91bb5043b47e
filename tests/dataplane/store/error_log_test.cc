#include "dataplane/store/error_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/dataplane/temp_folder.h"

namespace sluice {
namespace {

using testing::HasSubstr;

class ErrorLogTest : public testing::Test {
 protected:
  std::string text() const {
    std::ostringstream all;
    all << std::ifstream(folder_.path() + "/LOG").rdbuf();
    return all.str();
  }

  TempFolder folder_;
};

TEST_F(ErrorLogTest, HasWhatFailsAndKeepsItOverOpenings) {
  {
    ErrorLog log(folder_.path());
    rocksdb::Error(&log, "No space left on device: %d", 7);
    rocksdb::Info(&log, "all is well");
  }
  ErrorLog again(folder_.path());
  rocksdb::Error(&again, "later");
  EXPECT_THAT(text(), HasSubstr("No space left on device: 7\n"));
  EXPECT_THAT(text(), HasSubstr("later\n"));
  EXPECT_THAT(text(), testing::Not(HasSubstr("all is well")));
}

TEST_F(ErrorLogTest, IsBounded) {
  std::ofstream(folder_.path() + "/LOG") << std::string(ErrorLog::kFullBytes + 1, 'x');
  ErrorLog log(folder_.path());
  for (int i = 0; i < 3 * ErrorLog::kMostErrors; ++i) rocksdb::Error(&log, "error %d", i);
  EXPECT_THAT(text(), HasSubstr("error 0\n"));
  EXPECT_THAT(text(), testing::Not(HasSubstr(fmt::format("error {}\n", ErrorLog::kMostErrors))));
  EXPECT_LT(text().size(), size_t{64} << 10);
}

// A message of the failure of a disk must not fail on that disk.
TEST_F(ErrorLogTest, WhatCannotBeWrittenIsNoFailure) {
  std::filesystem::create_directory(folder_.path() + "/LOG");
  ErrorLog log(folder_.path());
  rocksdb::Error(&log, "lost");
  EXPECT_TRUE(std::filesystem::is_directory(folder_.path() + "/LOG"));
}

}  // namespace
}  // namespace sluice

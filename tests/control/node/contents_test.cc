// Looking into backups through their holders.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

using testing::HasSubstr;

class ContentsTest : public testing::Test {
 protected:
  void back_up(size_t records, const std::string& name) {
    const auto writer = client_->import();
    for (size_t i = 0; i < records; ++i) {
      ASSERT_TRUE(writer->put("key/" + std::to_string(i), std::to_string(i)).ok());
    }
    ASSERT_EQ(writer->finish().failed, 0U);
    BackupOptions options;
    options.name = name;
    const auto backup = client_->backup_create(options, [](const BackupProgress&) {});
    ASSERT_TRUE(backup.ok()) << backup.status();
    ASSERT_EQ(backup->state, BackupState::kCompleted) << backup->reason;
  }

  TestCluster cluster_;
  std::unique_ptr<ClusterClient> client_ = cluster_.client();
};

TEST_F(ContentsTest, AListingGoesOnWhenAHolderRestarts) {
  constexpr size_t kRecords = 30'000;
  back_up(kRecords, "one");
  const auto contents = client_->backup_contents("one", {});
  ASSERT_TRUE(contents.ok()) << contents.status();
  std::map<std::string, int> seen;
  bool restarted = false;
  const absl::Status status = (*contents)->list({}, [&](const BackupEntry& entry) {
    ++seen[entry.path];
    if (!std::exchange(restarted, true)) {
      const size_t holder = static_cast<size_t>(entry.node.back() - '1');
      cluster_.stop(holder);
      cluster_.start(holder);
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen.size(), kRecords);
  for (const auto& [path, times] : seen) EXPECT_EQ(times, 1) << path;
}

TEST_F(ContentsTest, AnotherBackupsPartIsNotRead) {
  back_up(100, "one");
  back_up(200, "two");
  const auto contents = client_->backup_contents("one", {});
  ASSERT_TRUE(contents.ok()) << contents.status();
  const auto slots = (*contents)->slots();
  ASSERT_TRUE(slots.ok()) << slots.status();
  const std::string node = slots->slots.begin()->second.node;
  const auto view = client_->backup_show("one");
  ASSERT_TRUE(view.ok()) << view.status();
  for (const ArchivePlace& place : view->archives) {
    if (place.node != node) continue;
    const std::filesystem::path here = place.path;
    const std::filesystem::path aside = here.string() + "-aside";
    std::filesystem::rename(here, aside);
    std::filesystem::rename(here.parent_path() / "two", here);
  }
  const absl::Status listed =
      (*contents)->list({}, [](const BackupEntry&) { return absl::OkStatus(); });
  EXPECT_EQ(listed.code(), absl::StatusCode::kDataLoss) << listed;
  EXPECT_THAT(std::string(listed.message()), HasSubstr("two"));
  std::vector<std::string> keys;
  for (int i = 0; i < 100; ++i) keys.push_back("key/" + std::to_string(i));
  EXPECT_EQ((*contents)->read(keys).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ContentsTest, ReadsTheValuesOfKeysFromAllHolders) {
  back_up(300, "one");
  ASSERT_TRUE(client_->put("large", std::string(5 << 20, 'x')).ok());
  ASSERT_TRUE(client_->put("empty", "").ok());
  ASSERT_TRUE(client_->erase("key/7").ok());
  back_up(0, "two");
  const auto contents = client_->backup_contents("two", {});
  ASSERT_TRUE(contents.ok()) << contents.status();
  const auto values =
      (*contents)->read({"key/1", "none", "large", "key/299", "key/7", "empty", "key/1"});
  ASSERT_TRUE(values.ok()) << values.status();
  ASSERT_EQ(values->size(), 7U);
  EXPECT_EQ((*values)[0], "1");
  EXPECT_FALSE((*values)[1].has_value());
  EXPECT_TRUE((*values)[2] == std::string(5 << 20, 'x'));
  EXPECT_EQ((*values)[3], "299");
  EXPECT_FALSE((*values)[4].has_value());
  EXPECT_EQ((*values)[5], "");
  EXPECT_EQ((*values)[6], "1");
  const auto earlier = client_->backup_contents("one", {});
  ASSERT_TRUE(earlier.ok()) << earlier.status();
  EXPECT_EQ((*(*earlier)->read({"key/7"}))[0], "7");
}

TEST_F(ContentsTest, OnlyCompletedBackupsAreRead) {
  EXPECT_EQ(client_->backup_contents("none", {}).status().code(), absl::StatusCode::kNotFound);
  back_up(10, "one");
  const auto contents = client_->backup_contents("one", {});
  ASSERT_TRUE(contents.ok()) << contents.status();
  ASSERT_TRUE(client_->backup_delete("one").ok());
  const absl::Status listed =
      (*contents)->list({}, [](const BackupEntry&) { return absl::OkStatus(); });
  EXPECT_EQ(listed.code(), absl::StatusCode::kFailedPrecondition) << listed;
  EXPECT_THAT(std::string(listed.message()), HasSubstr("backup one was deleted while it was read"));
}

}  // namespace
}  // namespace sluice

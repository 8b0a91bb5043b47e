#include "control/backup/node_trees.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/dataplane/temp_folder.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class NodeTreesTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(in()); }
  fs::path in() const { return fs::path(folder_.path()) / "in"; }
  fs::path catalogues() const { return fs::path(folder_.path()) / "catalogues"; }

  void open() {
    trees_.reset();
    auto trees = NodeTrees::open({{"t", in(), {}, false}}, catalogues(), 4);
    ASSERT_TRUE(trees.ok()) << trees.status();
    trees_ = *std::move(trees);
  }
  NodeTrees::Seen look(const std::string& backup, uint64_t attempt) {
    for (;;) {
      const auto seen = trees_->look(backup, attempt, {}, false);
      if (seen.size() != 1) {
        ADD_FAILURE() << seen.size() << " trees";
        return {};
      }
      if (seen[0].done) return seen[0];
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void write(const std::string& name) { std::ofstream(in() / name) << name; }

  TempFolder folder_;
  std::unique_ptr<NodeTrees> trees_;
};

TEST_F(NodeTreesTest, AnAttemptSeesWhatItsFirstCallFound) {
  write("one");
  open();
  const NodeTrees::Seen first = look("b", 1);
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_EQ(first.report.files, 1);
  write("two");
  EXPECT_EQ(look("b", 1).report.files, 1);
  EXPECT_EQ(look("b", 2).report.files, 2);
  EXPECT_EQ(look("b", 1).report.files, 2) << "a late call of an earlier attempt";
  EXPECT_EQ(look("c", 1).report.files, 2);
  EXPECT_TRUE(trees_->look("c", 1, {"other"}, false).empty());
}

TEST_F(NodeTreesTest, SourcesAreOfTheLastLook) {
  write("one");
  open();
  EXPECT_TRUE(absl::IsNotFound(trees_->source("other", 1).status()));
  EXPECT_TRUE(absl::IsNotFound(trees_->source("t", 1).status()));
  look("b", 1);
  open();
  const auto source = trees_->source("t", 1);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_FALSE((*source)->shards().empty());
}

TEST_F(NodeTreesTest, ATreeThatIsNotThereIsSaid) {
  open();
  fs::remove_all(in());
  EXPECT_FALSE(look("b", 1).status.ok());
  SetUp();
  EXPECT_TRUE(look("b", 2).status.ok());
}

TEST_F(NodeTreesTest, ADamagedCatalogueIsBegunAfresh) {
  write("one");
  open();
  ASSERT_TRUE(look("b", 1).status.ok());
  trees_.reset();
  bool damaged = false;
  for (const auto& file : fs::recursive_directory_iterator(catalogues())) {
    if (file.path().extension() != ".sst") continue;
    std::fstream table(file.path(), std::ios::binary | std::ios::in | std::ios::out);
    table.write("damage!!damage!!", 16);
    damaged = true;
  }
  ASSERT_TRUE(damaged);
  open();
  const NodeTrees::Seen seen = look("c", 1);
  ASSERT_TRUE(seen.status.ok()) << seen.status;
  EXPECT_EQ(seen.report.files, 1);
  EXPECT_TRUE(trees_->source("t", 1).ok());
}

TEST_F(NodeTreesTest, NamesAreChecked) {
  for (const char* name : {"", ".t", "-t", "a/b", "a b"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(check_tree_name(name))) << name;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(check_tree_name(std::string(65, 'a'))));
  EXPECT_TRUE(check_tree_name("Home-1_2.x").ok());
  const auto twice =
      NodeTrees::open({{"t", in(), {}, false}, {"t", in(), {}, false}}, catalogues(), 4);
  EXPECT_TRUE(absl::IsInvalidArgument(twice.status()));
}

}  // namespace
}  // namespace sluice

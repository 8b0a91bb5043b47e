#include "control/mount/backup_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "tests/control/contents/made_backup.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

TEST(MappedFile, HoldsWhatIsAppended) {
  auto file = MappedFile::create();
  ASSERT_TRUE(file.ok()) << file.status();
  std::string all;
  for (int i = 0; i < 3000; ++i) {
    const std::string piece(static_cast<size_t>(i), static_cast<char>(i));
    ASSERT_TRUE((*file)->append(piece).ok());
    all += piece;
  }
  EXPECT_EQ((*file)->size(), all.size());
  EXPECT_TRUE(std::string_view((*file)->at(0), all.size()) == all);
}

class BackupIndexTest : public ::testing::Test {
 protected:
  void build() {
    const MadeBackup backup(records_);
    auto built = BackupIndex::build(*backup.open(),
                                    [](const absl::Status& damage) { ADD_FAILURE() << damage; });
    ASSERT_TRUE(built.ok()) << built.status();
    index_ = *std::move(built);
  }
  std::vector<std::string> names(const std::string& path = "") {
    const auto found = index_->find_path(path);
    if (!found.has_value()) return {"nothing there"};
    const IndexNode& node = index_->node(*found);
    std::vector<std::string> names;
    for (uint64_t i = 0; i < node.children; ++i) {
      const uint64_t child = node.first_child + i;
      EXPECT_EQ(index_->node(child).parent, *found);
      names.emplace_back(index_->name(index_->node(child)));
      EXPECT_EQ(index_->find(*found, names.back()), child);
    }
    return names;
  }
  const IndexNode& at(const std::string& path) {
    const auto found = index_->find_path(path);
    EXPECT_TRUE(found.has_value()) << path;
    return index_->node(found.value_or(0));
  }

  std::map<std::string, std::string> records_;
  std::unique_ptr<BackupIndex> index_;
};

TEST_F(BackupIndexTest, ABackupOfNothing) {
  build();
  EXPECT_EQ(index_->nodes(), 1U);
  EXPECT_THAT(names(), IsEmpty());
  EXPECT_TRUE(at("").directory());
}

TEST_F(BackupIndexTest, EntriesWithWhatStatSays) {
  records_["docs/."] = tree_value(TreeKind::kDirectory, "", 01777);
  records_["docs/a"] = tree_value(TreeKind::kFile, "content", 04755);
  records_["docs/link"] = tree_value(TreeKind::kLink, "to/there");
  records_["docs/sub"] = tree_value(TreeKind::kDirectory);
  records_["docs/sub/pipe"] = tree_value(TreeKind::kPipe, "", 0600);
  records_["docs-2"] = "a value";
  records_["implied/deep/record"] = "v";
  add_chunked(&records_, "docs/sub/large", "0123456789", 77);
  build();
  EXPECT_THAT(names(), ElementsAre("docs", "docs-2", "implied"));
  EXPECT_THAT(names("docs"), ElementsAre("a", "link", "sub"));
  EXPECT_THAT(names("docs/sub"), ElementsAre("large", "pipe"));
  EXPECT_THAT(names("implied/deep"), ElementsAre("record"));
  EXPECT_EQ(at("docs").mode, 01777U);
  EXPECT_EQ(at("docs").links, 3U);
  EXPECT_EQ(at("docs/a").size, 7U);
  EXPECT_EQ(at("docs/a").mode, 04755U);
  EXPECT_EQ(at("docs/a").mtime_seconds, 1'700'000'000);
  EXPECT_EQ(at("docs/a").mtime_nanoseconds, 5U);
  EXPECT_EQ(at("docs/sub/large").size, 10U);
  EXPECT_EQ(index_->target(at("docs/link")), "to/there");
  EXPECT_EQ(at("docs/link").size, 8U);
  EXPECT_EQ(at("docs/sub/pipe").type, EntryType::kPipe);
  EXPECT_EQ(at("docs-2").type, EntryType::kRecord);
  EXPECT_EQ(at("docs-2").size, 7U);
  EXPECT_EQ(at("implied").type, EntryType::kPrefix);
  EXPECT_EQ(index_->key(*index_->find_path("docs/sub/large")), "docs/sub/large");
  EXPECT_FALSE(index_->find_path("docs/none").has_value());
  EXPECT_FALSE(index_->find_path("docs/a/none").has_value());
  EXPECT_EQ(index_->left_out(), 0U);
}

TEST_F(BackupIndexTest, AttributesOfFilesAndLinks) {
  TreeHeader header;
  header.kind = TreeKind::kLink;
  header.size = 2;
  header.digest = xxh3_128("to");
  TreeExtras extras;
  extras.attributes = {{"trusted.note", std::string("a\0b", 3)}, {"user.note", ""}};
  records_["link"] = encode_tree_entry(header, extras) + "to";
  header = {};
  header.kind = TreeKind::kDirectory;
  records_["dir"] = encode_tree_entry(header, extras);
  records_["none"] = tree_value(TreeKind::kFile, "x");
  build();
  EXPECT_EQ(index_->attributes(at("link")), extras.attributes);
  EXPECT_EQ(index_->target(at("link")), "to");
  EXPECT_EQ(index_->attributes(at("dir")), extras.attributes);
  EXPECT_THAT(index_->attributes(at("none")), IsEmpty());
}

TEST_F(BackupIndexTest, HardLinksAreTheirFile) {
  records_["dir/file"] = tree_value(TreeKind::kFile, "content");
  records_["dir/other"] = tree_value(TreeKind::kFile, "of another content");
  for (const char* link : {"a", "dir/b", "z/y"}) {
    records_[link] = hard_link(link, "dir/file", records_["dir/file"]);
  }
  records_["gone"] = hard_link("gone", "nothing", records_["dir/file"]);
  records_["stale"] = hard_link("stale", "dir/other", records_["dir/file"]);
  build();
  const auto file = index_->find_path("dir/file");
  EXPECT_EQ(at("dir/file").links, 4U);
  for (const char* link : {"a", "dir/b", "z/y"}) EXPECT_EQ(at(link).linked, file);
  EXPECT_EQ(at("gone").linked, IndexNode::kNone);
  EXPECT_EQ(at("stale").linked, IndexNode::kNone);
}

TEST_F(BackupIndexTest, OneEntryHasEachPlace) {
  // A record, and records below it; a file, and what an earlier tree left below it.
  records_["a"] = "value";
  records_["a/b"] = "value";
  records_["f"] = tree_value(TreeKind::kFile, "x");
  records_["f/old"] = tree_value(TreeKind::kDirectory);
  records_["f/old/deeper"] = tree_value(TreeKind::kFile, "x");
  // A file, and a tree that was imported beside it.
  records_["t"] = tree_value(TreeKind::kFile, "x");
  records_["t/."] = tree_value(TreeKind::kDirectory);
  records_["t/in"] = tree_value(TreeKind::kFile, "x");
  // Paths that no file has, and one that begins with a '/'.
  records_["../up"] = "value";
  records_["double//slash"] = "value";
  records_["end/"] = "value";
  records_[std::string(256, 'n')] = "value";
  records_["/root/file"] = "value";
  build();
  EXPECT_THAT(names(), ElementsAre("a", "f", "root", "t"));
  EXPECT_THAT(names("a"), ElementsAre("b"));
  EXPECT_THAT(names("f"), IsEmpty());
  EXPECT_THAT(names("t"), ElementsAre("in"));
  EXPECT_THAT(names("root"), ElementsAre("file"));
  EXPECT_EQ(index_->key(*index_->find_path("root/file")), "/root/file");
  EXPECT_EQ(index_->left_out(), 8U);
}

TEST_F(BackupIndexTest, TreesOfAnyShape) {
  Random random(5);
  std::map<std::string, std::vector<std::string>> wanted;
  for (int i = 0; i < 2000; ++i) {
    std::string path;
    for (uint64_t depth = random.below(9) + 1; depth > 0; --depth) {
      const std::string name(1, static_cast<char>("ab-.\x01\xff"
                                                  "c"[random.below(7)]));
      path += (path.empty() ? "" : "/") + name + (name == "." ? "x" : "");
    }
    records_[path] = tree_value(TreeKind::kDirectory);
  }
  for (const auto& [path, value] : records_) wanted[path] = {};
  for (const auto& record : std::map(records_)) {
    for (std::string path = record.first; !path.empty();) {
      const size_t slash = path.find_last_of('/');
      const std::string above = slash == std::string::npos ? "" : path.substr(0, slash);
      const std::string name = path.substr(slash == std::string::npos ? 0 : slash + 1);
      auto& children = wanted[above];
      if (std::find(children.begin(), children.end(), name) == children.end()) {
        children.push_back(name);
      }
      path = above;
    }
  }
  build();
  for (const auto& [path, children] : wanted) {
    EXPECT_THAT(names(path), UnorderedElementsAreArray(children)) << path;
  }
  EXPECT_EQ(index_->nodes(), wanted.size());
}

}  // namespace
}  // namespace sluice::testing

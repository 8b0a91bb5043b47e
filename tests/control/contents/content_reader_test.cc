#include "control/contents/content_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/status.h"
#include "tests/control/contents/made_backup.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;

class ContentReaderTest : public ::testing::Test {
 protected:
  // The content, or the error's code and text.
  absl::StatusOr<std::string> read(const std::string& path) {
    const MadeBackup backup(records_);
    const auto contents = backup.open();
    std::string content;
    SLUICE_ASSIGN_OR_RETURN(result_, read_content(*contents, path, [&](std::string_view piece) {
                              content += piece;
                              return absl::OkStatus();
                            }));
    EXPECT_EQ(result_.bytes, content.size());
    return content;
  }
  void expect_content(const std::string& path, const std::string& wanted) {
    const auto content = read(path);
    ASSERT_TRUE(content.ok()) << content.status();
    EXPECT_EQ(*content, wanted);
  }
  void expect_error(const std::string& path, absl::StatusCode code, const std::string& text) {
    const auto content = read(path);
    EXPECT_EQ(content.status().code(), code) << content.status();
    EXPECT_THAT(std::string(content.status().message()), HasSubstr(text));
    EXPECT_THAT(std::string(content.status().message()), HasSubstr("backup nightly"));
  }
  std::map<std::string, std::string> records_;
  ContentResult result_;
};

constexpr auto kDamage = absl::StatusCode::kDataLoss;
constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;

TEST_F(ContentReaderTest, ReadsRecordsAndFiles) {
  records_["plain"] = std::string("va\0lue", 6);
  records_["empty"] = "";
  records_["file"] = tree_value(TreeKind::kFile, "content");
  records_["empty file"] = tree_value(TreeKind::kFile, "");
  expect_content("plain", std::string("va\0lue", 6));
  EXPECT_EQ(result_.type, EntryType::kRecord);
  expect_content("empty", "");
  expect_content("file", "content");
  EXPECT_EQ(result_.type, EntryType::kFile);
  expect_content("empty file", "");
}

TEST_F(ContentReaderTest, PutsChunksTogether) {
  // More chunks than are asked for at once.
  std::string content;
  for (size_t i = 0; i < 3 * kChunksAtOnce; ++i) content += fmt::format("{:04}", i);
  content += "end";
  add_chunked(&records_, "large", content, 5);
  expect_content("large", content);
}

TEST_F(ContentReaderTest, NamesMissingAndForeignChunks) {
  add_chunked(&records_, "large", "0123456789", 5);
  const auto whole = records_;
  records_.erase(tree_chunk_key("large", 5, 1));
  expect_error("large", kDamage, "chunk 1 of its 3 chunks is missing");
  records_ = whole;
  records_[tree_chunk_key("large", 5, 1)] = records_[tree_chunk_key("large", 5, 0)];
  expect_error("large", kDamage, "chunk 1 of its 3 chunks is another record");
  records_ = whole;
  records_[tree_chunk_key("large", 5, 1)].back() ^= 1;
  expect_error("large", kDamage, "chunk 1 does not have the digest of its header");
  // Chunks that are whole, but of another content.
  records_ = whole;
  std::map<std::string, std::string> other;
  add_chunked(&other, "large", "0123X56789", 5);
  records_[tree_chunk_key("large", 5, 1)] = other[tree_chunk_key("large", 5, 1)];
  expect_error("large", kDamage, "its content does not have the digest of its entry");
}

TEST_F(ContentReaderTest, NamesAFileWhoseContentIsAnother) {
  records_["file"] = tree_value(TreeKind::kFile, "content");
  records_["file"].back() ^= 1;
  expect_error("file", kDamage, "'file' in backup nightly: its content does not have the digest");
}

TEST_F(ContentReaderTest, FillsHolesWithZeros) {
  TreeHeader header;
  header.kind = TreeKind::kFile;
  header.size = 20;
  header.chunk_bytes = kTreeChunkBytes;
  header.sparse = true;
  TreeExtras extras;
  extras.extents = {{4, 3}, {10, 2}};
  header.digest = digest_of_chunks({digest_of_content(extras.extents, "abcde")});
  records_["sparse"] = encode_tree_entry(header, extras) + "abcde";
  std::string wanted(20, '\0');
  wanted.replace(4, 3, "abc");
  wanted.replace(10, 2, "de");
  expect_content("sparse", wanted);
}

TEST_F(ContentReaderTest, FollowsHardLinksWithinTheirTree) {
  records_["p/a"] = tree_value(TreeKind::kFile, "content");
  records_["p/sub/b"] = hard_link("sub/b", "a", records_["p/a"]);
  expect_content("p/sub/b", "content");
  EXPECT_EQ(result_.type, EntryType::kHardLink);
  records_["p/a"] = tree_value(TreeKind::kFile, "of another file");
  expect_error("p/sub/b", kDamage, "its content, which 'p/a' had, is not in the backup");
  records_.erase("p/a");
  expect_error("p/sub/b", kDamage, "'p/sub/b' in backup nightly: its content, which 'p/a' had");
}

TEST_F(ContentReaderTest, NamesWhatHasNoContent) {
  records_["docs/."] = tree_value(TreeKind::kDirectory);
  records_["sub"] = tree_value(TreeKind::kDirectory);
  records_["link"] = tree_value(TreeKind::kLink, "to/there");
  records_["pipe"] = tree_value(TreeKind::kPipe);
  expect_error("docs", kRefused, "a directory");
  expect_error("docs/", kRefused, "a directory");
  expect_error("sub", kRefused, "a directory");
  expect_error("link", kRefused, "a symbolic link to 'to/there'");
  expect_error("pipe", kRefused, "a pipe");
  expect_error("nothing", absl::StatusCode::kNotFound, "'nothing' is not in backup nightly");
}

TEST_F(ContentReaderTest, EndsWithTheErrorOfItsCaller) {
  records_["plain"] = "value";
  const MadeBackup backup(records_);
  const auto result =
      read_content(*backup.open(), "plain", [](std::string_view) { return data_loss("the disk"); });
  EXPECT_EQ(result.status().message(), "the disk");
}

}  // namespace
}  // namespace sluice::testing

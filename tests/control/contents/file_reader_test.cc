#include "control/contents/file_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "tests/control/contents/made_backup.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;

ValueCache::Value value_of(size_t bytes) { return std::make_shared<const std::string>(bytes, 'v'); }

TEST(ValueCache, HoldsWhatWasUsedLast) {
  ValueCache cache(10);
  cache.add("a", value_of(4));
  cache.add("b", value_of(4));
  EXPECT_NE(cache.find("a"), nullptr);
  cache.add("c", value_of(4));
  EXPECT_EQ(cache.find("b"), nullptr);
  EXPECT_NE(cache.find("a"), nullptr);
  EXPECT_NE(cache.find("c"), nullptr);
  cache.add("large", value_of(11));
  EXPECT_EQ(cache.find("large"), nullptr);
  cache.add("a", value_of(10));
  EXPECT_EQ(cache.find("a")->size(), 10U);
  EXPECT_EQ(cache.find("c"), nullptr);
}

// Says what is asked for.
class CountingContents final : public BackupContents {
 public:
  explicit CountingContents(BackupContents& contents) : contents_(contents) {}
  const std::string& description() const override { return contents_.description(); }
  absl::StatusOr<BackupSlots> slots() override { return contents_.slots(); }
  absl::Status list(const ContentsListing& listing, const VisitEntry& visit) override {
    return contents_.list(listing, visit);
  }
  absl::StatusOr<Values> read(const std::vector<std::string>& keys) override {
    ++calls;
    keys_read += keys.size();
    return contents_.read(keys);
  }
  absl::Status records(const VisitRecord& visit) override { return contents_.records(visit); }
  size_t calls = 0;
  size_t keys_read = 0;

 private:
  BackupContents& contents_;
};

class FileReaderTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<FileReader>> open(const std::string& key) {
    backup_ = std::make_unique<MadeBackup>(records_);
    contents_ = backup_->open();
    counting_ = std::make_unique<CountingContents>(*contents_);
    return FileReader::open(*counting_, cache_, "one", key);
  }
  // Every range of a file, in a random order.
  void expect_content(const std::string& key, const std::string& wanted) {
    auto opened = open(key);
    ASSERT_TRUE(opened.ok()) << opened.status();
    FileReader& file = **opened;
    EXPECT_EQ(file.size(), wanted.size());
    Random random(wanted.size());
    for (int i = 0; i < 300; ++i) {
      const uint64_t offset = random.below(wanted.size() + 3);
      const uint64_t length = random.below(wanted.size() + 3);
      const auto bytes = file.read(offset, length);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      const std::string part = offset < wanted.size() ? wanted.substr(offset, length) : "";
      ASSERT_EQ(*bytes, part) << offset << " " << length;
    }
  }
  // A file with holes: pieces of data by offset, one chunk each.
  std::string add_sparse(const std::string& key, uint64_t size,
                         const std::vector<std::pair<uint64_t, std::string>>& pieces) {
    TreeHeader file;
    file.kind = TreeKind::kFile;
    file.size = size;
    file.chunk_bytes = kTreeChunkBytes;
    file.generation = 9;
    file.sparse = true;
    file.sparse_chunks = static_cast<uint32_t>(pieces.size());
    std::vector<Digest128> digests;
    std::string content(size, '\0');
    for (const auto& [offset, bytes] : pieces) {
      TreeHeader chunk = file;
      chunk.kind = TreeKind::kChunk;
      chunk.chunk = static_cast<uint32_t>(digests.size());
      TreeExtras extras;
      extras.extents = {{offset, bytes.size()}};
      chunk.digest = digest_of_content(extras.extents, bytes);
      digests.push_back(chunk.digest);
      records_[tree_chunk_key(key, 9, chunk.chunk)] = encode_tree_entry(chunk, extras) + bytes;
      content.replace(offset, bytes.size(), bytes);
    }
    file.digest = digest_of_chunks(digests);
    records_[key] = encode_tree_entry(file);
    return content;
  }

  std::map<std::string, std::string> records_;
  std::unique_ptr<MadeBackup> backup_;
  std::unique_ptr<BackupContents> contents_;
  std::unique_ptr<CountingContents> counting_;
  ValueCache cache_{size_t{1} << 20};
};

std::string numbers(size_t count) {
  std::string content;
  for (size_t i = 0; i < count; ++i) content += fmt::format("{:04}", i);
  return content;
}

TEST_F(FileReaderTest, ReadsRecordsAndFilesAtAnyOffset) {
  records_["plain"] = "a record's value";
  records_["empty"] = "";
  records_["file"] = tree_value(TreeKind::kFile, "content");
  add_chunked(&records_, "large", numbers(50) + "end", 5);
  expect_content("plain", "a record's value");
  expect_content("empty", "");
  expect_content("file", "content");
  expect_content("large", numbers(50) + "end");
}

TEST_F(FileReaderTest, FillsHoles) {
  TreeHeader header;
  header.kind = TreeKind::kFile;
  header.size = 20;
  header.chunk_bytes = kTreeChunkBytes;
  header.sparse = true;
  TreeExtras extras;
  extras.extents = {{4, 3}, {10, 2}};
  header.digest = digest_of_chunks({digest_of_content(extras.extents, "abcde")});
  records_["one piece"] = encode_tree_entry(header, extras) + "abcde";
  expect_content("one piece", std::string("\0\0\0\0abc\0\0\0de\0\0\0\0\0\0\0\0", 20));
  const std::string content =
      add_sparse("pieces", 500, {{3, "abc"}, {6, "def"}, {100, "x"}, {300, "yz"}, {400, "end"}});
  expect_content("pieces", content);
}

TEST_F(FileReaderTest, FindsDataAndHoles) {
  add_sparse("sparse", 500, {{3, "abc"}, {6, "def"}, {100, "x"}});
  records_["file"] = tree_value(TreeKind::kFile, "content");
  auto opened = open("sparse");
  ASSERT_TRUE(opened.ok()) << opened.status();
  FileReader& file = **opened;
  EXPECT_EQ(*file.find_data(0), 3U);
  EXPECT_EQ(*file.find_data(4), 4U);
  EXPECT_EQ(*file.find_hole(0), 0U);
  EXPECT_EQ(*file.find_hole(3), 9U);
  EXPECT_EQ(*file.find_data(9), 100U);
  EXPECT_EQ(*file.find_hole(100), 101U);
  EXPECT_EQ(*file.find_data(101), 500U);
  EXPECT_EQ(*file.find_hole(101), 101U);
  EXPECT_EQ(*file.find_data(600), 500U);
  opened = open("file");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(*(*opened)->find_data(2), 2U);
  EXPECT_EQ(*(*opened)->find_hole(2), 7U);
}

TEST_F(FileReaderTest, ReadsAheadInOrderAndNothingElseOtherwise) {
  add_chunked(&records_, "large", numbers(200), 5);
  auto opened = open("large");
  ASSERT_TRUE(opened.ok()) << opened.status();
  FileReader& file = **opened;
  counting_->calls = counting_->keys_read = 0;
  EXPECT_EQ(*file.read(4 * 150, 4), "0150");
  EXPECT_EQ(*file.read(4 * 20, 8), "00200021");
  EXPECT_EQ(*file.read(4 * 20 + 2, 4), "2000");
  EXPECT_EQ(counting_->keys_read, 4U);
  counting_->calls = counting_->keys_read = 0;
  for (uint64_t i = 0; i < 200; ++i) EXPECT_EQ(*file.read(4 * i, 4), fmt::format("{:04}", i));
  EXPECT_LT(counting_->calls, 25U);
  EXPECT_LE(counting_->keys_read, 200U);
}

TEST_F(FileReaderTest, FindsAChunkOfManyByASearch) {
  std::vector<std::pair<uint64_t, std::string>> pieces;
  for (uint64_t i = 0; i < 1000; ++i) pieces.emplace_back(i * 100 + 7, fmt::format("{:04}", i));
  add_sparse("sparse", 100'000, pieces);
  auto opened = open("sparse");
  ASSERT_TRUE(opened.ok()) << opened.status();
  counting_->keys_read = 0;
  EXPECT_EQ(*(*opened)->read(777 * 100 + 7, 4), "0777");
  EXPECT_LT(counting_->keys_read, 25U);
}

TEST_F(FileReaderTest, NamesDamageWhereItIsAndReadsTheRest) {
  add_chunked(&records_, "large", numbers(100), 5);
  const auto whole = records_;
  records_.erase(tree_chunk_key("large", 5, 37));
  auto opened = open("large");
  ASSERT_TRUE(opened.ok()) << opened.status();
  for (uint64_t i = 0; i < 100; ++i) {
    const auto bytes = (*opened)->read(4 * i, 4);
    ASSERT_EQ(bytes.ok(), i != 37) << i;
    if (bytes.ok()) {
      EXPECT_EQ(*bytes, fmt::format("{:04}", i));
    } else {
      EXPECT_EQ(bytes.status().code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(bytes.status().message()),
                  HasSubstr("chunk 37 of its 100 chunks is missing"));
    }
  }
  records_ = whole;
  records_[tree_chunk_key("large", 5, 37)].back() ^= 1;
  opened = open("large");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->read(4 * 37, 1).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE((*opened)->read(4 * 38, 1).ok());
}

TEST_F(FileReaderTest, RefusesWhatHasNoContent) {
  records_["dir"] = tree_value(TreeKind::kDirectory);
  records_["file"] = tree_value(TreeKind::kFile, "content");
  records_["file"].back() ^= 1;
  EXPECT_EQ(open("dir").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(open("none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(open("file").status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice::testing

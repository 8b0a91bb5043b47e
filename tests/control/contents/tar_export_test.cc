#include "control/contents/tar_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "tests/control/contents/made_backup.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TarExportTest : public ::testing::Test {
 protected:
  absl::Status run(const std::string& path = "") {
    const MadeBackup backup(records_);
    archive_.clear();
    auto result = export_tar(*backup.open(), path, [&](std::string_view bytes) {
      archive_ += bytes;
      return absl::OkStatus();
    });
    if (result.ok()) result_ = *result;
    return result.status();
  }
  // "TYPE NAME", "1 NAME -> FILE" of a hard link, "0 NAME: CONTENT", where names fit the headers.
  std::vector<std::string> entries() {
    std::vector<std::string> found;
    for (size_t at = 0; at + 512 <= archive_.size();) {
      const char* header = archive_.data() + at;
      if (*header == '\0') break;
      const size_t size = std::strtoull(std::string(header + 124, 11).c_str(), nullptr, 8);
      const std::string content = archive_.substr(at + 512, size);
      at += 512 + (size + 511) / 512 * 512;
      if (header[156] == 'x') continue;
      found.push_back(std::string(1, header[156]) + " " + std::string(header));
      if (header[157] != '\0') found.back() += " -> " + std::string(header + 157);
      if (header[156] == '0') found.back() += ": " + content;
    }
    return found;
  }
  void expect_damage(const std::string& text) {
    const absl::Status status = run();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_THAT(std::string(status.message()), HasSubstr("backup nightly"));
    EXPECT_FALSE(archive_.ends_with(std::string(1024, '\0')));
  }
  // Another name of a file at `target`.
  void link(const std::string& path, const std::string& target) {
    records_[path] = hard_link(path, target, records_[target]);
  }

  std::map<std::string, std::string> records_;
  std::string archive_;
  TarExportResult result_;
};

TEST_F(TarExportTest, NothingIsAnArchive) {
  records_["plain"] = "value";
  ASSERT_TRUE(run().ok());
  EXPECT_THAT(entries(), IsEmpty());
  EXPECT_EQ(archive_.size(), 10240U);
  EXPECT_EQ(result_.records_left_out, 1U);
}

TEST_F(TarExportTest, WalksEachDirectoryBeforeWhatIsBesideIt) {
  records_["."] = tree_value(TreeKind::kDirectory);
  for (const char* directory : {"a", "a/b", "a.d", "a-"}) {
    records_[directory] = tree_value(TreeKind::kDirectory);
  }
  records_["a/b/c"] = tree_value(TreeKind::kFile, "content");
  records_["a/z"] = tree_value(TreeKind::kLink, "b/c");
  records_["a.d/pipe"] = tree_value(TreeKind::kPipe);
  ASSERT_TRUE(run().ok());
  EXPECT_THAT(entries(), ElementsAre("5 ./", "5 a/", "5 a/b/", "0 a/b/c: content", "2 a/z -> b/c",
                                     "5 a-/", "5 a.d/", "6 a.d/pipe"));
  EXPECT_EQ(result_.directories, 5U);
  EXPECT_EQ(result_.files, 1U);
  EXPECT_EQ(result_.links, 1U);
  EXPECT_EQ(result_.specials, 1U);
  EXPECT_EQ(result_.bytes, 7U);
}

TEST_F(TarExportTest, PutsChunksTogetherAndReadsWhatIsLongByItself) {
  add_chunked(&records_, "large", "0123456789", 5);
  const std::string content(kSpilledContent + 1, 'c');
  records_["medium"] = tree_value(TreeKind::kFile, content);
  ASSERT_TRUE(run().ok());
  EXPECT_THAT(entries(), ElementsAre("0 large: 0123456789", "0 medium: " + content));
}

TEST_F(TarExportTest, TheFirstNameInTheWalkHasTheContent) {
  records_["dir"] = tree_value(TreeKind::kDirectory);
  records_["file"] = tree_value(TreeKind::kFile, "content");
  add_chunked(&records_, "gross", "0123456789", 5);
  link("dir/b", "file");
  link("dir/a", "file");
  link("z", "file");
  link("y", "gross");
  ASSERT_TRUE(run().ok());
  EXPECT_THAT(entries(),
              ElementsAre("5 dir/", "0 dir/a: content", "1 dir/b -> dir/a", "1 file -> dir/a",
                          "0 gross: 0123456789", "1 y -> gross", "1 z -> dir/a"));
  EXPECT_EQ(result_.files, 6U);
  EXPECT_EQ(result_.hard_links, 4U);
  EXPECT_EQ(result_.bytes, 17U);
}

TEST_F(TarExportTest, ALinkWhoseFileIsElsewhereIsAFile) {
  records_["file"] = tree_value(TreeKind::kFile, "content");
  add_chunked(&records_, "large", "0123456789", 5);
  link("dir/a", "file");
  link("dir/b", "file");
  link("dir/c", "large");
  ASSERT_TRUE(run("dir").ok());
  EXPECT_THAT(entries(),
              ElementsAre("0 dir/a: content", "1 dir/b -> dir/a", "0 dir/c: 0123456789"));
  ASSERT_TRUE(run("file").ok());
  EXPECT_THAT(entries(), ElementsAre("0 file: content"));
  EXPECT_EQ(run("none").code(), absl::StatusCode::kNotFound);
}

TEST_F(TarExportTest, NamesLinksWhoseFileIsGone) {
  records_["file"] = tree_value(TreeKind::kFile, "content");
  link("link", "file");
  const auto whole = records_;
  records_.erase("file");
  expect_damage("'link' in backup nightly: its content, which 'file' had, is not in the backup");
  records_["file"] = tree_value(TreeKind::kFile, "of another file");
  expect_damage("its content, which 'file' had");
  records_["file"] = tree_value(TreeKind::kDirectory);
  expect_damage("its content, which 'file' had");
  records_ = whole;
  EXPECT_TRUE(run().ok());
}

TEST_F(TarExportTest, NamesContentThatIsNotWhatItShouldBe) {
  add_chunked(&records_, "large", "0123456789", 5);
  const auto whole = records_;
  records_.erase(tree_chunk_key("large", 5, 1));
  expect_damage("'large' in backup nightly: chunk 1 of its 3 chunks is missing");
  records_ = whole;
  records_["file"] = tree_value(TreeKind::kFile, "content");
  records_["file"].back() ^= 1;
  expect_damage("'file' in backup nightly: its content does not have the digest");
}

TEST_F(TarExportTest, LeavesOutWhatHasNoPlace) {
  records_["d"] = tree_value(TreeKind::kFile, "a file now");
  records_["d/old"] = tree_value(TreeKind::kFile, "old");
  link("e", "d/old");
  records_["e2"] = tree_value(TreeKind::kFile, "second");
  records_["d/x"] = hard_link("d/x", "e2", records_["e2"]);
  link("f", "d/old");
  records_["../up"] = tree_value(TreeKind::kFile, "x");
  records_["twice//"] = tree_value(TreeKind::kFile, "x");
  records_["/absolute"] = tree_value(TreeKind::kFile, "x");
  ASSERT_TRUE(run().ok());
  // The next name has the content of a first one that is left out.
  EXPECT_THAT(entries(), ElementsAre("0 /absolute: x", "0 d: a file now", "0 e: old",
                                     "0 e2: second", "1 f -> e"));
  EXPECT_EQ(result_.superseded, 2U);
  EXPECT_EQ(result_.records_left_out, 2U);
}

TEST_F(TarExportTest, ATreesRootHasThePlaceOfAFile) {
  records_["docs"] = tree_value(TreeKind::kFile, "content");
  records_["docs/."] = tree_value(TreeKind::kDirectory);
  records_["docs/a"] = tree_value(TreeKind::kFile, "a");
  link("link", "docs");
  ASSERT_TRUE(run().ok());
  EXPECT_THAT(entries(), ElementsAre("5 docs/", "0 docs/a: a", "0 link: content"));
  EXPECT_EQ(result_.superseded, 1U);
}

TEST_F(TarExportTest, SparseFilesOfSeveralChunks) {
  TreeHeader file;
  file.kind = TreeKind::kFile;
  file.size = 1 << 20;
  file.chunk_bytes = kSmallChunk;
  file.generation = 9;
  file.sparse = true;
  file.sparse_chunks = 2;
  std::vector<Digest128> digests;
  const std::vector<Extent> extents[] = {{{100, 4}}, {{1000, 1}, {5000, 2}}};
  const std::string contents[] = {"abcd", "efg"};
  for (uint32_t number = 0; number < 2; ++number) {
    TreeHeader chunk = file;
    chunk.kind = TreeKind::kChunk;
    chunk.chunk = number;
    chunk.digest = digest_of_content(extents[number], contents[number]);
    digests.push_back(chunk.digest);
    TreeExtras extras;
    extras.extents = extents[number];
    records_[tree_chunk_key("sparse", 9, number)] =
        encode_tree_entry(chunk, extras) + contents[number];
  }
  file.digest = digest_of_chunks(digests);
  records_["sparse"] = encode_tree_entry(file);
  ASSERT_TRUE(run().ok());
  EXPECT_THAT(archive_, HasSubstr("GNU.sparse.name=sparse\n"));
  EXPECT_THAT(archive_, HasSubstr("GNU.sparse.realsize=1048576\n"));
  std::string map = "4\n100\n4\n1000\n1\n5000\n2\n1048576\n0\n";
  map.resize(512, '\0');
  EXPECT_THAT(archive_, HasSubstr(map + "abcdefg"));
  EXPECT_EQ(result_.bytes, 7U);
}

TEST_F(TarExportTest, EndsWithTheErrorOfItsOutput) {
  records_["file"] = tree_value(TreeKind::kFile, "content");
  const MadeBackup backup(records_);
  const auto result =
      export_tar(*backup.open(), "", [](std::string_view) { return resource_exhausted("full"); });
  EXPECT_EQ(result.status().message(), "full");
}

}  // namespace
}  // namespace sluice::testing

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "base/file.h"
#include "base/random.h"
#include "control/cli/tree_entry.h"
#include "control/cli/tree_export.h"
#include "control/cli/tree_import.h"
#include "memory_records.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class Tree : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / ("sluice-tree-" + std::to_string(entropy()));
    fs::create_directories(in());
  }
  void TearDown() override { fs::remove_all(root_); }
  fs::path in() const { return root_ / "in"; }
  fs::path out() const { return root_ / "out"; }

  static void write(const fs::path& path, std::string_view content) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
  }
  static void set_time(const fs::path& path, int64_t seconds, int64_t nanoseconds) {
    const timespec times[2] = {{1, 0}, {seconds, nanoseconds}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW), 0);
  }
  static std::string random_bytes(size_t size, uint64_t seed) {
    Random random(seed);
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>(random.next());
    return bytes;
  }

  TreeImportResult import(const std::string& prefix = "") {
    StreamProgress progress;
    auto result = import_tree({in(), prefix, 3}, records_, progress);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : TreeImportResult{};
  }
  TreeExportResult export_to_out(const std::string& prefix = "") {
    StreamProgress progress;
    auto result = export_tree({out(), prefix}, records_, progress);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : TreeExportResult{};
  }

  // Kind, mode, time and content of everything below a folder, by relative path.
  static std::map<std::string, std::string> picture(const fs::path& folder) {
    std::map<std::string, std::string> entries;
    const auto add = [&](const fs::path& path) {
      struct stat info {};
      ASSERT_EQ(lstat(path.c_str(), &info), 0);
      std::string text =
          fmt::format("{:o} {}.{} ", info.st_mode & (S_ISLNK(info.st_mode) ? S_IFMT : ~0u),
                      info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
      if (S_ISLNK(info.st_mode)) text += fs::read_symlink(path);
      if (S_ISREG(info.st_mode)) text += *read_file(path, 1 << 30);
      entries[path.lexically_relative(folder)] = text;
    };
    add(folder);
    for (const auto& entry : fs::recursive_directory_iterator(folder)) add(entry.path());
    return entries;
  }

  void put_file(const std::string& key, std::string_view content) {
    TreeHeader header;
    header.mode = 0644;
    header.size = content.size();
    header.chunk_bytes = kTreeChunkBytes;
    header.digest = digest_of_chunks({xxh3_128(content)});
    records_.records()[key] = header.encode().append(content);
  }
  void put_link(const std::string& key, std::string_view target) {
    TreeHeader header;
    header.kind = TreeKind::kLink;
    header.mode = 0777;
    header.size = target.size();
    header.digest = xxh3_128(target);
    records_.records()[key] = header.encode().append(target);
  }

  fs::path root_;
  MemoryRecords records_;
};

TEST_F(Tree, RoundTripsKindsModesTimesAndContent) {
  write(in() / "a/b/file", "content");
  write(in() / "a/empty", "");
  write(in() / "a/one-chunk", random_bytes(kTreeChunkBytes, 1));
  write(in() / "a/one-more", random_bytes(kTreeChunkBytes + 1, 2));
  write(in() / "large", random_bytes(5 * kTreeChunkBytes - 7, 3));
  write(in() / "name with\nnewline and \xff\xfe", "x");
  fs::create_directories(in() / "empty-folder");
  fs::create_symlink("../elsewhere/\xff", in() / "a/link");
  fs::create_symlink("b", in() / "a/link-to-folder");
  ASSERT_EQ(chmod((in() / "a/b/file").c_str(), 04711), 0);
  set_time(in() / "large", -5, 999'999'999);
  set_time(in() / "a/link", 1'000'000, 7);
  set_time(in() / "a/b", 1'234'567'890, 123'456'789);
  ASSERT_EQ(chmod((in() / "a/b").c_str(), 0555), 0);
  set_time(in() / "a", 77, 1);
  set_time(in(), 78, 2);

  for (const char* prefix : {"", "some/prefix/"}) {
    records_.records().clear();
    const TreeImportResult imported = import(prefix);
    EXPECT_EQ(imported.failures.count, 0u);
    EXPECT_EQ(imported.files, 6u);
    EXPECT_EQ(imported.folders, 4u);
    EXPECT_EQ(imported.links, 2u);
    EXPECT_EQ(records_.records().size(), 17u);  // 12 entries and 1 + 4 further chunks
    for (const auto& [key, value] : records_.records()) {
      EXPECT_LT(value.size() + key.size(), kMaxBlockBytes - 4096) << "would not fit one block";
    }
    records_.shuffle(std::string_view(prefix).size());
    const TreeExportResult exported = export_to_out(prefix);
    EXPECT_EQ(exported.failures.count + exported.damaged.count + exported.other_records, 0u);
    EXPECT_EQ(exported.records, 17u);
    EXPECT_EQ(picture(out()), picture(in()));
  }
  for (const fs::path& tree : {in(), out()})
    chmod((tree / "a/b").c_str(), 0755);  // so that it can be removed
}

TEST_F(Tree, ReportsWhatItCannotReadAndGoesOn) {
  write(in() / "good", "1");
  fs::create_symlink("good", in() / "to-be-replaced");
  ASSERT_EQ(mkfifo((in() / "pipe").c_str(), 0600), 0);
  std::string deep;
  for (int i = 0; i < 40; ++i) deep += std::string(120, 'd') + "/";
  // Beyond PATH_MAX as one path, so made name by name.
  UniqueFd folder(open(in().c_str(), O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < 40; ++i) {
    const std::string name(120, 'd');
    ASSERT_EQ(mkdirat(folder.get(), name.c_str(), 0700), 0);
    folder.reset(openat(folder.get(), name.c_str(), O_RDONLY | O_DIRECTORY));
    ASSERT_TRUE(folder);
  }
  const TreeImportResult result = import();
  EXPECT_EQ(result.skipped, 1u);
  EXPECT_EQ(result.files, 1u);
  ASSERT_EQ(result.failures.count, 1u);
  EXPECT_EQ(result.failures.first[0].path.substr(0, 120), std::string(120, 'd'));
  EXPECT_NE(result.failures.first[0].reason.find("at most 4096"), std::string::npos);
  EXPECT_TRUE(records_.records().contains("good"));
}

TEST_F(Tree, ImportEndsWhenTheSinkFailsOrIsCancelled) {
  for (int i = 0; i < 100; ++i) write(in() / std::to_string(i), "x");
  records_.fail_after(10);
  StreamProgress progress;
  EXPECT_TRUE(absl::IsUnavailable(import_tree({in(), "", 2}, records_, progress).status()));
  StreamProgress cancelled;
  cancelled.cancelled = true;
  EXPECT_TRUE(absl::IsCancelled(import_tree({in(), "", 2}, records_, cancelled).status()));
  StreamProgress other;
  EXPECT_TRUE(absl::IsNotFound(import_tree({in() / "absent", "", 2}, records_, other).status()));
}

TEST_F(Tree, ExportRefusesHostilePaths) {
  const fs::path outside = root_ / "outside";
  fs::create_directories(outside);
  fs::create_directories(out());
  fs::create_symlink(outside, out() / "already-a-link");
  put_file("../outside/a", "x");
  put_file("/" + (outside / "b").string(), "x");
  put_file("a/../../outside/c", "x");
  put_file("a//b", "x");
  put_file("./d", "x");
  put_file("already-a-link/e", "x");
  put_link("link", outside.string());
  put_file("link/f", "x");
  put_file(std::string(256, 'n'), "x");
  put_file("fine", "x");
  for (uint64_t seed = 1; seed < 8; ++seed) {
    records_.shuffle(seed);
    const TreeExportResult result = export_to_out();
    EXPECT_GE(result.failures.count, 8u);
    EXPECT_TRUE(fs::is_empty(outside));
    EXPECT_TRUE(fs::exists(out() / "fine"));
    for (const auto& entry : fs::directory_iterator(out())) {
      EXPECT_FALSE(entry.path().filename().string().starts_with(".sluice-export"));
    }
  }
}

TEST_F(Tree, ExportNamesFilesWithMissingOrForeignChunks) {
  write(in() / "large", random_bytes(4 * kTreeChunkBytes, 3));
  write(in() / "other", "fine");
  import();
  const auto whole = records_.records();

  records_.records().erase(tree_chunk_key("large", 2));
  TreeExportResult result = export_to_out();
  ASSERT_EQ(result.damaged.count, 1u);
  EXPECT_EQ(result.damaged.first[0].path, "large");
  EXPECT_NE(result.damaged.first[0].reason.find("chunk 2"), std::string::npos);
  EXPECT_FALSE(fs::exists(out() / "large"));
  EXPECT_TRUE(fs::exists(out() / "other"));

  // A chunk of another import with the same size and time: its own digest holds, the file's does
  // not.
  records_.records() = whole;
  std::string& value = records_.records()[tree_chunk_key("large", 1)];
  auto entry = parse_tree_entry(value);
  ASSERT_TRUE(entry.ok());
  TreeHeader header = entry->header;
  std::string content(entry->content);
  content[17] ^= 1;
  header.digest = xxh3_128(content);
  value = header.encode() + content;
  result = export_to_out();
  EXPECT_EQ(result.damaged.count, 1u);
  EXPECT_FALSE(fs::exists(out() / "large"));

  value[TreeHeader::kBytes + 17] ^= 1;  // and one that does not even have its own
  EXPECT_EQ(export_to_out().damaged.count, 2u);
}

TEST_F(Tree, ChunksThatAnEarlierImportLeftAreIgnored) {
  write(in() / "shrunk", random_bytes(4 * kTreeChunkBytes, 3));
  import();
  write(in() / "shrunk", random_bytes(2 * kTreeChunkBytes, 4));
  import();
  records_.records()["unrelated"] = "no entry of a tree";
  const TreeExportResult result = export_to_out();
  EXPECT_EQ(result.failures.count + result.damaged.count, 0u);
  EXPECT_EQ(result.other_records, 3u);  // two left-over chunks and the unrelated one
  EXPECT_EQ(picture(out())["shrunk"], picture(in())["shrunk"]);
}

TEST_F(Tree, APrefixThatIsAFolderMayBeExportedAsOne) {
  write(in() / "a/file", "x");
  set_time(in(), 78, 2);
  import("docs/");
  const TreeExportResult result = export_to_out();
  EXPECT_EQ(result.failures.count + result.damaged.count, 0u);
  EXPECT_EQ(picture(out() / "docs"), picture(in()));
}

TEST_F(Tree, ExportReplacesFilesButNotFolders) {
  put_file("file", "new");
  put_file("folder", "x");
  write(out() / "file", "old");
  write(out() / "folder/kept", "kept");
  const TreeExportResult result = export_to_out();
  EXPECT_EQ(*read_file(out() / "file", 100), "new");
  EXPECT_EQ(result.failures.count, 1u);
  EXPECT_TRUE(fs::exists(out() / "folder/kept"));
}

TEST(TreeEntry, RefusesEveryDamagedHeader) {
  TreeHeader header;
  header.mode = 0644;
  header.size = 3;
  header.chunk_bytes = kTreeChunkBytes;
  const std::string good = header.encode() + "abc";
  ASSERT_TRUE(parse_tree_entry(good).ok());
  EXPECT_EQ(header.encode().size(), TreeHeader::kBytes);
  EXPECT_TRUE(absl::IsNotFound(parse_tree_entry("").status()));
  EXPECT_TRUE(absl::IsNotFound(parse_tree_entry("SLT").status()));
  for (size_t size = 5; size < good.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(parse_tree_entry(good.substr(0, size)).status())) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(parse_tree_entry(good + "d").status()));
  std::string future = good;
  future[4] = 2;
  EXPECT_TRUE(absl::IsFailedPrecondition(parse_tree_entry(future).status()));
  Random random(5);
  for (int i = 0; i < 20'000; ++i) {
    std::string hostile = good;
    for (uint64_t flips = 1 + random.below(6); flips > 0; --flips) {
      hostile[4 + random.below(hostile.size() - 4)] = static_cast<char>(random.next());
    }
    const auto entry = parse_tree_entry(hostile);
    if (!entry.ok()) continue;
    ASSERT_LE(entry->header.mode, 07777);
    ASSERT_EQ(entry->content.size() + TreeHeader::kBytes, hostile.size());
  }
}

TEST(TreeEntry, ChunkKeysAndPathsDoNotMeet) {
  std::string_view path;
  uint32_t chunk = 9;
  EXPECT_TRUE(split_tree_key("a/b", &path, &chunk));
  EXPECT_EQ(path, "a/b");
  EXPECT_EQ(chunk, 0u);
  const std::string key = tree_chunk_key("a/b", 0xabc);
  EXPECT_EQ(key.size(), 12u);
  EXPECT_TRUE(split_tree_key(key, &path, &chunk));
  EXPECT_EQ(path, "a/b");
  EXPECT_EQ(chunk, 0xabcu);
  for (const char* suffix : {"0000000", "000000001", "0000000g", "00000000", "0000000A"}) {
    EXPECT_FALSE(split_tree_key(std::string("a") + '\0' + suffix, &path, &chunk)) << suffix;
  }
}

}  // namespace
}  // namespace sluice

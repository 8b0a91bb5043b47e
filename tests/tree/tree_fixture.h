// A directory to import, one to export to, and records in memory between them.
#ifndef SLUICE_TESTS_TREE_TREE_FIXTURE_H_
#define SLUICE_TESTS_TREE_TREE_FIXTURE_H_

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "base/file.h"
#include "base/random.h"
#include "tests/tree/memory_records.h"
#include "tree/tree_entry.h"
#include "tree/tree_export.h"
#include "tree/tree_import.h"

namespace sluice {

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

  static TreeImportOptions options(const fs::path& root, const std::string& prefix, int readers) {
    TreeImportOptions options;
    options.root = root;
    options.prefix = prefix;
    options.readers = readers;
    return options;
  }
  static TreeExportOptions target(const fs::path& directory, const std::string& prefix = "") {
    TreeExportOptions options;
    options.target.directory = directory;
    options.prefix = prefix;
    return options;
  }
  TreeImportResult import(const std::string& prefix = "") {
    StreamProgress progress;
    auto result = import_tree(options(in(), prefix, 3), records_, progress);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : TreeImportResult{};
  }
  TreeExportResult export_to_out(const std::string& prefix = "") {
    StreamProgress progress;
    auto result = export_tree(target(out(), prefix), records_, progress);
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

  uint64_t generation_of(const std::string& key) {
    const auto entry = parse_tree_entry(records_.records()[key]);
    return entry.ok() ? entry->header.generation : 0;
  }
  std::string chunk_key(const std::string& key, uint32_t chunk) {
    return tree_chunk_key(key, generation_of(key), chunk);
  }

  void put_file(const std::string& key, std::string_view content, uint16_t mode = 0644,
                uint32_t uid = 0, uint32_t gid = 0) {
    TreeHeader header;
    header.mode = mode;
    header.uid = uid;
    header.gid = gid;
    header.size = content.size();
    header.chunk_bytes = kTreeChunkBytes;
    header.digest = digest_of_chunks({xxh3_128(content)});
    records_.records()[key] = encode_tree_entry(header).append(content);
  }
  void put_link(const std::string& key, std::string_view target) {
    TreeHeader header;
    header.kind = TreeKind::kLink;
    header.mode = 0777;
    header.size = target.size();
    header.digest = xxh3_128(target);
    records_.records()[key] = encode_tree_entry(header).append(target);
  }

  fs::path root_;
  MemoryRecords records_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TREE_TREE_FIXTURE_H_

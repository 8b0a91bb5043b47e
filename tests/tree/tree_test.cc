#include <fcntl.h>
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>

#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>

#include "base/file.h"
#include "base/random.h"
#include "tests/tree/tree_fixture.h"
#include "tree/file_values.h"
#include "tree/tree_entry.h"
#include "tree/tree_export.h"
#include "tree/tree_import.h"

namespace sluice {
namespace {

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
    EXPECT_EQ(imported.directories, 4u);
    EXPECT_EQ(imported.links, 2u);
    // 12 entries; two files of 2 and 5 chunks, each with its generation's record.
    EXPECT_EQ(records_.records().size(), 21u);
    EXPECT_EQ(imported.records, 21u);
    for (const auto& [key, value] : records_.records()) {
      EXPECT_LT(value.size() + key.size(), kMaxBlockBytes - 4096) << "would not fit one block";
    }
    records_.shuffle(std::string_view(prefix).size());
    const TreeExportResult exported = export_to_out(prefix);
    EXPECT_EQ(exported.failures.count + exported.damaged.count + exported.other_records, 0u);
    EXPECT_EQ(exported.records, 21u);
    EXPECT_EQ(exported.bytes, imported.bytes);
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
  EXPECT_EQ(result.sockets, 0u);
  EXPECT_EQ(result.specials, 1u);
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
  EXPECT_TRUE(absl::IsUnavailable(import_tree(options(in(), "", 2), records_, progress).status()));
  StreamProgress cancelled;
  cancelled.cancelled = true;
  EXPECT_TRUE(absl::IsCancelled(import_tree(options(in(), "", 2), records_, cancelled).status()));
  StreamProgress other;
  EXPECT_TRUE(
      absl::IsNotFound(import_tree(options(in() / "absent", "", 2), records_, other).status()));
}

// Waiting for what the walk hands them, the readers would wait for ever.
TEST_F(Tree, AnImportThatRunsOutOfMemoryEnds) {
  for (int i = 0; i < 10; ++i) write(in() / std::to_string(i), "x");
  for (const std::string& key : {std::string("."), std::string("5")}) {
    records_.before_put([&](std::string_view now) {
      if (now == key) throw std::bad_alloc();
    });
    StreamProgress progress;
    const auto result = import_tree(options(in(), "", 2), records_, progress);
    EXPECT_TRUE(absl::IsResourceExhausted(result.status())) << result.status();
  }
}

TEST_F(Tree, ADirectoryThatBecomesALinkIsNotLookedInto) {
  const fs::path secret = root_ / "secret";
  write(secret / "file", "a secret");
  write(in() / "a/file", "harmless");
  bool replaced = false;
  records_.before_put([&](std::string_view key) {
    if (key != "a" || std::exchange(replaced, true)) return;
    fs::rename(in() / "a", root_ / "away");
    fs::create_symlink(secret, in() / "a");
  });
  const TreeImportResult result = import();
  EXPECT_TRUE(replaced);
  EXPECT_EQ(result.failures.count, 1u);
  EXPECT_FALSE(records_.records().contains("a/file"));
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
    EXPECT_GE(result.failures.count, 7u);
    EXPECT_EQ(result.superseded, 1u) << "what is below a link that the records have";
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

  records_.records().erase(chunk_key("large", 2));
  TreeExportResult result = export_to_out();
  ASSERT_EQ(result.damaged.count, 1u);
  EXPECT_EQ(result.damaged.first[0].path, "large");
  EXPECT_NE(result.damaged.first[0].reason.find("chunk 2"), std::string::npos);
  EXPECT_FALSE(fs::exists(out() / "large"));
  EXPECT_TRUE(fs::exists(out() / "other"));

  records_.records() = whole;
  records_.records()[chunk_key("large", 1)] = "not the chunk";
  result = export_to_out();
  ASSERT_EQ(result.damaged.count, 1u);
  EXPECT_FALSE(fs::exists(out() / "large"));

  // A chunk of other content in its place: its own digest holds, the file's does not.
  records_.records() = whole;
  std::string& value = records_.records()[chunk_key("large", 1)];
  auto entry = parse_tree_entry(value);
  ASSERT_TRUE(entry.ok());
  TreeHeader header = entry->header;
  std::string content(entry->content);
  content[17] ^= 1;
  header.digest = xxh3_128(content);
  value = encode_tree_entry(header, entry->extras) + content;
  result = export_to_out();
  EXPECT_EQ(result.damaged.count, 1u);
  EXPECT_FALSE(fs::exists(out() / "large"));

  value[TreeHeader::kBytes + 17] ^= 1;  // and one that does not even have its own
  EXPECT_EQ(export_to_out().damaged.count, 2u);
}

TEST_F(Tree, AnotherImportReplacesChunksAndLeavesNone) {
  for (const char* prefix : {"", "p/"}) {
    records_.records().clear();
    write(in() / "shrunk", random_bytes(4 * kTreeChunkBytes, 3));
    write(in() / "to-small", random_bytes(2 * kTreeChunkBytes, 3));
    write(in() / "to-folder", random_bytes(2 * kTreeChunkBytes, 3));
    write(in() / "same", random_bytes(2 * kTreeChunkBytes, 5));
    import(prefix);
    write(in() / "shrunk", random_bytes(2 * kTreeChunkBytes, 4));
    write(in() / "to-small", "small");
    fs::remove(in() / "to-folder");
    fs::create_directories(in() / "to-folder");
    const TreeImportResult again = import(prefix);
    EXPECT_EQ(again.removed, 5u + 3u + 3u + 3u);
    EXPECT_FALSE(again.leftovers);
    // 5 entries; two files of two chunks, each with its generation's record.
    EXPECT_EQ(records_.records().size(), 5u + 2u * 3u);
    const TreeExportResult result = export_to_out(prefix);
    EXPECT_EQ(result.failures.count + result.damaged.count + result.other_records, 0u);
    EXPECT_EQ(picture(out()), picture(in()));
    fs::remove_all(out());
    fs::remove_all(in() / "to-folder");
  }
}

TEST_F(Tree, ManyFilesOfChunksComeBackInAnyOrder) {
  for (int i = 0; i < 40; ++i)
    write(in() / std::to_string(i), random_bytes(kTreeChunkBytes + 1, 100 + i));
  import();
  for (uint64_t seed = 1; seed < 4; ++seed) {
    records_.shuffle(seed);
    const TreeExportResult result = export_to_out();
    EXPECT_EQ(result.failures.count + result.damaged.count, 0u);
    EXPECT_EQ(picture(out()), picture(in()));
  }
}

// Whatever an import has written when it ends, each file is the old one or the new one, and nothing
// of a version that does not count is exported.
TEST_F(Tree, AnImportThatEndsAnywhereLeavesTheOldOrTheNewFile) {
  const std::string old_content = random_bytes(3 * kTreeChunkBytes + 5, 1);
  const std::string new_content = random_bytes(2 * kTreeChunkBytes + 9, 2);
  write(in() / "large", old_content);
  set_time(in() / "large", 1'000, 0);
  import();
  const auto before = records_.records();
  write(in() / "large", new_content);
  set_time(in() / "large", 1'000, 0);  // so that only the content tells them apart
  bool seen_new = false;
  for (size_t steps = 0; steps < 12; ++steps) {
    records_.records() = before;
    size_t puts = 0;
    records_.refuse([&](std::string_view) { return puts++ >= steps; });
    StreamProgress progress;
    EXPECT_TRUE(import_tree(options(in(), "", 1), records_, progress).ok());
    records_.refuse(nullptr);
    for (const bool killed_before_it_tidied : {false, true}) {
      if (killed_before_it_tidied) {
        for (const auto& record : before) {
          if (record.first.find('\0') != std::string::npos) records_.records().insert(record);
        }
      }
      const TreeExportResult result = export_to_out();
      ASSERT_EQ(result.damaged.count + result.failures.count, 0u) << steps;
      const std::string content = *read_file(out() / "large", 1 << 30);
      EXPECT_TRUE(content == old_content || content == new_content) << steps;
      seen_new = seen_new || content == new_content;
      EXPECT_TRUE(killed_before_it_tidied || content == new_content || steps < 6) << steps;
    }
    // The next import tidies up whatever that one left.
    import();
    EXPECT_EQ(records_.records().size(), 2u + 3u + 1u) << steps;
  }
  EXPECT_TRUE(seen_new);
}

TEST_F(Tree, AFileThatGrowsWhileItIsReadStaysWhatItWas) {
  const std::string content = random_bytes(3 * kTreeChunkBytes, 1);
  write(in() / "log", content);
  import();
  const size_t records = records_.records().size();
  write(in() / "log", random_bytes(3 * kTreeChunkBytes, 2));
  records_.before_put([&](std::string_view key) {
    if (key.starts_with(std::string("log\0", 4)))
      std::ofstream(in() / "log", std::ios::binary | std::ios::app) << "more";
  });
  const TreeImportResult grown = import();
  EXPECT_EQ(grown.failures.count, 1u);
  EXPECT_EQ(records_.records().size(), records) << "chunks of given up attempts are left";
  records_.before_put(nullptr);
  EXPECT_EQ(export_to_out().damaged.count, 0u);
  EXPECT_TRUE(*read_file(out() / "log", 1 << 30) == content);

  int cuts = 0;  // a file that shrinks once is imported as what it is then
  records_.before_put([&](std::string_view key) {
    if (key.starts_with(std::string("log\0", 4)) && cuts++ == 0)
      fs::resize_file(in() / "log", 2 * kTreeChunkBytes);
  });
  EXPECT_EQ(import().failures.count, 0u);
  records_.before_put(nullptr);
  export_to_out();
  EXPECT_EQ(picture(out()), picture(in()));
}

TEST_F(Tree, ImportsAtTheSameTimeLeaveOneOfTheirVersions) {
  const std::string mine = random_bytes(4 * kTreeChunkBytes, 1);
  const std::string theirs = random_bytes(3 * kTreeChunkBytes, 2);
  const fs::path other = root_ / "other";
  write(in() / "file", mine);
  write(other / "file", theirs);
  import();
  std::thread thread([&] {
    StreamProgress progress;
    for (int i = 0; i < 10; ++i)
      EXPECT_TRUE(import_tree(options(other, "", 2), records_, progress).ok());
  });
  for (int i = 0; i < 10; ++i) import();
  thread.join();
  const TreeExportResult result = export_to_out();
  EXPECT_EQ(result.failures.count + result.damaged.count, 0u);
  const std::string content = *read_file(out() / "file", 1 << 30);
  EXPECT_TRUE(content == mine || content == theirs);
  import();
  EXPECT_EQ(records_.records().size(), 1u + 1u + 4u + 1u) << "chunks of the other are left";
}

TEST_F(Tree, AnImportThatRunsKeepsItsChunks) {
  write(in() / "large", random_bytes(2 * kTreeChunkBytes, 1));
  import();
  // Another import has written its chunks and not yet the record that names them.
  const uint64_t theirs = (generation_of("large") ^ 0x500) | 1;
  TreeHeader header = parse_tree_entry(records_.records()["large"])->header;
  header.generation = theirs;
  header.kind = TreeKind::kGeneration;
  records_.records()[generation_key("", "large", theirs)] = encode_tree_entry(header);
  records_.records()[tree_chunk_key("large", theirs, 0)] = "a chunk";
  {
    const auto claim = records_.claim(fmt::format("tree-generation-{:010x}", theirs & ~3ull));
    import();
    EXPECT_TRUE(records_.records().contains(tree_chunk_key("large", theirs, 0)));
  }
  import();
  EXPECT_FALSE(records_.records().contains(tree_chunk_key("large", theirs, 0)));
  EXPECT_FALSE(records_.records().contains(generation_key("", "large", theirs)));
}

TEST_F(Tree, AnImportThatLostItsClaimWritesNoFile) {
  const std::string content = random_bytes(2 * kTreeChunkBytes, 1);
  write(in() / "large", content);
  import();
  write(in() / "large", random_bytes(2 * kTreeChunkBytes, 2));
  records_.lose_claims();
  StreamProgress progress;
  EXPECT_TRUE(absl::IsAborted(import_tree(options(in(), "", 1), records_, progress).status()));
  export_to_out();
  EXPECT_TRUE(*read_file(out() / "large", 1 << 30) == content);
}

TEST_F(Tree, AnImportThatLosesItsClaimWhileItWritesAFileSaysSo) {
  write(in() / "large", random_bytes(2 * kTreeChunkBytes, 1));
  records_.before_put([&](std::string_view key) {
    if (key == "large") records_.lose_claims();
  });
  StreamProgress progress;
  EXPECT_TRUE(absl::IsAborted(import_tree(options(in(), "", 1), records_, progress).status()));
}

TEST_F(Tree, AFileThatIsWrittenToAllTheTimeIsNotImportedInPart) {
  write(in() / "busy", random_bytes(100'000, 1));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const int fd = ::open((in() / "busy").c_str(), O_WRONLY | O_CLOEXEC);
    for (uint64_t i = 0; !stop; ++i) {
      const std::string bytes = random_bytes(64, i);
      EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), 100), 64);
    }
    close(fd);
  });
  const TreeImportResult result = import();
  stop = true;
  writer.join();
  ASSERT_EQ(result.failures.count, 1u);
  EXPECT_EQ(result.failures.first[0].path, "busy");
}

// What a file system calls data may become more without a change of the file.
TEST_F(Tree, DataBehindWhatWasCountedIsNotLeftOut) {
  const int fd = ::open((in() / "sparse").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_GE(fd, 0);
  const std::string data = random_bytes(kTreeChunkBytes, 1);
  for (const off_t at : {off_t{0}, off_t{4} << 20, off_t{8} << 20}) {
    ASSERT_EQ(pwrite(fd, data.data(), data.size(), at), static_cast<ssize_t>(data.size()));
  }
  ASSERT_EQ(ftruncate(fd, off_t{20} << 20), 0);
  close(fd);
  const UniqueFd root(::open(in().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  OwnerNames names;
  const auto file = TreeFile::open(root.get(), "sparse", names);
  ASSERT_TRUE(file.ok()) << file.status();
  auto entry = describe(*file);
  ASSERT_TRUE(entry.ok()) << entry.status();
  ASSERT_EQ(entry->header.sparse_chunks, 3u);
  const auto reads_as_counted = [&] {
    ChunkReader chunks(*file, *entry);
    std::string value;
    bool same = true;
    while (!chunks.done()) {
      const auto next = chunks.next(&value);
      EXPECT_TRUE(next.ok()) << next.status();
      same = same && next.ok() && *next;
    }
    return same;
  };
  EXPECT_TRUE(reads_as_counted());
  entry->header.sparse_chunks = 2;
  EXPECT_FALSE(reads_as_counted());
  entry->header.sparse_chunks = 4;
  EXPECT_FALSE(reads_as_counted());
  entry->header.sparse_chunks = 0;
  std::string value;
  EXPECT_FALSE(*read_whole(*file, &*entry, &value));
}

TEST_F(Tree, AFileThatIsReplacedWhileItIsReadIsExportedWhole) {
  const std::string old_content = random_bytes(3 * kTreeChunkBytes, 1);
  const std::string new_content = random_bytes(4 * kTreeChunkBytes, 2);
  for (uint64_t seed = 1; seed < 20; ++seed) {
    records_.records().clear();
    write(in() / "large", old_content);
    import();
    write(in() / "large", new_content);
    records_.shuffle(seed);
    bool replaced = false;
    records_.during_scan([&](size_t at) {
      if (at == seed % 6 && !std::exchange(replaced, true)) import();
    });
    const TreeExportResult result = export_to_out();
    records_.during_scan(nullptr);
    ASSERT_EQ(result.failures.count + result.damaged.count, 0u) << seed;
    const std::string content = *read_file(out() / "large", 1 << 30);
    EXPECT_TRUE(content == old_content || content == new_content) << seed;
  }
}

TEST_F(Tree, BitsThatActForAnOwnerNeedThatOwner) {
  put_file("own", "x", 04755, getuid(), getgid());
  put_file("users", "x", 06755, getuid() + 1, getgid());
  put_file("groups", "x", 02755, getuid(), getgid() + 1);
  put_file("sticky", "x", 01755, getuid() + 1, getgid());
  // As a user, who cannot give files to others.
  ASSERT_EQ(chmod(root_.c_str(), 0777), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(100);
    put_file("own", "x", 04755, getuid(), getgid());
    StreamProgress progress;
    const auto result = export_tree(target(out()), records_, progress);
    _exit(result.ok() && result->not_set.set_id == 2 && result->not_set.owner == 3 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const auto mode = [&](const char* name) {
    struct stat info {};
    EXPECT_EQ(stat((out() / name).c_str(), &info), 0);
    return info.st_mode & 07777;
  };
  EXPECT_EQ(mode("own"), 04755u);
  EXPECT_EQ(mode("users"), 0755u);
  EXPECT_EQ(mode("groups"), 0755u);
  EXPECT_EQ(mode("sticky"), 01755u);
}

// In a process that is not root's, which may do everything anyway.
TEST_F(Tree, ReadOnlyFoldersAreExportedAndExportedIntoAgain) {
  write(in() / "a/x", "1");
  write(in() / "a/b/y", "2");
  fs::create_symlink("x", in() / "a/l");
  ASSERT_EQ(chmod((in() / "a/b").c_str(), 0500), 0);
  ASSERT_EQ(chmod((in() / "a").c_str(), 0555), 0);
  ASSERT_EQ(chmod(in().c_str(), 0555), 0);
  import();
  ASSERT_EQ(chmod(root_.c_str(), 0777), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(100);
    for (int i = 0; i < 2; ++i) {
      StreamProgress progress;
      const auto result = export_tree(target(out()), records_, progress);
      if (!result.ok()) _exit(1 + 10 * i);
      if (result->failures.count + result->damaged.count > 0) _exit(2 + 10 * i);
    }
    // A folder that no entry names gets its mode back.
    fs::create_directories(out().string() + "2/a/b");
    chmod((out().string() + "2/a").c_str(), 0511);
    records_.records().erase("a");
    StreamProgress progress;
    const auto result = export_tree(target(out().string() + "2"), records_, progress);
    _exit(result.ok() && result->failures.count == 0 ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const auto mode = [](const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  };
  EXPECT_EQ(mode(out()), 0555u);
  EXPECT_EQ(mode(out() / "a"), 0555u);
  EXPECT_EQ(mode(out() / "a/b"), 0500u);
  EXPECT_EQ(mode(root_ / "out2/a"), 0511u);
  EXPECT_EQ(*read_file(out() / "a/b/y", 100), "2");
  for (const fs::path& tree : {in(), out(), root_ / "out2"}) {
    for (const char* folder : {"", "a", "a/b"}) chmod((tree / folder).c_str(), 0755);
  }
}

TEST_F(Tree, KeysOfTheGreatestLengthAreImported) {
  std::string folders;
  UniqueFd folder(open(in().c_str(), O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < 16; ++i) {
    const std::string name(240, 'd');
    ASSERT_EQ(mkdirat(folder.get(), name.c_str(), 0700), 0);
    folder.reset(openat(folder.get(), name.c_str(), O_RDONLY | O_DIRECTORY));
    folders += name + "/";
  }
  const auto make = [&](size_t key_bytes, char name, size_t size) {
    const std::string file(key_bytes - folders.size(), name);
    UniqueFd fd(openat(folder.get(), file.c_str(), O_WRONLY | O_CREAT, 0600));
    const std::string content(size, 'x');
    EXPECT_EQ(pwrite(fd.get(), content.data(), size, 0), static_cast<ssize_t>(size));
  };
  make(4095, 'a', 3);
  make(4096, 'b', 3);
  make(4097, 'c', 3);
  make(4096 - 9, 'd', kTreeChunkBytes + 1);
  make(4097 - 9, 'e', kTreeChunkBytes + 1);
  const TreeImportResult result = import();
  EXPECT_EQ(result.files, 3u);
  EXPECT_EQ(result.failures.count, 2u);
  const TreeExportResult exported = export_to_out();
  EXPECT_EQ(exported.files, 3u);
  EXPECT_EQ(exported.failures.count + exported.damaged.count, 0u);
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
  const std::string good = encode_tree_entry(header) + "abc";
  ASSERT_TRUE(parse_tree_entry(good).ok());
  EXPECT_EQ(encode_tree_entry(header).size(), TreeHeader::kBytes);
  EXPECT_TRUE(absl::IsNotFound(parse_tree_entry("").status()));
  EXPECT_TRUE(absl::IsNotFound(parse_tree_entry("SLT").status()));
  for (size_t size = 5; size < good.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(parse_tree_entry(good.substr(0, size)).status())) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(parse_tree_entry(good + "d").status()));
  std::string future = good;
  future[4] = 5;
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

TEST(TreeEntry, KeysOfChunksAndGenerationsAreToldApart) {
  std::string_view path;
  uint64_t generation = 0;
  uint32_t chunk = 9;
  EXPECT_FALSE(split_chunk_key("a/b", &path, &generation, &chunk));
  for (const uint32_t number : {0u, 0xabcu, (1u << 24) - 1, 1u << 24, ~0u}) {
    const std::string key = tree_chunk_key("a/b", 0x1200ff0034, number);
    EXPECT_EQ(key.size(), number < 1u << 24 ? 12u : 13u);
    ASSERT_TRUE(split_chunk_key(key, &path, &generation, &chunk));
    EXPECT_EQ(path, "a/b");
    EXPECT_EQ(generation, 0x1200ff0034u);
    EXPECT_EQ(chunk, number);
    EXPECT_FALSE(split_chunk_key(key.substr(0, key.size() - 2), &path, &generation, &chunk));
    EXPECT_FALSE(split_chunk_key(key + "ab", &path, &generation, &chunk));
  }
  const std::string key = generation_key("p/", "a/b", 0x1200ff0034);
  ASSERT_TRUE(key.starts_with(generation_prefix("p/")));
  const std::string behind_prefix = key.substr(generation_prefix("p/").size());
  ASSERT_TRUE(split_generation_key(behind_prefix, &path, &generation));
  EXPECT_EQ(path, "a/b");
  EXPECT_EQ(generation, 0x1200ff0034u);
  for (const char* bad : {"", "a/b", "12345"}) {
    EXPECT_FALSE(split_generation_key(bad, &path, &generation)) << bad;
  }
}

}  // namespace
}  // namespace sluice

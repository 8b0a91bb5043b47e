#include "dataplane/tree_source/tree_source.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "dataplane/block/record.h"
#include "tests/dataplane/temp_folder.h"
#include "tree/tree_entry.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kBits = 4;
constexpr uint32_t kNumber = 7;

std::string bytes_of_seed(size_t size, uint64_t seed) {
  Random random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random.next());
  return bytes;
}

// What scans gave, by key.
struct Scanned {
  std::string value;
  RecordSummary summary;
};
using Records = std::map<std::string, Scanned>;

class TreeSourceTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(in()); }
  fs::path in() const { return fs::path(folder_.path()) / "in"; }

  void write(const std::string& path, std::string_view content) {
    fs::create_directories((in() / path).parent_path());
    std::ofstream(in() / path, std::ios::binary) << content;
  }
  TreeSourceOptions options() const {
    TreeSourceOptions options;
    options.root = in();
    auto catalogue = TreeCatalogue::open(folder_.path() + "/catalogue", kBits);
    EXPECT_TRUE(catalogue.ok()) << catalogue.status();
    options.catalogue = *std::move(catalogue);
    options.number = kNumber;
    options.slot_bits = kBits;
    return options;
  }
  std::unique_ptr<TreeSource> open() {
    auto source = TreeSource::open(options());
    EXPECT_TRUE(source.ok()) << source.status();
    return *std::move(source);
  }
  static void look(TreeSource& source, bool rescan = false) {
    const absl::Status looked = source.look(rescan, nullptr);
    ASSERT_TRUE(looked.ok()) << looked;
  }

  // Every slot of the source, checked for order, shard and digest.
  static Records scan_all(TreeSource& source) {
    Records all;
    for (const auto& [shard, totals] : source.shards()) {
      const uint32_t slot = tree_slot(kNumber, shard);
      EXPECT_TRUE(source.has(slot));
      scan(source, slot, &all);
    }
    return all;
  }
  static uint32_t slot_of(const std::string& path) {
    return tree_slot(kNumber, tree_shard_of(path, kBits));
  }
  static std::string first_of(TreeSource& source, const std::set<std::string>& names) {
    const Records records = scan_all(source);
    for (const std::string& name : names) {
      if (entry(records, name).header.kind == TreeKind::kFile) return name;
    }
    return "";
  }
  static SlotDigest scan(TreeSource& source, uint32_t slot, Records* all) {
    const std::unique_ptr<SlotScan> scan = source.scan(slot);
    SlotDigest digest;
    std::string last;
    SlotScan::Item item;
    for (;;) {
      const absl::StatusOr<bool> more = scan->next(&item);
      EXPECT_TRUE(more.ok()) << more.status();
      if (!more.ok() || !*more) return digest;
      EXPECT_LT(last, item.key);
      last = item.key;
      EXPECT_TRUE(is_of_slot(item.key, slot, kBits)) << item.key;
      EXPECT_EQ(item.summary.value_bytes, item.inline_value.size());
      EXPECT_EQ(item.summary.value_digest, xxh3_128(item.inline_value));
      EXPECT_LE(item.inline_value.size() + item.key.size(), kMaxBlockBytes - 4096);
      digest.add(item.key, item.summary);
      const bool added =
          all->try_emplace(last, Scanned{std::string(item.inline_value), item.summary}).second;
      EXPECT_TRUE(added) << last;
    }
  }

  static TreeEntry entry(const Records& records, const std::string& key) {
    const auto found = records.find(key);
    if (found == records.end()) {
      ADD_FAILURE() << "no record " << key;
      return {};
    }
    auto parsed = parse_tree_entry(found->second.value);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return parsed.ok() ? *parsed : TreeEntry{};
  }

  // The content of a file of several chunks, of the generation that its own record names.
  static std::string content_of_chunks(const Records& records, const std::string& path) {
    const TreeEntry file = entry(records, own_record_key(path));
    std::string content;
    std::vector<Digest128> digests;
    for (uint32_t number = 0; number < file.header.chunks(); ++number) {
      const TreeEntry chunk = entry(records, tree_chunk_key(path, file.header.generation, number));
      EXPECT_TRUE(is_chunk_of(chunk.header, file.header, number)) << number;
      EXPECT_EQ(chunk.header.digest, digest_of_content(chunk.extras.extents, chunk.content));
      digests.push_back(chunk.header.digest);
      content += chunk.content;
    }
    EXPECT_EQ(file.header.digest, digest_of_chunks(digests));
    return content;
  }

  TempFolder folder_;
};

TEST_F(TreeSourceTest, EveryKindOfEntryIsReadAsItIs) {
  write("a.txt", "hello");
  write("d/empty", "");
  write("d/e/deep", "deep");
  const std::string large = bytes_of_seed(size_t{3} * kTreeChunkBytes + 5, 1);
  write("d/large", large);
  fs::create_symlink("../a.txt", in() / "d/link");
  ASSERT_EQ(mkfifo((in() / "pipe").c_str(), 0640), 0);
  ASSERT_EQ(setxattr((in() / "a.txt").c_str(), "user.note", "kept", 4, 0), 0);
  const auto source = open();
  look(*source);
  const Records records = scan_all(*source);

  EXPECT_EQ(entry(records, ".").header.kind, TreeKind::kDirectory);
  EXPECT_EQ(entry(records, "d/e").header.kind, TreeKind::kDirectory);
  const TreeEntry text = entry(records, "a.txt");
  EXPECT_EQ(text.content, "hello");
  EXPECT_EQ(text.header.digest, digest_of_chunks({xxh3_128(std::string_view("hello"))}));
  ASSERT_EQ(text.extras.attributes.size(), 1);
  EXPECT_EQ(text.extras.attributes[0].value, "kept");
  EXPECT_EQ(entry(records, "d/empty").header.size, 0);
  EXPECT_EQ(entry(records, "d/link").content, "../a.txt");
  EXPECT_EQ(entry(records, "pipe").header.kind, TreeKind::kPipe);
  EXPECT_EQ(content_of_chunks(records, "d/large"), large);
  EXPECT_FALSE(records.contains("d/large")) << "its own record comes behind its chunks";

  const TreeReport report = source->report();
  EXPECT_EQ(report.files, 4);
  EXPECT_EQ(report.directories, 3);
  EXPECT_EQ(report.links, 1);
  EXPECT_EQ(report.specials, 1);
  EXPECT_EQ(report.bytes, large.size() + 5 + 4);
  EXPECT_EQ(report.changed.count + report.failed.count + report.vanished.count, 0);
}

TEST_F(TreeSourceTest, AllOfADirectoryIsInOneSlot) {
  for (int i = 0; i < 50; ++i) write(fmt::format("d/file-{}", i), "x");
  write("d/sub/other", "y");
  const auto source = open();
  look(*source);
  const auto shard = [](std::string_view key) { return tree_shard_of(key, kBits); };
  EXPECT_EQ(shard("d/file-1"), shard("d/file-49"));
  EXPECT_EQ(shard("d/file-1"), shard(own_record_key("d/file-1")));
  EXPECT_EQ(shard("d/file-1"), shard(tree_chunk_key("d/file-1", 5, 9)));
  EXPECT_EQ(shard("."), shard("d"));
  Records records;
  scan(*source, tree_slot(kNumber, shard("d/sub")), &records);
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(records.contains(fmt::format("d/file-{}", i)));
}

TEST_F(TreeSourceTest, WhatWasReadIsKnownUntilItChanges) {
  write("d/one", "1");
  write("d/two", "2");
  write("e/three", "3");
  const uint32_t d = tree_slot(kNumber, tree_shard_of("d/one", kBits));
  const uint32_t e = tree_slot(kNumber, tree_shard_of("e/three", kBits));
  ASSERT_NE(d, e);
  {
    const auto source = open();
    look(*source);
    EXPECT_FALSE(source->known_digest(d).has_value());
    scan_all(*source);
    EXPECT_FALSE(source->known_digest(d).has_value()) << "of the last look";
    look(*source);
    Records records;
    const auto known = source->known_digest(d);
    ASSERT_TRUE(known.has_value());
    EXPECT_EQ(*known, scan(*source, d, &records));
  }
  usleep(20'000);  // a tick of the file system's clock
  write("e/three", "4");
  const auto source = open();  // another process
  look(*source);
  EXPECT_TRUE(source->known_digest(d).has_value());
  EXPECT_FALSE(source->known_digest(e).has_value());
  EXPECT_EQ(source->shards()[shard_of(e)].unread_bytes, 1);
  look(*source, /*rescan=*/true);
  EXPECT_FALSE(source->known_digest(d).has_value());
}

TEST_F(TreeSourceTest, ARemovedEntryChangesWhatIsKnown) {
  write("d/one", "1");
  write("d/two", "2");
  const uint32_t slot = tree_slot(kNumber, tree_shard_of("d/one", kBits));
  const auto source = open();
  look(*source);
  scan_all(*source);
  look(*source);
  const auto before = source->known_digest(slot);
  fs::remove(in() / "d/two");
  look(*source);
  const auto after = source->known_digest(slot);
  ASSERT_TRUE(before.has_value() && after.has_value());
  EXPECT_NE(before->sum, after->sum);
  EXPECT_EQ(after->records, before->records - 1);
  Records records;
  EXPECT_EQ(scan(*source, slot, &records), *after);
}

TEST_F(TreeSourceTest, AFileIsReadByOneOfItsNames) {
  write("a/first", "content");
  fs::create_directories(in() / "b");
  fs::create_directories(in() / "c");
  fs::create_hard_link(in() / "a/first", in() / "b/second");
  fs::create_hard_link(in() / "a/first", in() / "c/third");
  const auto source = open();
  look(*source);
  const auto names = [&](const std::set<std::string>& all) {
    const Records records = scan_all(*source);
    std::string with_content;
    for (const std::string& name : all) {
      const TreeEntry file = entry(records, name);
      if (file.header.kind == TreeKind::kFile) {
        EXPECT_EQ(file.content, "content");
        EXPECT_TRUE(file.extras.linked);
        EXPECT_EQ(with_content, "");
        with_content = name;
      }
    }
    for (const std::string& name : all) {
      if (name == with_content) continue;
      EXPECT_EQ(entry(records, name).header.kind, TreeKind::kHardLink);
      EXPECT_EQ(entry(records, name).content, with_content);
    }
    return with_content;
  };
  const std::string first = names({"a/first", "b/second", "c/third"});
  look(*source);
  EXPECT_EQ(names({"a/first", "b/second", "c/third"}), first) << "it stays the first";
  std::set<std::string> left = {"a/first", "b/second", "c/third"};
  left.erase(first);
  fs::remove(in() / first);
  look(*source);
  EXPECT_NE(names(left), "");
}

TEST_F(TreeSourceTest, AFirstNameThatGoesWhileTheTreeIsReadTakesNoContentAlong) {
  write("a/first", "content");
  fs::create_directories(in() / "b");
  fs::create_hard_link(in() / "a/first", in() / "b/second");
  const auto source = open();
  look(*source);
  fs::remove(in() / "a/first");
  fs::remove(in() / "b/second");
  write("a/first", "content");
  fs::create_hard_link(in() / "a/first", in() / "b/second");
  fs::remove(in() / "a/first");
  const Records records = scan_all(*source);
  EXPECT_EQ(entry(records, "b/second").content, "content");
}

TEST_F(TreeSourceTest, ContentStaysWithTheNamesThatStay) {
  for (const bool replaced : {false, true}) {
    fs::remove_all(in());
    fs::create_directories(in() / "b");
    write("a/first", "content");
    fs::create_hard_link(in() / "a/first", in() / "b/second");
    const auto source = open();
    look(*source);
    const std::string first = first_of(*source, {"a/first", "b/second"});
    const std::string second = first == "a/first" ? "b/second" : "a/first";
    Records records;
    scan(*source, slot_of(second), &records);
    ASSERT_EQ(entry(records, second).header.kind, TreeKind::kHardLink);
    // Once the other is written as a link to it.
    fs::remove(in() / first);
    if (replaced) write(first, "something else");
    Records after;
    scan(*source, slot_of(first), &after);
    EXPECT_EQ(entry(after, first).content, "content");
    EXPECT_EQ(source->report().vanished.count, 0);
  }
}

TEST_F(TreeSourceTest, ContentThatNoNameLeadsToIsReported) {
  fs::create_directories(in() / "b");
  write("a/first", "content");
  fs::create_hard_link(in() / "a/first", in() / "b/second");
  const auto source = open();
  look(*source);
  const std::string first = first_of(*source, {"a/first", "b/second"});
  const std::string second = first == "a/first" ? "b/second" : "a/first";
  Records records;
  scan(*source, slot_of(second), &records);
  fs::rename(in() / first, in() / "elsewhere");
  fs::remove(in() / second);
  Records after;
  scan(*source, slot_of(first), &after);
  EXPECT_TRUE(source->report().failed.first.contains(first));
}

TEST_F(TreeSourceTest, FilesOfSeveralNamesAreReadAgain) {
  write("dir1/x", "content");
  write("y/other", "");
  fs::create_hard_link(in() / "dir1/x", in() / "y/link");
  const auto source = open();
  look(*source);
  scan_all(*source);
  // Changes nothing of the file.
  fs::rename(in() / "dir1", in() / "dir2");
  look(*source);
  EXPECT_FALSE(source->known_digest(slot_of("y/link")).has_value());
  const Records records = scan_all(*source);
  const bool moved = entry(records, "dir2/x").header.kind == TreeKind::kFile;
  EXPECT_EQ(entry(records, moved ? "dir2/x" : "y/link").content, "content");
  EXPECT_EQ(entry(records, moved ? "y/link" : "dir2/x").content, moved ? "dir2/x" : "y/link");
}

TEST_F(TreeSourceTest, HolesCostNothing) {
  const int fd = ::open((in() / "sparse").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_GE(fd, 0);
  const std::string data = bytes_of_seed(size_t{64} << 10, 3);
  ASSERT_EQ(pwrite(fd, data.data(), data.size(), off_t{1} << 40),
            static_cast<ssize_t>(data.size()));
  close(fd);
  const auto source = open();
  look(*source);
  const Records records = scan_all(*source);
  const TreeEntry file = entry(records, "sparse");
  EXPECT_EQ(file.header.size, (uint64_t{1} << 40) + data.size());
  EXPECT_EQ(file.content, data);
  ASSERT_EQ(file.extras.extents.size(), 1);
  EXPECT_LT(source->report().bytes_read, 100'000);
}

TEST_F(TreeSourceTest, FilesThatNeverStayAsTheyAreAreNamed) {
  write("small", bytes_of_seed(200'000, 4));
  write("large", bytes_of_seed(size_t{2} * kTreeChunkBytes + 100, 5));
  write("quiet", "quiet");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const int small = ::open((in() / "small").c_str(), O_WRONLY | O_CLOEXEC);
    const int large = ::open((in() / "large").c_str(), O_WRONLY | O_CLOEXEC);
    for (uint64_t i = 0; !stop; ++i) {
      const std::string bytes = bytes_of_seed(64, i);
      EXPECT_EQ(pwrite(small, bytes.data(), bytes.size(), 100), 64);
      EXPECT_EQ(pwrite(large, bytes.data(), bytes.size(), 100), 64);
    }
    close(small);
    close(large);
  });
  const auto source = open();
  look(*source);
  const Records records = scan_all(*source);
  stop = true;
  writer.join();
  const TreeReport report = source->report();
  EXPECT_EQ(report.changed.count, 2);
  EXPECT_TRUE(report.changed.first.contains("small"));
  EXPECT_TRUE(report.changed.first.contains("large"));
  EXPECT_TRUE(entry(records, "small").extras.changed);
  EXPECT_TRUE(entry(records, own_record_key("large")).extras.changed);
  EXPECT_EQ(content_of_chunks(records, "large").size(), size_t{2} * kTreeChunkBytes + 100);
  // It is read again with the next backup.
  look(*source);
  EXPECT_FALSE(source->known_digest(tree_slot(kNumber, tree_shard_of("small", kBits))).has_value());
  scan_all(*source);
  look(*source);
  EXPECT_TRUE(source->known_digest(tree_slot(kNumber, tree_shard_of("small", kBits))).has_value());
}

TEST_F(TreeSourceTest, WhatChangedBetweenLookAndReadingIsTakenAsItIs) {
  write("grows", "1");
  write("shrinks", bytes_of_seed(size_t{3} << 20, 6));
  write("becomes", "a file");
  write("goes", "x");
  const auto source = open();
  look(*source);
  const std::string grown = bytes_of_seed(size_t{2} << 20, 7);
  write("grows", grown);
  write("shrinks", "now small");
  fs::remove(in() / "becomes");
  fs::create_directories(in() / "becomes");
  fs::remove(in() / "goes");
  const Records records = scan_all(*source);
  EXPECT_EQ(content_of_chunks(records, "grows"), grown);
  EXPECT_EQ(entry(records, "shrinks").content, "now small");
  EXPECT_EQ(entry(records, "becomes").header.kind, TreeKind::kDirectory);
  EXPECT_TRUE(source->report().vanished.first.contains("goes"));
}

TEST_F(TreeSourceTest, ALookIsTakenUpByAnotherProcess) {
  write("d/one", "1");
  {
    const auto source = open();
    EXPECT_TRUE(absl::IsNotFound(source->take_last_look()));
    look(*source);
  }
  const auto source = open();
  ASSERT_TRUE(source->take_last_look().ok());
  EXPECT_TRUE(scan_all(*source).contains("d/one"));
}

TEST_F(TreeSourceTest, ADamagedCatalogueIsBegunAgain) {
  write("d/one", "1");
  look(*open());
  for (const auto& file : fs::directory_iterator(folder_.path() + "/catalogue")) {
    if (file.path().filename().string().starts_with("MANIFEST")) {
      std::ofstream(file.path(), std::ios::binary | std::ios::trunc) << "damaged";
    }
  }
  const auto source = open();
  look(*source);
  EXPECT_TRUE(scan_all(*source).contains("d/one"));
}

TEST_F(TreeSourceTest, ARootThatIsNotThereIsNamed) {
  TreeSourceOptions wrong = options();
  wrong.root = in() / "nowhere";
  const auto source = TreeSource::open(wrong);
  EXPECT_TRUE(absl::IsNotFound(source.status())) << source.status();
  EXPECT_THAT(std::string(message_of(source.status())), testing::HasSubstr("nowhere"));
}

TEST_F(TreeSourceTest, ALookEndsWhenItIsStopped) {
  for (int i = 0; i < 20; ++i) write(fmt::format("file-{}", i), "x");
  const auto source = open();
  int asked = 0;
  EXPECT_TRUE(absl::IsCancelled(source->look(false, [&] { return ++asked > 5; })));
}

}  // namespace
}  // namespace sluice

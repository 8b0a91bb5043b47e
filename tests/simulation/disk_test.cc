#include "tests/simulation/disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace sluice::simulation {
namespace {

using Kept = FileContent::Kept;

std::string text_of(const FileContent& content) {
  std::string text(content.size(), '\1');
  EXPECT_EQ(content.read(0, text), text.size());
  return text;
}

void sync(FileContent& content) { content.end_sync(content.begin_sync()); }

// --- A file's content ---

TEST(FileContent, ReadsWhatWasWrittenAndZerosInHoles) {
  FileContent content;
  content.write(10'000, "hello");
  EXPECT_EQ(content.size(), 10'005u);
  EXPECT_EQ(content.pages(), 1u);
  EXPECT_EQ(text_of(content), std::string(10'000, '\0') + "hello");
  content.write(4090, "over two pages");
  EXPECT_EQ(text_of(content).substr(4090, 14), "over two pages");
  content.resize(4095);
  content.resize(4100);
  EXPECT_EQ(text_of(content).substr(4090), "over " + std::string(5, '\0'));
  std::string rest(10, 'x');
  EXPECT_EQ(content.read(4099, rest), 1u);
  EXPECT_EQ(content.read(4100, rest), 0u);
}

TEST(FileContent, WhatWasSyncedStaysAndTheRestMayGo) {
  Random random(1);
  FileContent content;
  content.write(0, std::string(8192, 'a'));
  sync(content);
  content.write(0, "new");
  content.write(8192, "appended");
  content.lose_power(Kept::kNothing, random);
  EXPECT_EQ(text_of(content), std::string(8192, 'a'));
  content.resize(100);
  content.write(50, "b");
  content.lose_power(Kept::kAll, random);
  EXPECT_EQ(text_of(content), std::string(50, 'a') + "b" + std::string(49, 'a'));
}

TEST(FileContent, ASyncCoversWhatWasThereWhenItBegan) {
  Random random(1);
  FileContent content;
  content.write(0, "first");
  const uint64_t number = content.begin_sync();
  content.write(0, "later");
  FileContent during = content;
  during.lose_power(Kept::kNothing, random);
  EXPECT_EQ(during.size(), 0u);
  content.end_sync(number);
  content.lose_power(Kept::kNothing, random);
  EXPECT_EQ(text_of(content), "first");
}

TEST(FileContent, ALaterSyncThatEndsFirstCoversTheEarlierOne) {
  Random random(1);
  FileContent content;
  content.write(0, "a");
  content.write(5000, "b");
  const uint64_t first = content.begin_sync();
  content.write(0, "A");
  content.end_sync(content.begin_sync());
  content.end_sync(first);
  content.lose_power(Kept::kNothing, random);
  EXPECT_EQ(text_of(content), "A" + std::string(4999, '\0') + "b");
}

TEST(FileContent, WhatAFailedSyncDidNotWriteNoLaterOneWrites) {
  Random random(1);
  FileContent content;
  content.write(0, "kept");
  sync(content);
  content.write(0, "lost");
  content.fail_sync(content.begin_sync());
  content.write(5000, "other page");
  sync(content);
  EXPECT_EQ(text_of(content).substr(0, 4), "lost");
  content.lose_power(Kept::kNothing, random);
  EXPECT_EQ(text_of(content).substr(0, 4), "kept");
  EXPECT_EQ(text_of(content).substr(5000), "other page");
}

TEST(FileContent, PagesAreKeptLostOrTornBetweenSectors) {
  std::set<std::string> pages;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    FileContent content;
    content.write(0, std::string(4096, 'o'));
    sync(content);
    content.write(0, std::string(4096, 'n'));
    content.lose_power(Kept::kPart, random);
    const std::string text = text_of(content);
    pages.insert(text);
    for (size_t at = 0; at < 4096; at += 512) {
      EXPECT_EQ(text.substr(at, 512), std::string(512, text[at]));
    }
  }
  EXPECT_TRUE(pages.contains(std::string(4096, 'o')));
  EXPECT_TRUE(pages.contains(std::string(4096, 'n')));
  EXPECT_GT(pages.size(), 20u);
}

TEST(FileContent, AFirstPartOfWhatWasAppendedHasNoHoles) {
  std::set<uint64_t> sizes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    FileContent content;
    content.write(0, std::string(5000, 'o'));
    sync(content);
    content.write(0, "n");
    content.write(5000, std::string(30'000, 'n'));
    content.lose_power(Kept::kFirstPart, random);
    const std::string text = text_of(content);
    sizes.insert(text.size());
    ASSERT_GE(text.size(), 5000u);
    ASSERT_EQ(text.substr(1, 4999), std::string(4999, 'o'));
    ASSERT_EQ(text.substr(5000), std::string(text.size() - 5000, 'n'));
  }
  EXPECT_GT(sizes.size(), 20u);
}

TEST(FileContent, TheEndIsOldNewOrBetween) {
  std::set<uint64_t> sizes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    FileContent content;
    content.write(0, std::string(1000, 'o'));
    sync(content);
    content.write(1000, std::string(9000, 'n'));
    content.lose_power(Kept::kPart, random);
    sizes.insert(content.size());
    ASSERT_GE(content.size(), 1000u);
    ASSERT_LE(content.size(), 10'000u);
    ASSERT_EQ(text_of(content).substr(0, 1000), std::string(1000, 'o'));
    // Grows with zeros, whatever was there.
    const uint64_t end = content.size();
    content.resize(12'000);
    ASSERT_EQ(text_of(content).substr(end), std::string(12'000 - end, '\0'));
  }
  EXPECT_GT(sizes.size(), 20u);
}

TEST(FileContent, CopiesShareNothingThatChanges) {
  FileContent content;
  content.write(0, "original");
  FileContent copy = content.durable_copy();
  content.write(0, "changed!");
  EXPECT_EQ(text_of(copy), "original");
  copy.flip_bit(0, 1);
  EXPECT_EQ(text_of(copy), "mriginal");
  EXPECT_EQ(text_of(content), "changed!");
  Random random(1);
  copy.lose_power(Kept::kNothing, random);
  EXPECT_EQ(text_of(copy), "mriginal");
}

// --- Names ---

class DiskTest : public ::testing::Test {
 protected:
  InodePtr find(std::string_view path) {
    InodePtr found;
    return disk_.find(disk_.root(), path, &found) == 0 ? found : nullptr;
  }
  InodePtr make(std::string_view path, bool is_directory = false) {
    InodePtr parent;
    std::string name;
    EXPECT_EQ(disk_.find_parent(disk_.root(), path, &parent, &name), 0);
    InodePtr made;
    EXPECT_EQ(disk_.create(parent, name, 0644, is_directory, &made), 0);
    return made;
  }
  void write(const InodePtr& file, std::string_view text) {
    EXPECT_EQ(disk_.write(file, 0, text), 0);
  }
  void sync(const InodePtr& inode) { disk_.end_sync(inode, disk_.begin_sync(inode)); }
  int rename(std::string_view from, std::string_view to) {
    InodePtr a;
    InodePtr b;
    std::string old_name;
    std::string new_name;
    EXPECT_EQ(disk_.find_parent(disk_.root(), from, &a, &old_name), 0);
    EXPECT_EQ(disk_.find_parent(disk_.root(), to, &b, &new_name), 0);
    return disk_.rename(a, old_name, b, new_name, true);
  }
  std::string text(std::string_view path) {
    const InodePtr file = find(path);
    return file == nullptr ? "(none)" : text_of(file->content);
  }

  Disk disk_{1};
};

TEST_F(DiskTest, PathsLeadWhereNamesAre) {
  make("/a", true);
  make("/a/b", true);
  const InodePtr file = make("/a/b/c");
  EXPECT_EQ(find("a//b/./c"), file);
  EXPECT_EQ(find("/a/b/../b/c"), file);
  EXPECT_EQ(find("/../a/b/c/"), file);
  InodePtr found;
  EXPECT_EQ(disk_.find(disk_.root(), "/a/x", &found), ENOENT);
  EXPECT_EQ(disk_.find(disk_.root(), "/a/b/c/d", &found), ENOTDIR);
  EXPECT_EQ(disk_.create(find("/a"), "b", 0755, true, &found), EEXIST);
  EXPECT_EQ(disk_.remove_directory(disk_.root(), "a"), ENOTEMPTY);
  EXPECT_EQ(disk_.unlink(find("/a"), "b"), EISDIR);
  EXPECT_EQ(rename("/a", "/a/b/inside"), EINVAL);
  EXPECT_EQ(rename("/a/b", "/b"), 0);
  EXPECT_EQ(find("/b/c"), file);
  EXPECT_EQ(find("/b/.."), disk_.root());
  EXPECT_EQ(disk_.files("/"), std::vector<std::string>{"/b/c"});
}

TEST_F(DiskTest, ANameIsDurableWhenItsDirectoryWasSynced) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    Disk disk(1);
    InodePtr made;
    ASSERT_EQ(disk.create(disk.root(), "kept", 0644, false, &made), 0);
    disk.write(made, 0, "content");
    disk.end_sync(made, disk.begin_sync(made));
    disk.end_sync(disk.root(), disk.begin_sync(disk.root()));
    ASSERT_EQ(disk.create(disk.root(), "unsynced", 0644, false, &made), 0);
    disk.end_sync(made, disk.begin_sync(made));  // says nothing about its name
    disk.lose_power(random);
    InodePtr found;
    ASSERT_EQ(disk.find(disk.root(), "/kept", &found), 0);
    ASSERT_EQ(text_of(found->content), "content");
  }
  size_t lost = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    Disk disk(1);
    InodePtr made;
    ASSERT_EQ(disk.create(disk.root(), "unsynced", 0644, false, &made), 0);
    disk.lose_power(random);
    lost += disk.find(disk.root(), "/unsynced", &made) != 0;
  }
  EXPECT_GT(lost, 5u);
  EXPECT_LT(lost, 45u);
}

TEST_F(DiskTest, ARenameHappensWholeOrNotAtAll) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    Disk disk(1);
    for (const char* const name : {"old", "new"}) {
      InodePtr made;
      ASSERT_EQ(disk.create(disk.root(), name, 0644, false, &made), 0);
      disk.write(made, 0, name);
      disk.end_sync(made, disk.begin_sync(made));
    }
    disk.end_sync(disk.root(), disk.begin_sync(disk.root()));
    ASSERT_EQ(disk.rename(disk.root(), "new", disk.root(), "old", true), 0);
    disk.lose_power(random);
    std::string outcome;
    for (const auto& [name, inode] : disk.root()->entries) {
      outcome += name + "=" + text_of(inode->content) + " ";
    }
    outcomes.insert(outcome);
  }
  EXPECT_EQ(outcomes, (std::set<std::string>{"new=new old=old ", "old=new "}));
}

TEST_F(DiskTest, WhatWasSyncedOfANameIsNotUndoneByWhatCameBefore) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    Disk disk(1);
    InodePtr a;
    InodePtr b;
    InodePtr first;
    InodePtr second;
    ASSERT_EQ(disk.create(disk.root(), "a", 0755, true, &a), 0);
    ASSERT_EQ(disk.create(disk.root(), "b", 0755, true, &b), 0);
    disk.end_sync(disk.root(), disk.begin_sync(disk.root()));
    ASSERT_EQ(disk.create(b, "name", 0644, false, &first), 0);
    ASSERT_EQ(disk.create(a, "from", 0644, false, &second), 0);
    disk.write(second, 0, "second");
    disk.end_sync(second, disk.begin_sync(second));
    ASSERT_EQ(disk.rename(a, "from", b, "name", true), 0);
    disk.end_sync(a, disk.begin_sync(a));  // the rename, but not what `b` had before
    disk.lose_power(random);
    InodePtr found;
    ASSERT_EQ(disk.find(disk.root(), "/b/name", &found), 0);
    ASSERT_EQ(text_of(found->content), "second");
    ASSERT_NE(disk.find(disk.root(), "/a/from", &found), 0);
  }
}

TEST_F(DiskTest, HardLinksAreOneFileAlsoAfterTheLoss) {
  const InodePtr file = make("/one");
  write(file, "text");
  ASSERT_EQ(disk_.link(file, disk_.root(), "two"), 0);
  EXPECT_EQ(file->links, 2u);
  sync(file);
  sync(disk_.root());
  Random random(1);
  disk_.lose_power(random);
  EXPECT_EQ(find("/one"), find("/two"));
  EXPECT_EQ(find("/one")->links, 2u);
  EXPECT_EQ(disk_.unlink(disk_.root(), "one"), 0);
  EXPECT_EQ(text("/two"), "text");
}

TEST_F(DiskTest, RoomIsTakenUntilNobodyHasTheFile) {
  disk_.set_capacity_bytes(10 * 4096);
  const InodePtr file = make("/file");
  EXPECT_EQ(disk_.write(file, 0, std::string(8 * 4096, 'x')), 0);
  EXPECT_EQ(disk_.free_bytes(), 2u * 4096);
  EXPECT_EQ(disk_.write(file, 8 * 4096, std::string(3 * 4096, 'x')), ENOSPC);
  EXPECT_EQ(disk_.write(file, 0, "in place"), 0);
  disk_.opened(file);
  EXPECT_EQ(disk_.unlink(disk_.root(), "file"), 0);
  EXPECT_EQ(disk_.free_bytes(), 2u * 4096);
  disk_.closed(file);
  EXPECT_EQ(disk_.free_bytes(), 10u * 4096);
  const InodePtr other = make("/other");
  EXPECT_EQ(disk_.write(other, 0, std::string(4096, 'x')), 0);
  EXPECT_EQ(disk_.resize(other, 0), 0);
  EXPECT_EQ(disk_.free_bytes(), 10u * 4096);
}

TEST_F(DiskTest, ATreeIsKeptAndPutBackOrElsewhere) {
  make("/data", true);
  const InodePtr file = make("/data/file");
  write(file, "then");
  ASSERT_EQ(disk_.link(file, find("/data"), "link"), 0);
  const Disk::Tree then = disk_.snapshot("/data");
  write(file, "now!");
  make("/data/later");
  EXPECT_EQ(disk_.restore("/copy", then), 0);
  EXPECT_EQ(text("/copy/file"), "then");
  EXPECT_EQ(text("/data/file"), "now!");
  EXPECT_EQ(disk_.restore("/data", then), 0);
  EXPECT_EQ(text("/data/file"), "then");
  EXPECT_EQ(find("/data/link"), find("/data/file"));
  EXPECT_EQ(find("/data/later"), nullptr);
  const uint64_t free = disk_.free_bytes();
  Random random(3);
  disk_.lose_power(random);
  EXPECT_EQ(text("/data/file"), "then");
  EXPECT_EQ(text("/copy/link"), "then");
  EXPECT_EQ(disk_.free_bytes(), free);
  Disk other(2);
  EXPECT_EQ(other.restore("/moved", then), 0);
  EXPECT_EQ(disk_.restore("/data", nullptr), 0);
  EXPECT_EQ(find("/data"), nullptr);
  EXPECT_EQ(disk_.snapshot("/data"), nullptr);
  EXPECT_EQ(other.flip_bit("/moved/file", 3, 0), 0);
  InodePtr found;
  ASSERT_EQ(other.find(other.root(), "/moved/file", &found), 0);
  EXPECT_EQ(text_of(found->content), "theo");
  EXPECT_EQ(other.flip_bit("/moved/file", 4, 0), EINVAL);
}

}  // namespace
}  // namespace sluice::simulation

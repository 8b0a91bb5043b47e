// What a tree has beside names and content, through an import and an export.
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <set>
#include <utility>

#include "base/bytes.h"
#include "tests/tree/tree_fixture.h"
#include "tree/extents.h"

namespace sluice {
namespace {

class TreeMetadata : public Tree {
 protected:
  static struct stat status_of(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(lstat(path.c_str(), &info), 0) << path;
    return info;
  }
  static std::string attribute(const fs::path& path, const char* name) {
    std::string value(1 << 16, '\0');
    const ssize_t size = lgetxattr(path.c_str(), name, value.data(), value.size());
    return size < 0 ? "(none)" : value.substr(0, static_cast<size_t>(size));
  }
  static std::vector<Extent> extents_of(const fs::path& path) {
    const UniqueFd fd(open(path.c_str(), O_RDONLY));
    return *ExtentReader(fd.get(), fs::file_size(path), UINT64_MAX).next();
  }
  static void write_at(const fs::path& path, off_t offset, std::string_view bytes) {
    const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT, 0644));
    ASSERT_EQ(pwrite(fd.get(), bytes.data(), bytes.size(), offset),
              static_cast<ssize_t>(bytes.size()));
  }
  void expect_no_failures(const TreeExportResult& result) {
    EXPECT_EQ(result.failures.count, 0u)
        << (result.failures.first.empty() ? "" : result.failures.first[0].reason);
    EXPECT_EQ(result.damaged.count, 0u)
        << (result.damaged.first.empty() ? "" : result.damaged.first[0].reason);
    EXPECT_EQ(result.other_records, 0u);
  }
};

// An access list with an entry for user 65534, as the kernel has it.
std::string access_list() {
  std::string list("\2\0\0\0", 4);
  const auto entry = [&](uint16_t tag, uint16_t permissions, uint32_t id) {
    ByteWriter out(&list);
    out.put(tag);
    out.put(permissions);
    out.put(id);
  };
  entry(1, 6, ~0u);     // the owner
  entry(2, 4, 65534);   // a user
  entry(4, 4, ~0u);     // the group
  entry(0x10, 4, ~0u);  // the mask
  entry(0x20, 0, ~0u);  // others
  return list;
}

TEST_F(TreeMetadata, HolesComeBackAndCostNothing) {
  constexpr off_t kTerabyte = off_t{1} << 40;
  write_at(in() / "sparse", kTerabyte / 2, "data");
  ASSERT_EQ(truncate((in() / "sparse").c_str(), kTerabyte), 0);
  write(in() / "hole", "");
  ASSERT_EQ(truncate((in() / "hole").c_str(), 4 * kTreeChunkBytes), 0);
  write(in() / "ends", random_bytes(10'000, 1));
  ASSERT_EQ(truncate((in() / "ends").c_str(), 3 << 20), 0);
  // Several chunks of data among holes, each of which begins in the middle of an extent or not.
  for (int i = 0; i < 9; ++i)
    write_at(in() / "many", off_t{i} * (5 << 20) + 4096 * i, random_bytes(700'000, 2 + i));
  ASSERT_EQ(truncate((in() / "many").c_str(), kTerabyte), 0);
  const TreeImportResult imported = import("p/");
  EXPECT_EQ(imported.failures.count, 0u);
  EXPECT_LT(imported.bytes, 8u << 20);
  // Five entries, and for one of them seven chunks with a generation.
  EXPECT_EQ(records_.records().size(), 5u + 7u + 1u);
  for (uint64_t seed = 1; seed < 5; ++seed) {
    records_.shuffle(seed);
    expect_no_failures(export_to_out("p/"));
    for (const char* name : {"sparse", "hole", "ends", "many"}) {
      EXPECT_EQ(extents_of(out() / name), extents_of(in() / name)) << name;
      EXPECT_EQ(fs::file_size(out() / name), fs::file_size(in() / name)) << name;
    }
    EXPECT_EQ(*read_file(out() / "ends", 1 << 30), *read_file(in() / "ends", 1 << 30));
    for (const Extent& extent : extents_of(in() / "many")) {
      std::string one(extent.length, 'a');
      std::string two(extent.length, 'b');
      for (auto& [tree, bytes] : {std::pair<fs::path, std::string*>(in(), &one), {out(), &two}}) {
        const UniqueFd fd(open((tree / "many").c_str(), O_RDONLY));
        ASSERT_TRUE(*read_extents(fd.get(), {extent}, bytes->data()));
      }
      EXPECT_TRUE(one == two);
    }
  }
  // The chunks of such a file are removed with it.
  write(in() / "many", "small now");
  EXPECT_EQ(import("p/").removed, 8u);
  EXPECT_EQ(records_.records().size(), 5u);
}

TEST_F(TreeMetadata, NamesOfAFileStayNamesOfOne) {
  write(in() / "b/first", "small");
  write(in() / "large", random_bytes(3 * kTreeChunkBytes, 1));
  fs::create_directories(in() / "a/deep");
  fs::create_hard_link(in() / "b/first", in() / "a/deep/second");
  fs::create_hard_link(in() / "b/first", in() / "third");
  fs::create_hard_link(in() / "large", in() / "a/large");
  fs::create_symlink("nowhere", in() / "link");
  fs::create_hard_link(in() / "link", in() / "a/link");
  for (const char* prefix : {"", "p", "p/"}) {
    records_.records().clear();
    const TreeImportResult imported = import(prefix);
    EXPECT_EQ(imported.failures.count, 0u);
    EXPECT_EQ(imported.files, 5u);
    EXPECT_EQ(imported.hard_links, 4u);
    // Four directories, six names, a link and its second name, chunks and their generation.
    EXPECT_EQ(records_.records().size(), 4u + 7u + 4u);
    records_.shuffle(std::string_view(prefix).size());
    const TreeExportResult exported = export_to_out(prefix);
    expect_no_failures(exported);
    EXPECT_EQ(exported.files, 5u);
    EXPECT_EQ(exported.hard_links, 4u);
    EXPECT_EQ(picture(out()), picture(in()));
    const auto same = [&](const char* one, const char* two) {
      return status_of(out() / one).st_ino == status_of(out() / two).st_ino;
    };
    EXPECT_TRUE(same("b/first", "a/deep/second") && same("b/first", "third"));
    EXPECT_TRUE(same("large", "a/large"));
    EXPECT_TRUE(same("link", "a/link"));
    EXPECT_FALSE(same("large", "third"));
    // Once more into what is there already.
    expect_no_failures(export_to_out(prefix));
    EXPECT_EQ(picture(out()), picture(in()));
    for (const auto& entry : fs::recursive_directory_iterator(out()))
      EXPECT_EQ(entry.path().string().find(".sluice"), std::string::npos) << entry.path();
    // A part of the tree that has not the name with the content.
    fs::remove_all(out());
    expect_no_failures(export_to_out(std::string(prefix) + "b/"));
    EXPECT_EQ(*read_file(out() / "first", 100), "small");
    fs::remove_all(out());
    const TreeExportResult above = export_to_out("");
    EXPECT_EQ(above.failures.count + above.damaged.count, 0u);
    fs::remove_all(out());
  }
}

TEST_F(TreeMetadata, OtherNamesFollowWhenTheFirstIsNotThereAnyMore) {
  write(in() / "a", "content");
  fs::create_hard_link(in() / "a", in() / "b");
  fs::create_hard_link(in() / "a", in() / "c");
  records_.before_put([&](std::string_view key) {
    if (key == ".") fs::remove(in() / "a");
  });
  const TreeImportResult imported = import();
  EXPECT_LE(imported.failures.count, 1u);
  EXPECT_EQ(imported.files, 2u);
  records_.before_put(nullptr);
  expect_no_failures(export_to_out());
  auto one = picture(out());
  auto two = picture(in());
  for (auto* tree : {&one, &two}) tree->erase(".");  // it changed after it was imported
  EXPECT_EQ(one, two);
}

// No entry may name one whose content is not there.
TEST_F(TreeMetadata, WhateverIsWrittenOtherNamesHaveContent) {
  for (const bool large : {false, true}) {
    records_.records().clear();
    const std::string content = random_bytes(large ? 2 * kTreeChunkBytes : 100, 1);
    write(in() / "a", content);
    for (const char* name : {"b", "c"}) fs::remove(in() / name);
    fs::create_hard_link(in() / "a", in() / "b");
    import();
    const auto before = records_.records();
    // The content is now to be with the other name.
    fs::remove(in() / "a");
    fs::create_hard_link(in() / "b", in() / "c");
    for (size_t steps = 0; steps < 12; ++steps) {
      records_.records() = before;
      size_t puts = 0;
      records_.refuse([&](std::string_view) { return puts++ >= steps; });
      import();
      records_.refuse(nullptr);
      fs::remove_all(out());
      const TreeExportResult result = export_to_out();
      ASSERT_EQ(result.damaged.count + result.failures.count, 0u) << steps;
      EXPECT_TRUE(*read_file(out() / "a", 1 << 30) == content) << steps;
      EXPECT_TRUE(*read_file(out() / "b", 1 << 30) == content) << steps;
    }
  }
}

// The name that had the content may have become one of another file, which has other names itself.
TEST_F(TreeMetadata, ANameIsNotGivenAnotherFilesContent) {
  for (const bool same_content : {false, true}) {
    records_.records().clear();
    fs::remove_all(in());
    write(in() / "a", "content");
    fs::create_hard_link(in() / "a", in() / "b");
    import();
    const auto imported = records_.records();
    const bool a_is_first = imported.at("a").size() > imported.at("b").size();
    const std::string first = a_is_first ? "a" : "b";
    const std::string other = a_is_first ? "b" : "a";
    fs::remove(in() / first);
    write(in() / first, same_content ? "content" : "another file");
    fs::create_hard_link(in() / first, in() / "c");
    // An import that does not come to the other name.
    records_.refuse([&](std::string_view key) { return key == other; });
    import();
    records_.refuse(nullptr);
    fs::remove_all(out());
    const TreeExportResult exported = export_to_out();
    EXPECT_EQ(exported.damaged.count, same_content ? 0u : 1u);
    EXPECT_EQ(fs::exists(out() / other), same_content);
    if (same_content) {
      EXPECT_EQ(*read_file(out() / other, 100), "content");
    }
    import();
    fs::remove_all(out());
    expect_no_failures(export_to_out());
    EXPECT_EQ(*read_file(out() / other, 100), "content");
    EXPECT_EQ(*read_file(out() / "c", 100), same_content ? "content" : "another file");
  }
}

TEST_F(TreeMetadata, AttributesListsAndPipesComeBack) {
  write(in() / "file", "x");
  write(in() / "plain", "x");
  fs::create_directories(in() / "directory/below");
  if (setxattr((in() / "file").c_str(), "user.note", "kept\0too", 8, 0) != 0)
    GTEST_SKIP() << "no extended attributes here";
  setxattr((in() / "file").c_str(), "user.empty", "", 0, 0);
  setxattr((in() / "file").c_str(), "user.large", std::string(3000, 'v').data(), 3000, 0);
  setxattr((in() / "directory").c_str(), "user.of-directory", "y", 1, 0);
  const std::string list = access_list();
  for (const char* name : {"system.posix_acl_access", "system.posix_acl_default"}) {
    ASSERT_EQ(setxattr((in() / "directory").c_str(), name, list.data(), list.size(), 0), 0);
  }
  ASSERT_EQ(
      setxattr((in() / "file").c_str(), "system.posix_acl_access", list.data(), list.size(), 0), 0);
  ASSERT_EQ(mkfifo((in() / "pipe").c_str(), 0620), 0);
  set_time(in() / "pipe", 1'234'567, 89);
  import();
  fs::create_directories(out() / "directory");
  setxattr((out() / "directory").c_str(), "user.of-another", "y", 1, 0);
  const TreeExportResult exported = export_to_out();
  expect_no_failures(exported);
  EXPECT_EQ(exported.not_set.sum(), 0u);
  EXPECT_EQ(exported.specials, 1u);
  EXPECT_EQ(picture(out()), picture(in()));
  for (const char* path : {"file", "plain", "directory", "directory/below", "."}) {
    for (const char* name :
         {"user.note", "user.empty", "user.large", "user.of-directory", "user.of-another",
          "system.posix_acl_access", "system.posix_acl_default"}) {
      EXPECT_EQ(attribute(out() / path, name), attribute(in() / path, name)) << path << " " << name;
    }
  }
  EXPECT_TRUE(S_ISFIFO(status_of(out() / "pipe").st_mode));
}

TEST_F(TreeMetadata, OwnersCapabilitiesAndDevicesComeBackForRoot) {
  if (geteuid() != 0) GTEST_SKIP() << "not root";
  write(in() / "owned", "x");
  ASSERT_EQ(lchown((in() / "owned").c_str(), 12345, 54321), 0);
  ASSERT_EQ(chmod((in() / "owned").c_str(), 06755), 0);
  // cap_net_raw, effective and permitted.
  const std::string capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  ASSERT_EQ(setxattr((in() / "owned").c_str(), "security.capability", capability.data(),
                     capability.size(), 0),
            0);
  fs::create_symlink("x", in() / "link");
  ASSERT_EQ(lchown((in() / "link").c_str(), 7, 8), 0);
  fs::create_directories(in() / "sticky");
  ASSERT_EQ(lchown((in() / "sticky").c_str(), 65534, 65534), 0);
  ASSERT_EQ(chmod((in() / "sticky").c_str(), 03777), 0);
  ASSERT_EQ(mknod((in() / "null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  ASSERT_EQ(mknod((in() / "disk").c_str(), S_IFBLK | 0660, makedev(259, 70000)), 0);
  import();
  const TreeExportResult exported = export_to_out();
  expect_no_failures(exported);
  EXPECT_EQ(exported.not_set.sum(), 0u);
  EXPECT_EQ(picture(out()), picture(in()));
  for (const char* path : {"owned", "link", "sticky", "null", "disk"}) {
    const struct stat one = status_of(in() / path);
    const struct stat two = status_of(out() / path);
    EXPECT_EQ(one.st_uid, two.st_uid) << path;
    EXPECT_EQ(one.st_gid, two.st_gid) << path;
    EXPECT_EQ(one.st_mode, two.st_mode) << path;
    EXPECT_EQ(one.st_rdev, two.st_rdev) << path;
  }
  EXPECT_EQ(attribute(out() / "owned", "security.capability"), capability);

  // The same as somebody else: each kind is counted, nothing fails.
  ASSERT_EQ(chmod(root_.c_str(), 0777), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(100);
    StreamProgress progress;
    const auto result = export_tree(target(root_ / "user"), records_, progress);
    if (!result.ok() || result->failures.count + result->damaged.count > 0) _exit(1);
    // The root, the file and the link; the directory is the user's own.
    const NotSet& not_set = result->not_set;
    if (not_set.owner != 3 || not_set.set_id != 1) _exit(2);
    if (not_set.capability != 1 || not_set.device != 2) _exit(3);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// Owners are who they are called, where the system knows them.
TEST_F(TreeMetadata, OwnersGoByName) {
  if (geteuid() != 0) GTEST_SKIP() << "not root";
  write(in() / "file", "x");
  import();
  auto entry = *parse_tree_entry(records_.records()["file"]);
  EXPECT_EQ(entry.extras.user, "root");
  TreeHeader header = entry.header;
  header.uid = 4711;
  header.gid = 4712;
  entry.extras.group = "nobody-knows-this-group";
  const std::string changed = encode_tree_entry(header, entry.extras).append(entry.content);
  records_.records()["file"] = changed;
  export_to_out();
  EXPECT_EQ(status_of(out() / "file").st_uid, 0u);
  EXPECT_EQ(status_of(out() / "file").st_gid, 4712u);
  TreeExportOptions numeric = target(out());
  numeric.target.numeric_owner = true;
  StreamProgress progress;
  ASSERT_TRUE(export_tree(numeric, records_, progress).ok());
  EXPECT_EQ(status_of(out() / "file").st_uid, 4711u);
}

// What layout 2 had is read still.
TEST_F(TreeMetadata, EntriesOfTheEarlierLayoutAreExported) {
  put_file("file", "old", 0640, getuid(), getgid());
  put_link("link", "file");
  EXPECT_EQ(records_.records()["file"][4], 2);
  const TreeExportResult exported = export_to_out();
  expect_no_failures(exported);
  EXPECT_EQ(*read_file(out() / "file", 100), "old");
  EXPECT_EQ(fs::read_symlink(out() / "link"), "file");
}

TEST_F(TreeMetadata, AFileTakesTheDirectorysPlaceAndTheReverse) {
  write(in() / "d/x", "1");
  write(in() / "d/e/y", "2");
  write(in() / "becomes", "5");
  fs::create_symlink("becomes", in() / "link");
  import("p/");
  expect_no_failures(export_to_out("p/"));
  const fs::path earlier = root_ / "earlier";
  fs::rename(out(), earlier);
  fs::remove_all(in() / "d");
  write(in() / "d", "a file now");
  for (const char* name : {"becomes", "link"}) {
    fs::remove(in() / name);
    write(in() / name / "z", "6");
  }
  import("p/");
  for (uint64_t seed = 1; seed < 20; ++seed) {
    records_.shuffle(seed);
    fs::remove_all(out());
    const TreeExportResult fresh = export_to_out("p/");
    expect_no_failures(fresh);
    EXPECT_EQ(picture(out()), picture(in())) << seed;
    EXPECT_EQ(fresh.files, 3u) << seed;
    EXPECT_EQ(fresh.superseded, 3u) << seed;
  }
  // Over an earlier export: a directory with things in it stays unless it is asked for.
  fs::remove_all(out());
  fs::copy(earlier, out(), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  const TreeExportResult refused = export_to_out("p/");
  EXPECT_EQ(refused.failures.count, 1u);
  EXPECT_TRUE(fs::exists(out() / "d/x"));
  EXPECT_EQ(*read_file(out() / "becomes/z", 100), "6");
  TreeExportOptions force = target(out(), "p/");
  force.target.replace_directories = true;
  StreamProgress progress;
  const auto forced = export_tree(force, records_, progress);
  ASSERT_TRUE(forced.ok());
  expect_no_failures(*forced);
  EXPECT_EQ(picture(out()), picture(in()));
}

}  // namespace
}  // namespace sluice

#include "tree/tree_writer.h"

#include <sys/mount.h>
#include <sys/xattr.h>

#include "tests/tree/tree_fixture.h"
#include "tree/tree_file.h"

namespace sluice {
namespace {

class Writer : public Tree {
 protected:
  std::unique_ptr<TreeWriter> open_writer(InTheWay answer = InTheWay::kRefuse, bool force = false) {
    TreeWriterOptions options;
    options.directory = out();
    options.replace_directories = force;
    auto writer = TreeWriter::open(options, [answer](const std::string&) { return answer; });
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }
  static FileMetadata metadata(std::string_view content, uint16_t mode = 0640) {
    FileMetadata metadata;
    metadata.mode = mode;
    metadata.uid = geteuid();
    metadata.gid = getegid();
    metadata.mtime_seconds = 1'700'000'000;
    metadata.size = content.size();
    return metadata;
  }
  static absl::Status put(TreeWriter& writer, const std::string& path, std::string_view content,
                          const FileMetadata& metadata) {
    const std::string staged = writer.stage_name();
    SLUICE_ASSIGN_OR_RETURN(UniqueFd fd, writer.stage(staged));
    SLUICE_RETURN_IF_ERROR(TreeWriter::write(fd.get(), {{0, content.size()}}, content));
    return writer.place(std::move(fd), staged, path, metadata);
  }
  // Names that should not be there any more.
  int stray_names() const {
    int found = 0;
    for (const auto& entry : fs::recursive_directory_iterator(out()))
      found += entry.path().filename().string().starts_with(".sluice-export") ? 1 : 0;
    return found;
  }
};

TEST_F(Writer, FilesHaveTheirMetadataWhenTheyAppear) {
  const auto writer = open_writer();
  FileMetadata all = metadata("content", 04711);
  all.attributes = {{"user.note", "kept"}};
  ASSERT_TRUE(put(*writer, "a/b/file", "content", all).ok());
  struct stat info {};
  ASSERT_EQ(stat((out() / "a/b/file").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 04711u);
  EXPECT_EQ(info.st_mtim.tv_sec, 1'700'000'000);
  EXPECT_EQ(*read_file(out() / "a/b/file", 100), "content");
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_EQ(stray_names(), 0);
}

TEST_F(Writer, NobodyElseCanEnterWhatIsNotInPlaceYet) {
  const auto writer = open_writer();
  ASSERT_TRUE(writer->stage(writer->stage_name()).ok());
  for (const auto& entry : fs::directory_iterator(out())) {
    struct stat info {};
    ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0700u);
  }
}

// A list that a directory hands down would give rights that were not recorded.
TEST_F(Writer, ListsThatDirectoriesHandDownAreNotTakenOver) {
  fs::create_directories(out());
  const std::string list(
      "\2\0\0\0\1\0\7\0\xff\xff\xff\xff\2\0\7\0\xfe\xff\0\0\4\0\5\0\xff\xff\xff\xff\x10\0\7\0"
      "\xff\xff\xff\xff\x20\0\5\0\xff\xff\xff\xff",
      44);
  if (setxattr(out().c_str(), "system.posix_acl_default", list.data(), list.size(), 0) != 0)
    GTEST_SKIP() << "no lists here";
  const auto writer = open_writer();
  ASSERT_TRUE(put(*writer, "file", "x", metadata("x")).ok());
  ASSERT_TRUE(writer->make_directory("directory").ok());
  FileMetadata of_directory = metadata("");
  of_directory.type = FileType::kDirectory;
  ASSERT_TRUE(writer->finish_directory("directory", of_directory).ok());
  for (const char* name : {"file", "directory"}) {
    EXPECT_LT(getxattr((out() / name).c_str(), "system.posix_acl_access", nullptr, 0), 0) << name;
    EXPECT_LT(getxattr((out() / name).c_str(), "system.posix_acl_default", nullptr, 0), 0) << name;
  }
}

TEST_F(Writer, LinksOnTheDiskLeadNowhere) {
  const fs::path outside = root_ / "outside";
  fs::create_directories(outside / "deep");
  write(outside / "file", "untouched");
  fs::create_directories(out());
  fs::create_symlink(outside, out() / "link");
  fs::create_symlink(outside / "file", out() / "file");
  const auto writer = open_writer();
  EXPECT_FALSE(put(*writer, "link/new", "x", metadata("x")).ok());
  EXPECT_FALSE(put(*writer, "link/deep/new", "x", metadata("x")).ok());
  EXPECT_TRUE(put(*writer, "file", "x", metadata("x")).ok()) << "takes the link's place";
  EXPECT_EQ(*read_file(outside / "file", 100), "untouched");
  const auto replacing = open_writer(InTheWay::kReplace);
  EXPECT_TRUE(put(*replacing, "link/new", "x", metadata("x")).ok());
  EXPECT_FALSE(fs::exists(outside / "new"));
  EXPECT_TRUE(fs::is_directory(fs::symlink_status(out() / "link")));
}

TEST_F(Writer, DirectoriesThatAreReplacedAreRemovedWhole) {
  write(out() / "kept/file", "x");
  for (int i = 0; i < 10; ++i) write(out() / fmt::format("d/{}/file", i), "x");
  ASSERT_EQ(chmod((out() / "d/3").c_str(), 0), 0);
  {
    // Deeper than one path reaches.
    UniqueFd at(open((out() / "d").c_str(), O_RDONLY | O_DIRECTORY));
    const std::string name(100, 'n');
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(mkdirat(at.get(), name.c_str(), 0700), 0);
      at.reset(openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY));
      ASSERT_TRUE(at);
    }
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(put(*open_writer(), "d", "x", metadata("x"))));
  EXPECT_TRUE(fs::exists(out() / "d/1/file"));
  const auto writer = open_writer(InTheWay::kRefuse, true);
  EXPECT_TRUE(put(*writer, "d", "now a file", metadata("now a file")).ok());
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_EQ(*read_file(out() / "d", 100), "now a file");
  EXPECT_TRUE(fs::exists(out() / "kept/file"));
  EXPECT_EQ(stray_names(), 0);
}

TEST_F(Writer, WhatIsMountedInTheTargetIsWrittenToo) {
  fs::create_directories(out() / "mounted");
  if (mount("none", (out() / "mounted").c_str(), "tmpfs", 0, "size=4m") != 0)
    GTEST_SKIP() << "cannot mount";
  std::string found;
  bool sparse = false;
  int strays = 0;
  {
    const auto writer = open_writer();
    const std::string staged = writer->stage_name();
    {
      const auto fd = writer->stage(staged);
      EXPECT_TRUE(TreeWriter::write(fd->get(), {{1 << 20, 4}}, "data").ok());
    }
    FileMetadata all = metadata("", 0604);
    all.size = 64 << 20;
    EXPECT_TRUE(writer->place(staged, "mounted/d/sparse", all).ok());
    EXPECT_TRUE(writer->finish().ok());
    struct stat info {};
    EXPECT_EQ(stat((out() / "mounted/d/sparse").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0604u);
    EXPECT_EQ(info.st_mtim.tv_sec, 1'700'000'000);
    sparse = info.st_size == 64 << 20 && info.st_blocks * 512 < 1 << 20;
    std::ifstream file(out() / "mounted/d/sparse");
    file.seekg(1 << 20);
    found.resize(4);
    file.read(found.data(), 4);
    strays = stray_names();
  }
  umount((out() / "mounted").c_str());
  EXPECT_EQ(found, "data");
  EXPECT_TRUE(sparse);
  EXPECT_EQ(strays, 0);
}

TEST_F(Writer, AFileThatChangesWhileItIsReadIsSeenTo) {
  write(in() / "file", "content");
  const UniqueFd root(open(in().c_str(), O_RDONLY | O_DIRECTORY));
  OwnerNames names;
  const auto changes = [&](const std::function<void()>& change) {
    const auto file = TreeFile::open(root.get(), "file", names);
    EXPECT_TRUE(file.ok());
    EXPECT_FALSE(*file->changed());
    change();
    return *file->changed();
  };
  EXPECT_FALSE(changes([] {}));
  // Same size, and soon after it was opened.
  EXPECT_TRUE(changes([&] { std::ofstream(in() / "file") << "CONTENT"; }));
  EXPECT_TRUE(changes([&] { set_time(in() / "file", 1, 0); }));
  // And with the time of modification that it had.
  EXPECT_TRUE(changes([&] {
    std::ofstream(in() / "file") << "another";
    set_time(in() / "file", 1, 0);
  }));
  EXPECT_TRUE(changes([&] { fs::resize_file(in() / "file", 3); }));
  EXPECT_TRUE(absl::IsNotFound(TreeFile::open(root.get(), "absent", names).status()));
  fs::create_symlink("file", in() / "link");
  EXPECT_FALSE(TreeFile::open(root.get(), "link", names).ok());
  ASSERT_EQ(mkfifo((in() / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsAborted(TreeFile::open(root.get(), "pipe", names).status()));
}

}  // namespace
}  // namespace sluice

#include "tree/pax_writer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "tests/tree/tree_fixture.h"

namespace sluice {
namespace {

using std::string_literals::operator""s;

FileMetadata metadata(FileType type, uint16_t mode, uint64_t size = 0) {
  FileMetadata made;
  made.type = type;
  made.mode = mode;
  made.uid = 1001;
  made.gid = 1002;
  made.mtime_seconds = 1'700'000'000;
  made.mtime_nanoseconds = 123'456'789;
  made.size = size;
  return made;
}

SparseMap map_of(const std::vector<Extent>& extents) {
  SparseMap map;
  for (const Extent& extent : extents) map.add(extent);
  return map;
}

TEST(SparseMap, JoinsWhatTouches) {
  EXPECT_EQ(map_of({{0, 4}, {4, 4}, {9, 1}, {12, 0}}).data(),
            (std::vector<Extent>{{0, 8}, {9, 1}}));
}

TEST(SparseMap, GivesUpTheSmallestHolesWhereThereAreMany) {
  SparseMap map(4);
  for (const Extent& extent :
       std::vector<Extent>{{0, 10}, {12, 10}, {1000, 10}, {1013, 10}, {90'000, 1}}) {
    map.add(extent);
  }
  EXPECT_EQ(map.data(), (std::vector<Extent>{{0, 22}, {1000, 23}, {90'000, 1}}));
}

// Archives that GNU tar reads.
class PaxWriterTest : public Tree {
 protected:
  absl::Status add_file(const std::string& path, const std::string& content, uint16_t mode = 0644) {
    SLUICE_RETURN_IF_ERROR(writer_.begin_file(path, metadata(FileType::kFile, mode, content.size()),
                                              map_of({{0, content.size()}})));
    SLUICE_RETURN_IF_ERROR(writer_.write(0, content));
    return writer_.end_file();
  }
  void finish() {
    ASSERT_TRUE(writer_.finish().ok());
    EXPECT_EQ(archive_.size() % 10240, 0U);
    write(file(), archive_);
  }
  // Whether the command succeeds without a word.
  bool tar(const std::string& arguments) {
    fs::create_directories(out());
    const std::string command = "TZ=UTC tar " + arguments + " -f '" + file().string() + "' > '" +
                                (root_ / "said").string() + "' 2>&1 -C '" + out().string() + "'";
    return std::system(command.c_str()) == 0;
  }
  std::string said() { return *read_file(root_ / "said", 1 << 20); }
  void extract() { ASSERT_TRUE(tar("-x -p") && said().empty()) << said(); }
  fs::path file() const { return root_ / "archive.tar"; }
  std::string content(const std::string& path) { return *read_file(out() / path, 1 << 30); }
  struct stat look(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(lstat((out() / path).c_str(), &info), 0) << path;
    return info;
  }

  std::string archive_;
  PaxWriter writer_{[this](std::string_view bytes) {
    archive_ += bytes;
    return absl::OkStatus();
  }};
};

TEST_F(PaxWriterTest, AnEmptyArchive) {
  finish();
  EXPECT_EQ(archive_, std::string(10240, '\0'));
  EXPECT_TRUE(tar("-t") && said().empty()) << said();
}

TEST_F(PaxWriterTest, EveryKindOfEntry) {
  ASSERT_TRUE(writer_.add(".", metadata(FileType::kDirectory, 0755)).ok());
  ASSERT_TRUE(writer_.add("dir", metadata(FileType::kDirectory, 01777)).ok());
  ASSERT_TRUE(add_file("dir/file", "content", 04755).ok());
  ASSERT_TRUE(add_file("empty", "").ok());
  ASSERT_TRUE(add_file("block", std::string(512, 'b')).ok());
  FileMetadata link = metadata(FileType::kLink, 0777);
  link.target = "dir/file";
  ASSERT_TRUE(writer_.add("link", link).ok());
  ASSERT_TRUE(writer_.add("pipe", metadata(FileType::kPipe, 0600)).ok());
  ASSERT_TRUE(
      writer_.add_hard_link("other name", "dir/file", metadata(FileType::kFile, 04755)).ok());
  finish();
  ASSERT_TRUE(tar("-t"));
  EXPECT_EQ(said(), "./\ndir/\ndir/file\nempty\nblock\nlink\npipe\nother name\n");
  extract();
  EXPECT_EQ(content("dir/file"), "content");
  EXPECT_EQ(content("empty"), "");
  EXPECT_EQ(content("block"), std::string(512, 'b'));
  EXPECT_EQ(fs::read_symlink(out() / "link"), "dir/file");
  EXPECT_EQ(look("dir").st_mode, S_IFDIR | 01777U);
  EXPECT_EQ(look("pipe").st_mode, S_IFIFO | 0600U);
  EXPECT_EQ(look("dir/file").st_ino, look("other name").st_ino);
  for (const char* path : {".", "dir", "dir/file", "link", "pipe"}) {
    EXPECT_EQ(look(path).st_mtim.tv_sec, 1'700'000'000) << path;
    EXPECT_EQ(look(path).st_mtim.tv_nsec, 123'456'789) << path;
  }
  if (geteuid() == 0) {
    EXPECT_EQ(look("dir/file").st_mode, S_IFREG | 04755U);
    EXPECT_EQ(look("dir/file").st_uid, 1001U);
    EXPECT_EQ(look("dir/file").st_gid, 1002U);
  }
}

TEST_F(PaxWriterTest, NamesOfAnyBytesAndLength) {
  std::string all;
  for (int byte = 1; byte < 256; ++byte) {
    if (byte != '/') all.push_back(static_cast<char>(byte));
  }
  std::string deep;
  for (char c = 'a'; c < 'm'; ++c) deep += std::string(255, c) + "/";
  const std::vector<std::string> names = {all,
                                          std::string(100, 'x'),
                                          std::string(101, 'x'),
                                          std::string(255, '\xff'),
                                          "-rf",
                                          " ",
                                          "new\nline",
                                          deep + "end",
                                          deep + "end2"};
  for (size_t i = 0; i < names.size(); ++i) {
    ASSERT_TRUE(add_file(names[i], std::to_string(i)).ok());
  }
  // A file that is named by a target as odd as itself.
  ASSERT_TRUE(writer_.add_hard_link("a link", names[3], metadata(FileType::kFile, 0644)).ok());
  FileMetadata link = metadata(FileType::kLink, 0777);
  link.target = std::string(200, 't') + "\xe9";
  ASSERT_TRUE(writer_.add("b link", link).ok());
  finish();
  extract();
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(content(names[i]), std::to_string(i));
  EXPECT_EQ(content("a link"), "3");
  EXPECT_EQ(fs::read_symlink(out() / "b link").string(), link.target);
}

TEST_F(PaxWriterTest, RefusesNamesThatNoFileHas) {
  EXPECT_EQ(writer_.add("", metadata(FileType::kDirectory, 0755)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(add_file("a\0b"s, "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(writer_.add_hard_link("a", "", metadata(FileType::kFile, 0644)).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(PaxWriterTest, NumbersThatAreLarge) {
  FileMetadata made = metadata(FileType::kFile, 0644, 5);
  made.uid = 4'000'000'000;
  made.gid = 2'097'152;
  made.user = std::string(40, 'u');
  made.group = "gr\xc3\xbc";
  made.mtime_seconds = -2;
  made.mtime_nanoseconds = 500'000'000;
  ASSERT_TRUE(writer_.begin_file("file", made, map_of({{0, 5}})).ok());
  ASSERT_TRUE(writer_.write(0, "12345").ok());
  ASSERT_TRUE(writer_.end_file().ok());
  FileMetadata device = metadata(FileType::kCharacterDevice, 0600);
  device.device_major = 3'000'000;
  device.device_minor = 7;
  ASSERT_TRUE(writer_.add("device", device).ok());
  finish();
  ASSERT_TRUE(tar("-tv --numeric-owner"));
  EXPECT_NE(said().find("4000000000/2097152"), std::string::npos) << said();
  EXPECT_NE(said().find("3000000,7"), std::string::npos) << said();
  ASSERT_TRUE(tar("-tv"));
  EXPECT_NE(said().find(made.user + "/gr\xc3\xbc"), std::string::npos) << said();
  ASSERT_TRUE(tar("-x --no-same-owner --exclude device")) << said();
  EXPECT_EQ(look("file").st_mtim.tv_sec, -2);
  EXPECT_EQ(look("file").st_mtim.tv_nsec, 500'000'000);
}

// The header alone: its content would be as large.
TEST_F(PaxWriterTest, AFileOfMoreThanEightGibibytes) {
  const uint64_t size = (uint64_t{8} << 30) + 1;
  ASSERT_TRUE(
      writer_.begin_file("large", metadata(FileType::kFile, 0644, size), map_of({{0, size}})).ok());
  EXPECT_NE(archive_.find(" size=8589934593\n"), std::string::npos);
}

TEST_F(PaxWriterTest, HolesCostNothing) {
  const uint64_t size = uint64_t{1} << 40;
  const std::string name = "sub/" + std::string(150, 'h') + "\xff";
  ASSERT_TRUE(writer_
                  .begin_file(name, metadata(FileType::kFile, 0644, size),
                              map_of({{4096, 8192}, {uint64_t{1} << 39, 4096}}))
                  .ok());
  ASSERT_TRUE(writer_.write(4096, std::string(5000, 'a')).ok());
  ASSERT_TRUE(writer_.write((uint64_t{1} << 39) + 100, "b").ok());
  ASSERT_TRUE(writer_.end_file().ok());
  ASSERT_TRUE(
      writer_.begin_file("hole", metadata(FileType::kFile, 0644, 1 << 20), SparseMap()).ok());
  ASSERT_TRUE(writer_.end_file().ok());
  ASSERT_TRUE(add_file("after", "these").ok());
  finish();
  EXPECT_LT(archive_.size(), 40'000U);
  extract();
  EXPECT_EQ(content("after"), "these");
  EXPECT_EQ(content("hole"), std::string(1 << 20, '\0'));
  const struct stat info = look(name);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), size);
  EXPECT_LT(info.st_blocks, 200);
  std::ifstream in(out() / name, std::ios::binary);
  std::string start(16384, 'x');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  std::string wanted(16384, '\0');
  wanted.replace(4096, 5000, std::string(5000, 'a'));
  EXPECT_TRUE(start == wanted);
  in.seekg((int64_t{1} << 39) + 99);
  std::string three(3, 'x');
  in.read(three.data(), 3);
  EXPECT_EQ(three, "\0b\0"s);
}

TEST_F(PaxWriterTest, RefusesContentThatTheHeaderDoesNotTellOf) {
  ASSERT_TRUE(
      writer_.begin_file("file", metadata(FileType::kFile, 0644, 10), map_of({{2, 4}})).ok());
  EXPECT_EQ(writer_.write(0, "a").code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(writer_.write(2, "abcd").ok());
  EXPECT_EQ(writer_.write(6, "e").code(), absl::StatusCode::kInternal);
}

TEST_F(PaxWriterTest, EndsWithTheErrorOfItsOutput) {
  PaxWriter writer([](std::string_view) { return resource_exhausted("full"); });
  EXPECT_EQ(writer.add("a", metadata(FileType::kPipe, 0600)).message(), "full");
}

TEST_F(PaxWriterTest, AttributesAndListsOfAccess) {
  std::string list;
  ByteWriter out_list(&list);
  out_list.put(uint32_t{2});
  const auto entry = [&](uint16_t tag, uint16_t permissions, uint32_t id) {
    out_list.put(tag);
    out_list.put(permissions);
    out_list.put(id);
  };
  entry(0x01, 6, ~0U);
  entry(0x02, 4, 1234);
  entry(0x04, 4, ~0U);
  entry(0x10, 4, ~0U);
  entry(0x20, 0, ~0U);
  FileMetadata made = metadata(FileType::kFile, 0640);
  made.attributes = {{"system.posix_acl_access", list},
                     {"user.a=b%", "v"},
                     {"user.binary", "\0=\n\xff"s},
                     {"user.empty", ""}};
  ASSERT_TRUE(writer_.begin_file("file", made, SparseMap()).ok());
  ASSERT_TRUE(writer_.end_file().ok());
  finish();
  EXPECT_NE(archive_.find("SCHILY.acl.access=user::rw-\nuser:1234:r--\ngroup::r--\nmask::r--\n"
                          "other::---\n"),
            std::string::npos);
  ASSERT_TRUE(tar("-x --xattrs --xattrs-include='*' --acls")) << said();
  const auto attribute = [&](const char* name) {
    char value[256];
    const ssize_t size = getxattr((out() / "file").c_str(), name, value, sizeof value);
    return size < 0 ? "none" : std::string(value, static_cast<size_t>(size));
  };
  const fs::path probe = out() / "probe";
  write(probe, "");
  if (setxattr(probe.c_str(), "user.probe", "x", 1, 0) != 0) {
    GTEST_SKIP() << "no attributes in " << out();
  }
  EXPECT_EQ(attribute("user.a=b%"), "v");
  EXPECT_EQ(attribute("user.binary"), "\0=\n\xff"s);
  EXPECT_EQ(attribute("user.empty"), "");
  EXPECT_EQ(attribute("system.posix_acl_access"), list);
}

}  // namespace
}  // namespace sluice

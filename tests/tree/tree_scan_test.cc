#include "tree/tree_scan.h"

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <functional>
#include <set>
#include <utility>

#include "tests/tree/tree_fixture.h"

namespace sluice {
namespace {

class Found final : public TreeScanHandler {
 public:
  bool on_entry(ScannedEntry entry) override {
    if (hook) hook(entry.path);
    paths.push_back(std::move(entry.path));
    return true;
  }
  void on_left_out(const std::string& path, LeftOut why) override { left_out.emplace(path, why); }
  void on_failed(const std::string& path, std::string) override { failed.insert(path); }
  bool stopped() override { return false; }

  std::vector<std::string> paths;
  std::set<std::pair<std::string, LeftOut>> left_out;
  std::set<std::string> failed;
  std::function<void(const std::string&)> hook;
};

class TreeScan : public Tree {
 protected:
  void scan(const TreeScanOptions& options, Found* found) {
    const UniqueFd root(open(in().c_str(), O_RDONLY | O_DIRECTORY));
    OwnerNames names;
    ASSERT_TRUE(TreeScanner(root.get(), options, names, *found).run().ok());
  }
};

TEST_F(TreeScan, TellsOfEverythingOnceDirectoriesFirst) {
  for (int i = 0; i < 30; ++i) write(in() / fmt::format("d{}/e/f{}", i % 5, i), "x");
  write(in() / "last", "x");
  Found found;
  scan({}, &found);
  EXPECT_EQ(found.paths.size(), 1u + 5u + 5u + 30u + 1u);
  std::set<std::string> seen;
  for (const std::string& path : found.paths) {
    const size_t slash = path.rfind('/');
    EXPECT_TRUE(slash == std::string::npos || seen.contains(path.substr(0, slash))) << path;
    EXPECT_TRUE(seen.insert(path).second) << path;
  }
  EXPECT_EQ(found.paths.front(), ".");
}

TEST_F(TreeScan, GoesDeeperThanPathsAndDescriptorsReach) {
  constexpr int kDepth = 400;
  {
    UniqueFd directory(open(in().c_str(), O_RDONLY | O_DIRECTORY));
    for (int i = 0; i < kDepth; ++i) {
      // Two of each, so that directories are read on after those below them.
      for (const char* name : {"a-directory", "b-directory"})
        ASSERT_EQ(mkdirat(directory.get(), name, 0700), 0);
      UniqueFd(openat(directory.get(), "z", O_CREAT | O_WRONLY, 0600));
      directory.reset(openat(directory.get(), "a-directory", O_RDONLY | O_DIRECTORY));
      ASSERT_TRUE(directory);
    }
  }
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{40, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  Found found;
  scan({}, &found);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(found.paths.size(), 1u + 3u * kDepth);
  EXPECT_TRUE(found.failed.empty());
}

TEST_F(TreeScan, LeavesOutWhatPatternsMatchAndSockets) {
  write(in() / "src/a.c", "x");
  write(in() / "src/a.o", "x");
  write(in() / "build/b", "x");
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = "/proc/self/cwd/s";
  ASSERT_EQ(chdir(in().c_str()), 0);
  std::copy(path.begin(), path.end(), address.sun_path);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(fd);
  ASSERT_EQ(chdir("/"), 0);
  TreeScanOptions options;
  ASSERT_TRUE(options.exclude.add("*.o").ok());
  ASSERT_TRUE(options.exclude.add("/build/").ok());
  Found found;
  scan(options, &found);
  EXPECT_EQ(found.paths, (std::vector<std::string>{".", "src", "src/a.c"}));
  EXPECT_EQ(found.left_out,
            (std::set<std::pair<std::string, LeftOut>>{{"src/a.o", LeftOut::kExcluded},
                                                       {"build", LeftOut::kExcluded},
                                                       {"s", LeftOut::kSocket}}));
}

// What is swapped for a link while the scan is on its way leads nowhere.
TEST_F(TreeScan, FollowsNoLinkThatTakesADirectorysPlace) {
  write(root_ / "outside/secret", "x");
  write(in() / "a/file", "x");
  write(in() / "b/file", "x");
  Found found;
  found.hook = [&](const std::string& path) {
    if (path != "a") return;
    fs::remove_all(in() / "b");
    fs::create_symlink("../outside", in() / "b");
  };
  scan({}, &found);
  EXPECT_EQ(found.paths, (std::vector<std::string>{".", "a", "a/file"}));
  EXPECT_EQ(found.failed, std::set<std::string>{"b"});
}

TEST_F(TreeScan, MountsAreEnteredOnceOrNotAtAll) {
  write(in() / "a/file", "x");
  fs::create_directories(in() / "a/loop");
  fs::create_directories(in() / "tmp");
  if (mount("none", (in() / "tmp").c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "cannot mount";
  write(in() / "tmp/other", "x");
  ASSERT_EQ(mount((in() / "a").c_str(), (in() / "a/loop").c_str(), nullptr, MS_BIND, nullptr), 0);
  Found both;
  scan({}, &both);
  Found one;
  TreeScanOptions options;
  options.one_file_system = true;
  scan(options, &one);
  umount((in() / "a/loop").c_str());
  umount((in() / "tmp").c_str());
  EXPECT_EQ(both.paths,
            (std::vector<std::string>{".", "a", "a/file", "a/loop", "tmp", "tmp/other"}));
  EXPECT_TRUE(both.left_out.contains({"a/loop", LeftOut::kLoop}));
  EXPECT_EQ(one.paths, (std::vector<std::string>{".", "a", "a/file", "a/loop", "tmp"}));
  EXPECT_TRUE(one.left_out.contains({"tmp", LeftOut::kOtherFileSystem}));
}

}  // namespace
}  // namespace sluice

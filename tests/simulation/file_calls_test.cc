#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "base/file.h"
#include "tests/simulation/mounts.h"
#include "tests/simulation/own_calls.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

void expect(bool holds, std::string_view what) {
  if (!holds) fail(what);
}

std::string content(const std::string& path) {
  const auto read = read_file(path, 1 << 20);
  return read.ok() ? *read : "(none)";
}

void put(const std::string& path, std::string_view text, int flags = 0) {
  const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | flags, 0644));
  expect(bool(fd), path);
  expect(write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()), "write");
}

// A run with one disk at /sim/n1.
Result run_with_disk(uint64_t seed, const std::function<void(Disk&, Mount&)>& body) {
  return run(seed, Options(), [&] {
    Disk disk(1);
    body(disk, mount("n1", disk));
  });
}

void expect_passes(const std::function<void(Disk&, Mount&)>& body) {
  const Result result = run_with_disk(1, body);
  EXPECT_TRUE(result.passed()) << result.failure;
}

TEST(FileCalls, DoWhatTheSystemsDo) {
  expect_passes([](Disk&, Mount&) {
    expect(make_folders("/sim/n1/a/b").ok(), "make_folders");
    expect(write_file_durably("/sim/n1/a/b/file", "content").ok(), "write_file_durably");
    expect(content("/sim/n1/a/b/file") == "content", "read_file");
    const UniqueFd fd(open("/sim/n1/a/b/file", O_RDWR | O_APPEND));
    expect(write(fd.get(), " and", 4) == 4 && lseek(fd.get(), 0, SEEK_CUR) == 11, "append");
    std::array<char, 20> buffer{};
    expect(pread(fd.get(), buffer.data(), 4, 8) == 3 && std::string(buffer.data()) == "and",
           "pread");
    expect(lseek(fd.get(), 3, SEEK_SET) == 3 && read(fd.get(), buffer.data(), 4) == 4, "seek");
    expect(ftruncate(fd.get(), 7) == 0 && lseek(fd.get(), 0, SEEK_END) == 7, "ftruncate");
    expect(posix_fallocate(fd.get(), 0, 9) == 0 && fs::file_size("/sim/n1/a/b/file") == 9,
           "fallocate");
    expect(fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, 9999) == 0, "fallocate, same size");
    struct stat info {};
    struct stat other {};
    expect(fstat(fd.get(), &info) == 0 && stat("/sim/n1/a/b/file", &other) == 0, "stat");
    expect(info.st_ino == other.st_ino && info.st_dev == other.st_dev && info.st_size == 9, "stat");
    expect(link("/sim/n1/a/b/file", "/sim/n1/a/link") == 0, "link");
    expect(stat("/sim/n1/a/link", &other) == 0 && other.st_ino == info.st_ino, "link");
    expect(other.st_nlink == 2, "links");
    expect(rename("/sim/n1/a/link", "/sim/n1/a/b/other") == 0, "rename");
    expect(access("/sim/n1/a/link", F_OK) != 0 && errno == ENOENT, "access");
    char* const resolved = realpath("/sim/n1/a//b/", nullptr);
    expect(resolved != nullptr && std::string(resolved) == "/sim/n1/a/b", "realpath");
    free(resolved);
    expect(realpath("/sim/n1/a/link", nullptr) == nullptr && errno == ENOENT, "realpath");
    expect(link("/sim/n1/a/b/file", "/tmp/file") != 0 && errno == EXDEV, "link elsewhere");
    expect(open("/sim/n2/x", O_RDONLY) < 0 && errno == ENOENT, "no such disk");
    const UniqueFd direct(open("/sim/n1/direct", O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, 0600));
    expect(bool(direct), "O_DIRECT");
    expect(open("/sim/n1/direct", O_WRONLY | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST,
           "EXCL");
    const int closed = direct.get() + 100;
    expect(write(closed, "x", 1) < 0 && errno == EBADF, "a descriptor that is not open");
    expect(free_bytes_at("/sim/n1").value() < uint64_t{1} << 40, "statvfs");
  });
}

TEST(FileCalls, ServeTheStandardLibrary) {
  expect_passes([](Disk&, Mount&) {
    fs::create_directories("/sim/n1/x/y/z");
    put("/sim/n1/x/one", "1");
    put("/sim/n1/x/y/two", "22");
    std::set<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator("/sim/n1/x")) {
      found.insert(entry.path().string() + (entry.is_directory() ? "/" : ""));
    }
    expect(found == std::set<std::string>{"/sim/n1/x/one", "/sim/n1/x/y/", "/sim/n1/x/y/two",
                                          "/sim/n1/x/y/z/"},
           "recursive_directory_iterator");
    fs::rename("/sim/n1/x/one", "/sim/n1/moved");
    fs::resize_file("/sim/n1/moved", 5);
    expect(fs::file_size("/sim/n1/moved") == 5 && !fs::exists("/sim/n1/x/one"), "rename");
    expect(fs::remove_all("/sim/n1/x") == 4, "remove_all");
    expect(!fs::exists("/sim/n1/x") && fs::is_empty("/sim/n1") == false, "removed");
    expect(fs::space("/sim/n1").available > 1000, "space");
    // What is elsewhere is the machine's.
    expect(fs::exists("/proc/self/exe"), "a real file");
    std::string boot;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
    expect(boot.size() == 36 && boot.starts_with("5e1f"), "the boot's name");
  });
}

TEST(FileCalls, ListingsAreTheSameInEachRun) {
  const auto list = [](Disk&, Mount&) {
    for (int i = 0; i < 50; ++i) put("/sim/n1/" + std::to_string(i), "");
    for (const auto& entry : fs::directory_iterator("/sim/n1"))
      output(entry.path().filename().string() + " ");
  };
  const std::string names = run_with_disk(1, list).output;
  EXPECT_EQ(names, run_with_disk(1, list).output);
  EXPECT_EQ(std::count(names.begin(), names.end(), ' '), 50);
  EXPECT_FALSE(names.starts_with("0 1 10"));
}

TEST(FileCalls, ALossOfPowerTakesWhatWasNotSynced) {
  size_t lost = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const Result result = run_with_disk(seed, [&](Disk& disk, Mount&) {
      expect(write_file_durably("/sim/n1/durable", "durable").ok(), "write_file_durably");
      put("/sim/n1/synchronous", "by its flag", O_DSYNC);
      expect(sync_folder("/sim/n1").ok(), "sync_folder");
      put("/sim/n1/unsynced", "gone");
      const UniqueFd open_before(open("/sim/n1/durable", O_RDWR));
      Random random(seed);
      disk.lose_power(random);
      expect(content("/sim/n1/durable") == "durable", "durable");
      expect(content("/sim/n1/synchronous") == "by its flag", "O_DSYNC");
      char byte = 0;
      expect(pread(open_before.get(), &byte, 1, 0) < 0 && errno == EIO, "opened before");
      output(content("/sim/n1/unsynced"));
    });
    ASSERT_TRUE(result.passed()) << "seed " << seed << ": " << result.failure;
    lost += result.output != "gone";
  }
  EXPECT_GT(lost, 10u);
  EXPECT_LT(lost, 40u);
}

TEST(FileCalls, SyncsTakeTimeAndCoverWhatWasThereBefore) {
  expect_passes([](Disk& disk, Mount& mounted) {
    mounted.fastest_sync_ns = mounted.slowest_sync_ns = 1'000'000'000;
    const UniqueFd fd(open("/sim/n1/file", O_WRONLY | O_CREAT, 0644));
    expect(sync_folder("/sim/n1").ok(), "sync_folder");
    expect(pwrite(fd.get(), "before", 6, 0) == 6, "write");
    const int64_t begin = now_ns();
    std::thread late([&] {
      std::this_thread::sleep_for(milliseconds(500));
      expect(pwrite(fd.get(), "during", 6, 0) == 6, "write");
    });
    expect(fsync(fd.get()) == 0 && now_ns() - begin >= 1'000'000'000, "fsync");
    late.join();
    InodePtr file;
    expect(disk.find(disk.root(), "/file", &file) == 0, "find");
    FileContent after = file->content;
    Random random(1);
    after.lose_power(FileContent::Kept::kNothing, random);
    std::string text(6, ' ');
    expect(after.read(0, text) == 6 && text == "before", "what the sync covers");
  });
}

TEST(FileCalls, FailuresAreAnswered) {
  expect_passes([](Disk& disk, Mount& mounted) {
    put("/sim/n1/file", "text");
    const UniqueFd fd(open("/sim/n1/file", O_RDWR));
    mounted.read_error = EIO;
    char byte = 0;
    expect(pread(fd.get(), &byte, 1, 0) < 0 && errno == EIO, "read_error");
    mounted.read_error = 0;
    mounted.write_error = EIO;
    expect(pwrite(fd.get(), "x", 1, 0) < 0 && errno == EIO, "write_error");
    mounted.write_error = 0;
    mounted.sync_error = EIO;
    expect(fdatasync(fd.get()) < 0 && errno == EIO, "sync_error");
    mounted.sync_error = 0;
    expect(fdatasync(fd.get()) == 0, "a later sync");
    mounted.name_error = EROFS;
    expect(mkdir("/sim/n1/d", 0755) < 0 && errno == EROFS, "name_error");
    mounted.name_error = 0;
    disk.set_capacity_bytes(2 * 4096);
    expect(pwrite(fd.get(), "x", 1, 4096) == 1, "there is room");
    expect(pwrite(fd.get(), "x", 1, 8192) < 0 && errno == ENOSPC, "the disk is full");
    expect(free_bytes_at("/sim/n1").value() == 0, "free bytes");
  });
}

TEST(FileCalls, LocksAreOfTheFileAndGoWithTheirHolder) {
  expect_passes([](Disk&, Mount&) {
    Process& first = Process::make("first");
    Process& second = Process::make("second");
    std::atomic<int> outcome{0};
    const auto take = [&](bool by_process) {
      const int fd = open("/sim/n1/lock", O_RDWR | O_CREAT, 0644);
      struct flock whole {};
      whole.l_type = F_WRLCK;
      const int error = by_process ? fcntl(fd, F_SETLK, &whole) : flock(fd, LOCK_EX | LOCK_NB);
      outcome = error == 0 ? 1 : errno;
      for (;;) std::this_thread::sleep_for(seconds(1));
    };
    const auto outcome_of = [&](Process& process, bool by_process) {
      outcome = 0;
      process.start("taker", [&take, by_process] { take(by_process); });
      std::this_thread::sleep_for(milliseconds(10));
      return outcome.load();
    };
    expect(outcome_of(first, false) == 1, "the first");
    expect(outcome_of(first, false) == EWOULDBLOCK, "the same process again");
    expect(outcome_of(second, false) == EWOULDBLOCK, "another process");
    first.crash();
    expect(outcome_of(second, true) == 1, "after the holder has crashed");
    expect(outcome_of(second, true) == 1, "the same process again, by process");
  });
}

TEST(FileCalls, ACrashedProcessChangesNothing) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Result result = run_with_disk(seed, [&](Disk&, Mount& mounted) {
      Process& node = Process::make("node");
      int writes = 0;
      mounted.before = [&](FileCall call, std::string_view) {
        if (call == FileCall::kWrite && ++writes == 5) node.crash();
      };
      node.start("writer", [] {
        const int fd = open("/sim/n1/log", O_WRONLY | O_CREAT, 0644);
        for (;;) expect(write(fd, "x", 1) == 1, "write");
      });
      std::this_thread::sleep_for(seconds(1));
      expect(content("/sim/n1/log") == "xxxx", "what it wrote before, and no more");
    });
    ASSERT_TRUE(result.passed()) << "seed " << seed << ": " << result.failure;
  }
}

TEST(FileCalls, NorDoesAThreadOfItThatGoesOnForOthers) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Result result = run_with_disk(seed, [&](Disk&, Mount& mounted) {
      Process& node = Process::make("node");
      std::mutex shared;
      bool wrote = false;
      bool had = false;
      mounted.before = [&](FileCall call, std::string_view) {
        if (call == FileCall::kWrite) node.crash();
      };
      node.start("holder", [&] {
        const std::lock_guard lock(shared);
        std::this_thread::sleep_for(seconds(1));
        const int fd = open("/sim/n1/log", O_WRONLY | O_CREAT, 0644);
        wrote = write(fd, "x", 1) == 1 && mkdir("/sim/n1/made", 0755) == 0;
      });
      std::this_thread::sleep_for(milliseconds(500));
      std::thread waiter([&] {
        const std::lock_guard lock(shared);
        had = true;
      });
      std::this_thread::sleep_for(seconds(5));
      expect(had && wrote, "the holder did not go on");
      expect(content("/sim/n1/log").empty(), "it has written");
      expect(access("/sim/n1/made", F_OK) != 0, "it has made a directory");
      waiter.join();
    });
    ASSERT_TRUE(result.passed()) << "seed " << seed << ": " << result.failure;
  }
}

// A function that the libraries find elsewhere would reach the machine's files.
TEST(FileCalls, TheProgramsOwnFunctionsAreTheOnesThatAreCalled) {
  constexpr std::array kNames{"open",          "open64",
                              "openat",        "close",
                              "read",          "pread",
                              "pread64",       "write",
                              "pwrite",        "pwrite64",
                              "writev",        "lseek",
                              "lseek64",       "fsync",
                              "fdatasync",     "sync_file_range",
                              "ftruncate",     "truncate",
                              "fallocate",     "posix_fallocate",
                              "posix_fadvise", "readahead",
                              "fcntl",         "flock",
                              "stat",          "lstat",
                              "fstat",         "fstat64",
                              "fstatat",       "access",
                              "fchmod",        "fchmodat",
                              "statvfs",       "fstatfs",
                              "mkdir",         "rmdir",
                              "unlink",        "unlinkat",
                              "rename",        "link",
                              "readlink",      "realpath",
                              "opendir",       "fdopendir",
                              "readdir",       "dirfd",
                              "closedir",      "fopen",
                              "fopen64",       "io_uring_queue_init"};
  expect_own_calls(reinterpret_cast<const void*>(&run_with_disk), kNames);
}

}  // namespace
}  // namespace sluice::simulation

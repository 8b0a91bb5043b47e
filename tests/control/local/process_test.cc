#include "control/local/process.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"

namespace sluice {
namespace {

// What /proc says of a process, from its state on.
std::istringstream stat_text(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string line((std::istreambuf_iterator<char>(file)), {});
  return std::istringstream(line.substr(line.rfind(')') + 2));
}

bool first_thread_runs(pid_t pid) {
  std::string state;
  stat_text(pid) >> state;
  return state != "Z";
}

uint64_t start_ticks_of(pid_t pid) {
  std::istringstream text = stat_text(pid);
  std::string field;
  for (int i = 3; i <= 22; ++i) text >> field;
  return std::stoull(field);
}

class Process : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/sluice-process-" + std::to_string(entropy());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string log() const { return folder_ + "/log"; }

  std::string folder_;
};

TEST_F(Process, RunsInASessionOfItsOwnUntilItIsSignalled) {
  const auto process = spawn_daemon({"/bin/sleep", "60"}, log());
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_TRUE(is_running(*process));
  EXPECT_EQ(getsid(process->pid), process->pid);
  EXPECT_FALSE(wait_until_gone(*process, 0));
  EXPECT_TRUE(send_signal(*process, SIGTERM).ok());
  EXPECT_TRUE(wait_until_gone(*process, 10'000));
  EXPECT_FALSE(is_running(*process));
  EXPECT_FALSE(send_signal(*process, SIGTERM).ok());
}

// As when a process is killed: its first thread may be gone before those that hold its files.
TEST_F(Process, RunsUntilItsLastThreadHasEnded) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    std::thread([&ready] {
      while (first_thread_runs(getpid())) usleep(1000);
      (void)!write(ready[1], "x", 1);
      pause();
    }).detach();
    syscall(SYS_exit, 0);  // of this thread alone
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  const ProcessId process{child, start_ticks_of(child)};
  EXPECT_TRUE(is_running(process));
  EXPECT_FALSE(wait_until_gone(process, 0));
  EXPECT_TRUE(send_signal(process, SIGKILL).ok());
  EXPECT_TRUE(wait_until_gone(process, 10'000));
  close(ready[0]);
  close(ready[1]);
}

TEST_F(Process, WritesItsOutputToTheLog) {
  for (int i = 0; i < 2; ++i) {
    const auto process = spawn_daemon({"/bin/sh", "-c", "echo out; echo err >&2; cat"}, log());
    ASSERT_TRUE(process.ok()) << process.status();
    ASSERT_TRUE(wait_until_gone(*process, 10'000)) << "stdin is not empty";
  }
  EXPECT_EQ(*read_file(log(), 1000), "out\nerr\nout\nerr\n");
  EXPECT_EQ(tail_of_file(log(), 6), "err\n") << "a cut line is shown";
}

TEST_F(Process, TellsAnotherProcessOfTheSamePidApart) {
  const auto process = spawn_daemon({"/bin/sleep", "60"}, log());
  ASSERT_TRUE(process.ok());
  const ProcessId other{process->pid, process->start_ticks + 1};
  EXPECT_FALSE(is_running(other));
  EXPECT_FALSE(send_signal(other, SIGKILL).ok());
  EXPECT_TRUE(is_running(*process));
  EXPECT_TRUE(send_signal(*process, SIGKILL).ok());
  EXPECT_TRUE(wait_until_gone(*process, 10'000));
}

// Keeps a locked file in a child process for as long as it lives.
class LockHolder {
 public:
  explicit LockHolder(const std::string& path) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    pid_ = fork();
    if (pid_ == 0) {
      const auto lock = take_process_lock(path);
      const char answer = lock.ok() ? 'y' : 'n';
      if (write(ready[1], &answer, 1) != 1) _exit(1);
      while (true) pause();
    }
    char answer = 0;
    EXPECT_EQ(read(ready[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    close(ready[0]);
    close(ready[1]);
  }
  ~LockHolder() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  int pid() const { return pid_; }

 private:
  int pid_ = 0;
};

TEST_F(Process, ALockNamesItsHolderAndNoOtherProcess) {
  const std::string path = folder_ + "/node.lock";
  EXPECT_FALSE(holder_of_process_lock(path).has_value()) << "there is no file";
  {
    const LockHolder holder(path);
    const auto found = holder_of_process_lock(path);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->pid, holder.pid());
    EXPECT_TRUE(is_running(*found));
    const auto second = take_process_lock(path);
    EXPECT_TRUE(absl::IsAlreadyExists(second.status()));
    EXPECT_NE(second.status().ToString().find(std::to_string(holder.pid())), std::string::npos);
    EXPECT_TRUE(holder_of_process_lock(path).has_value()) << "asking took the lock away";

    std::filesystem::copy_file(path, folder_ + "/copy");
    EXPECT_FALSE(holder_of_process_lock(folder_ + "/copy").has_value()) << "a copy has a holder";
    std::filesystem::rename(path, folder_ + "/moved");
    EXPECT_TRUE(holder_of_process_lock(folder_ + "/moved").has_value()) << "a move loses it";
    // What a file says about processes is not believed.
    ASSERT_TRUE(write_pid_file(path, *found).ok());
    EXPECT_FALSE(holder_of_process_lock(path).has_value());
  }
  EXPECT_FALSE(holder_of_process_lock(folder_ + "/moved").has_value()) << "a dead holder is named";
}

TEST_F(Process, SaysWhatCannotBeStarted) {
  const auto process = spawn_daemon({"/nonexistent/program"}, log());
  ASSERT_FALSE(process.ok());
  EXPECT_NE(process.status().ToString().find("/nonexistent/program"), std::string::npos);
}

TEST(FreePorts, AreDistinctAndBelowTheKernelsOwn) {
  const auto ports = free_ports(50);
  ASSERT_TRUE(ports.ok()) << ports.status();
  EXPECT_EQ(std::set<uint16_t>(ports->begin(), ports->end()).size(), 50u);
  for (const uint16_t port : *ports) EXPECT_LT(port, 32768);
}

}  // namespace
}  // namespace sluice

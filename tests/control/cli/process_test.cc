#include "control/cli/process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <set>

#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"

namespace sluice {
namespace {

class Process : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/sluice-process-" + std::to_string(entropy());
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
  ASSERT_TRUE(write_pid_file(folder_ + "/pid", *process).ok());
  const auto read = read_pid_file(folder_ + "/pid");
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(is_running(*read));
  EXPECT_TRUE(send_signal(*read, SIGKILL).ok());
  EXPECT_TRUE(wait_until_gone(*read, 10'000));
}

TEST_F(Process, ReadsNoPidFromGarbage) {
  EXPECT_FALSE(read_pid_file(folder_ + "/absent").has_value());
  for (const char* text : {"", "x", "12", "-1 5", "0 5", "1 5"}) {
    ASSERT_TRUE(write_file_durably(folder_ + "/pid", text).ok());
    EXPECT_FALSE(read_pid_file(folder_ + "/pid").has_value()) << text;
  }
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

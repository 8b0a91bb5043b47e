#include "tests/drivers/rdma_child.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "base/clock.h"
#include "base/status.h"
#include "drivers/rdma/rdma.h"
#include "tests/drivers/node.h"
#include "tests/drivers/rdma_here.h"

namespace sluice {
namespace {

constexpr const char* kRole = "RDMA_CHILD_ROLE";
constexpr int kOutput = 3;
constexpr int64_t kLifetimeNs = 60'000'000'000;

void say(const std::string& line) {
  const std::string text = line + "\n";
  EXPECT_EQ(write(kOutput, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

void receive(bool stall) {
  RdmaTransport transport;
  Node node(transport, rdma_address() + ":0");
  ASSERT_NE(node.endpoint, nullptr);
  say(node.endpoint->address());
  node.on_received = [&](ConnectionId id, Message message) {
    if (!stall) node.endpoint->post_recv(id, {&message.buffer, 1});
  };
  size_t welcomed = 0;
  const int64_t end = system_clock().monotonic_ns() + kLifetimeNs;
  while (system_clock().monotonic_ns() < end) {
    if (node.pump() == 0) node.endpoint->wait(1'000'000);
    for (; welcomed < node.accepted.size(); ++welcomed) {
      node.post_receives(node.accepted[welcomed], 4);
    }
  }
}

void open_with_little_memlock() {
  const rlimit limit{65'536, 65'536};
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
  // Root may lock what it likes.
  ASSERT_EQ(setgid(65'534), 0);
  ASSERT_EQ(setuid(65'534), 0);
  Arena::Options options;
  options.bytes = 8 * options.buffer_bytes;
  const auto arena = Arena::create(options);
  ASSERT_TRUE(arena.ok());
  RdmaTransport transport;
  const auto endpoint = transport.open(**arena, rdma_address() + ":0");
  say(endpoint.ok() ? "opened" : std::string(message_of(endpoint.status())));
}

// Not a test of its own: what a child process runs.
TEST(RdmaChildProcess, PlaysItsRole) {
  const char* role = std::getenv(kRole);
  if (role == nullptr) return;
  const std::string_view name = role;
  if (name == "memlock") {
    open_with_little_memlock();
  } else {
    receive(name == "stall");
  }
}

}  // namespace

RdmaChild::RdmaChild(const std::string& role) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  output_.reset(ends[0]);
  UniqueFd writer(ends[1]);
  const std::string path = "/proc/self/exe";
  pid_ = fork();
  if (pid_ != 0) return;
  dup2(writer.get(), kOutput);
  setenv(kRole, role.c_str(), 1);
  execl(path.c_str(), path.c_str(), "--gtest_filter=RdmaChildProcess.*", "--gtest_repeat=1",
        nullptr);
  _exit(127);
}

RdmaChild::~RdmaChild() { kill(); }

std::string RdmaChild::line() {
  std::string text;
  char one = 0;
  while (read(output_.get(), &one, 1) == 1 && one != '\n') text += one;
  return text;
}

void RdmaChild::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace sluice

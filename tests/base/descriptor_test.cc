#include "base/descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/file.h"

namespace sluice {
namespace {

TEST(Descriptor, OnesThatSomebodyMadeNonBlockingAreWaitedFor) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  const UniqueFd from(ends[0]);
  UniqueFd into(ends[1]);
  const std::string sent(size_t{1} << 20, 'x');  // more than a pipe holds
  std::thread writer([&] {
    EXPECT_EQ(write_all(into.get(), sent), 0);
    into.reset();
  });
  std::string got;
  char some[1000];
  while (true) {
    const ssize_t size = read_some(from.get(), some, sizeof some);
    ASSERT_GE(size, 0);
    if (size == 0) break;
    got.append(some, static_cast<size_t>(size));
  }
  writer.join();
  EXPECT_TRUE(got == sent);
  EXPECT_EQ(write_all(-1, "x"), EBADF);
  EXPECT_EQ(read_some(-1, some, 1), -EBADF);
}

// From now on this process gets `error` for a system call.
bool forbid(unsigned call, unsigned error) {
  std::array<sock_filter, 4> filter = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program = {filter.size(), filter.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// 0: a wait without events took its time, and one with an event told of it.
int wait_for_a_pipe() {
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  int ends[2];
  if (!epoll || pipe2(ends, O_CLOEXEC) != 0) return 1;
  const UniqueFd from(ends[0]);
  const UniqueFd into(ends[1]);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 7;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, from.get(), &event) != 0) return 2;
  std::array<epoll_event, 4> events{};
  const int64_t begin = system_clock().monotonic_ns();
  if (wait_for_events(epoll.get(), events, 1'500'000) != 0) return 3;
  if (system_clock().monotonic_ns() - begin < 1'500'000) return 4;
  if (write_all(into.get(), "x") != 0) return 5;
  if (wait_for_events(epoll.get(), events, 0) != 1 || events[0].data.u64 != 7) return 6;
  return 0;
}

TEST(Descriptor, EventsAreWaitedForWithEveryKernel) {
  EXPECT_EQ(wait_for_a_pipe(), 0);
  for (const unsigned error : {unsigned{ENOSYS}, unsigned{EPERM}}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(forbid(SYS_epoll_pwait2, error) ? wait_for_a_pipe() : 77);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0) << "error " << error;
  }
}

}  // namespace
}  // namespace sluice

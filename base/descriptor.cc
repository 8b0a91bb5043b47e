#include "base/descriptor.h"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <ctime>

namespace sluice {
namespace {

constexpr rlim_t kMost = 65'536;
constexpr rlim_t kMostReserved = 512;

// False for an error that waiting does not end.
bool may_go_on(int error, int fd, short events) {
  if (error == EINTR) return true;
  if (error != EAGAIN && error != EWOULDBLOCK) return false;
  pollfd ready{fd, events, 0};
  poll(&ready, 1, -1);
  return true;
}

}  // namespace

size_t wait_for_events(int epoll, std::span<epoll_event> events, int64_t timeout_ns) {
  static std::atomic<bool> is_refused{false};
  const auto most = static_cast<int>(events.size());
  constexpr int64_t kSecond = 1'000'000'000;
  constexpr int64_t kMillisecond = 1'000'000;
  int count = -1;
  if (!is_refused.load(std::memory_order_relaxed)) {
    const timespec timeout{timeout_ns / kSecond, timeout_ns % kSecond};
    count = epoll_pwait2(epoll, events.data(), most, &timeout, nullptr);
    // EPERM is what containers answer that do not know it.
    if (count < 0 && (errno == ENOSYS || errno == EPERM)) is_refused = true;
  }
  if (is_refused.load(std::memory_order_relaxed)) {
    const int64_t timeout_ms = (timeout_ns + kMillisecond - 1) / kMillisecond;
    count = epoll_wait(epoll, events.data(), most,
                       static_cast<int>(std::min<int64_t>(timeout_ms, INT_MAX)));
  }
  return count < 0 ? 0 : static_cast<size_t>(count);
}

int write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = write(fd, bytes.data(), bytes.size());
    if (done > 0) {
      bytes.remove_prefix(static_cast<size_t>(done));
    } else if (done == 0) {
      return EIO;
    } else if (!may_go_on(errno, fd, POLLOUT)) {
      return errno;
    }
  }
  return 0;
}

ssize_t read_some(int fd, void* into, size_t size) {
  while (true) {
    const ssize_t got = read(fd, into, size);
    if (got >= 0) return got;
    if (!may_go_on(errno, fd, POLLIN)) return -errno;
  }
}

int raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
  const rlim_t wanted = std::min(limit.rlim_max, kMost);
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  return static_cast<int>(std::min(limit.rlim_cur, kMost));
}

bool is_reserved_descriptor(int fd) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
  return static_cast<rlim_t>(fd) >= limit.rlim_cur - std::min(limit.rlim_cur / 4, kMostReserved);
}

}  // namespace sluice

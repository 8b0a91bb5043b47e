#include "base/descriptor.h"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

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

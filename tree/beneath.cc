#include "tree/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <string>
#include <utility>

namespace sluice {
namespace {

UniqueFd open_by_names(int root, std::string_view path, int flags) {
  UniqueFd directory;
  while (true) {
    const size_t slash = path.find('/');
    const std::string name(path.substr(0, slash));
    const int at = directory ? directory.get() : root;
    if (slash == std::string_view::npos)
      return UniqueFd(openat(at, name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC));
    UniqueFd next(openat(at, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next) return next;
    directory = std::move(next);
    path.remove_prefix(slash + 1);
  }
}

// Absent before Linux 5.6, and in containers that forbid what they do not know.
std::atomic<bool> openat2_works{true};

}  // namespace

UniqueFd open_beneath(int root, std::string_view path, int flags) {
  if (path.size() >= PATH_MAX || path.find('/') == std::string_view::npos ||
      !openat2_works.load(std::memory_order_relaxed)) {
    return open_by_names(root, path, flags);
  }
  open_how how{};
  how.flags = static_cast<uint64_t>(flags) | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  UniqueFd fd(
      static_cast<int>(syscall(SYS_openat2, root, std::string(path).c_str(), &how, sizeof how)));
  // EAGAIN: a rename beside it kept the kernel from being sure.
  if (fd || (errno != ENOSYS && errno != EPERM && errno != EINVAL && errno != EAGAIN)) return fd;
  if (errno == ENOSYS) openat2_works.store(false, std::memory_order_relaxed);
  return open_by_names(root, path, flags);
}

}  // namespace sluice

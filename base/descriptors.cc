#include "base/descriptors.h"

#include <sys/resource.h>

#include <algorithm>

namespace sluice {
namespace {

constexpr rlim_t kMost = 65'536;
constexpr rlim_t kMostReserved = 512;

}  // namespace

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

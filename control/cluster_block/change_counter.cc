#include "control/cluster_block/change_counter.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

namespace sluice::cluster_block {

void ChangeCounter::raise() {
  value_.fetch_add(1);
  // Of memory that other processes map, so not FUTEX_PRIVATE_FLAG.
  ::syscall(SYS_futex, &value_, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void ChangeCounter::wait(uint32_t seen, int64_t timeout_ms) const {
  const int64_t ms = std::max<int64_t>(timeout_ms, 0);
  const timespec timeout{.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1'000'000};
  ::syscall(SYS_futex, &value_, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

}  // namespace sluice::cluster_block

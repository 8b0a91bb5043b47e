#include "base/clock.h"

#include <ctime>

namespace sluice {
namespace {

int64_t now_ns(clockid_t id) {
  timespec time{};
  clock_gettime(id, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

class SystemClock final : public Clock {
 public:
  int64_t wall_ms() const override { return now_ns(CLOCK_REALTIME) / 1'000'000; }
  int64_t monotonic_ns() const override { return now_ns(CLOCK_MONOTONIC); }
  void sleep_ns(int64_t duration) override {
    if (duration <= 0) return;
    timespec time{duration / 1'000'000'000, duration % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &time) != 0) {
    }
  }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace sluice

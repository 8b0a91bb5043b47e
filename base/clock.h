// Time, injected: nothing above base/ asks the operating system for it.
#ifndef SLUICE_BASE_CLOCK_H_
#define SLUICE_BASE_CLOCK_H_

#include <atomic>
#include <cstdint>

namespace sluice {

// A millisecond, as monotonic_ns() counts.
inline constexpr int64_t kMs = 1'000'000;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Milliseconds since the Unix epoch. May jump.
  virtual int64_t wall_ms() const = 0;
  // Nanoseconds since an arbitrary point. Never goes back.
  virtual int64_t monotonic_ns() const = 0;
  int64_t monotonic_ms() const { return monotonic_ns() / 1'000'000; }
  virtual void sleep_ns(int64_t duration) = 0;
};

// The machine's clock; one for the process.
Clock& system_clock();

// A clock that moves only when told to (or slept on). For tests and the simulator.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(int64_t wall_ms = 1'700'000'000'000) : begin_ms_(wall_ms) {}
  int64_t wall_ms() const override { return begin_ms_.load() + monotonic_ms(); }
  int64_t monotonic_ns() const override { return monotonic_ns_.load(); }
  void sleep_ns(int64_t duration) override { advance_ns(duration); }
  void advance_ns(int64_t duration) { monotonic_ns_ += duration; }
  // Moves the wall clock alone, also backwards, as an operator or NTP would.
  void set_wall_ms(int64_t wall_ms) { begin_ms_ = wall_ms - monotonic_ms(); }

 private:
  std::atomic<int64_t> begin_ms_;  // what the wall showed when the monotonic clock was at 0
  std::atomic<int64_t> monotonic_ns_{0};
};

}  // namespace sluice

#endif  // SLUICE_BASE_CLOCK_H_

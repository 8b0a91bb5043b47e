// Clocks, sleeps and what a program asks its machine for that differs from run to run: random
// numbers, its number, its name, its processors. In place of the C library's functions, which they
// are outside of a run.
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "tests/simulation/scheduler.h"
#include "tests/simulation/system_calls.h"

namespace sluice::simulation {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int kProcessors = 2;

Scheduler* active() { return Scheduler::active(); }

bool is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

int64_t read_clock(clockid_t clock) {
  Scheduler& scheduler = *active();
  scheduler.step();
  return is_wall(clock) ? scheduler.wall_ns(*scheduler.current().process) : scheduler.now_ns();
}

int64_t ns_of(const timespec& time) { return int64_t{time.tv_sec} * kSecond + time.tv_nsec; }

void sleep_until(Deadline deadline) {
  active()->step();
  // An address of its own, which nobody wakes.
  active()->wait(Wait::kTime, &active()->current(), deadline);
}

void sleep_for(int64_t duration_ns) { sleep_until({active()->now_ns() + duration_ns}); }

void fill_randomly(void* into, size_t bytes) {
  Random& entropy = active()->current().process->entropy;
  auto* const at = static_cast<char*>(into);
  for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
    const uint64_t word = entropy.next();
    std::memcpy(at + i, &word, std::min(sizeof(word), bytes - i));
  }
}

}  // namespace
}  // namespace sluice::simulation

using namespace sluice::simulation;  // NOLINT: what follows has the C library's names

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(clock_gettime)(clock, time);
  const int64_t now = read_clock(clock);
  *time = {now / kSecond, now % kSecond};
  return 0;
}

int gettimeofday(timeval* time, void* zone) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(gettimeofday)(time, zone);
  const int64_t now = read_clock(CLOCK_REALTIME);
  *time = {now / kSecond, now % kSecond / 1000};
  return 0;
}

time_t time(time_t* into) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(time)(into);
  const time_t now = read_clock(CLOCK_REALTIME) / kSecond;
  if (into != nullptr) *into = now;
  return now;
}

int nanosleep(const timespec* duration, timespec* left) {
  if (active() == nullptr) return SLUICE_SYSTEM(nanosleep)(duration, left);
  sleep_for(ns_of(*duration));
  return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const timespec* until, timespec* left) {
  if (active() == nullptr) return SLUICE_SYSTEM(clock_nanosleep)(clock, flags, until, left);
  if ((flags & TIMER_ABSTIME) != 0) {
    sleep_until({ns_of(*until), is_wall(clock)});
  } else {
    sleep_for(ns_of(*until));
  }
  return 0;
}

int usleep(useconds_t duration) {
  if (active() == nullptr) return SLUICE_SYSTEM(usleep)(duration);
  sleep_for(int64_t{duration} * 1000);
  return 0;
}

unsigned sleep(unsigned seconds) {
  if (active() == nullptr) return SLUICE_SYSTEM(sleep)(seconds);
  sleep_for(int64_t{seconds} * kSecond);
  return 0;
}

ssize_t getrandom(void* into, size_t bytes, unsigned flags) {
  if (active() == nullptr) return SLUICE_SYSTEM(getrandom)(into, bytes, flags);
  fill_randomly(into, bytes);
  return static_cast<ssize_t>(bytes);
}

int getentropy(void* into, size_t bytes) {
  if (active() == nullptr) return SLUICE_SYSTEM(getentropy)(into, bytes);
  fill_randomly(into, bytes);
  return 0;
}

uint32_t arc4random() noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(arc4random)();
  uint32_t value = 0;
  fill_randomly(&value, sizeof(value));
  return value;
}

void arc4random_buf(void* into, size_t bytes) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(arc4random_buf)(into, bytes);
  fill_randomly(into, bytes);
}

// std::random_device::_M_getval(), which may ask the processor.
unsigned draw_from_random_device(void* device) __asm__("_ZNSt13random_device9_M_getvalEv");
unsigned draw_from_random_device(void* device) {
  if (active() == nullptr) {
    using Function = unsigned (*)(void*);
    static constinit Function known = nullptr;
    return find_system_call(known, "_ZNSt13random_device9_M_getvalEv")(device);
  }
  unsigned value = 0;
  fill_randomly(&value, sizeof(value));
  return value;
}

pid_t getpid() noexcept {
  return active() == nullptr ? SLUICE_SYSTEM(getpid)() : active()->current().process->pid();
}

pid_t gettid() noexcept {
  return active() == nullptr ? SLUICE_SYSTEM(gettid)()
                             : static_cast<pid_t>(active()->current().number);
}

int gethostname(char* into, size_t bytes) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(gethostname)(into, bytes);
  std::strncpy(into, "simulation", bytes);
  return 0;
}

int sched_getcpu() noexcept { return active() == nullptr ? SLUICE_SYSTEM(sched_getcpu)() : 0; }

int get_nprocs() noexcept {
  return active() == nullptr ? SLUICE_SYSTEM(get_nprocs)() : kProcessors;
}

long sysconf(int name) noexcept {
  if (active() != nullptr && (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF)) {
    return kProcessors;
  }
  return SLUICE_SYSTEM(sysconf)(name);
}

}  // extern "C"

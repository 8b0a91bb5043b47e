// Threads, locks and futexes: in place of the C library's functions, which they are outside of a
// run. A lock's state is in its own memory, as the C library has it in it: all zero is free.
#include <cxxabi.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <ctime>

#include "tests/simulation/scheduler.h"
#include "tests/simulation/system_calls.h"

namespace sluice::simulation {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

Scheduler* active() { return Scheduler::active(); }

Deadline deadline_of(const timespec& time, bool wall) {
  return {int64_t{time.tv_sec} * kSecond + time.tv_nsec, wall};
}

// --- Mutexes ---

bool is_recursive(const pthread_mutex_t& mutex) {
  return (mutex.__data.__kind & 3) == PTHREAD_MUTEX_RECURSIVE;
}

int lock(pthread_mutex_t& mutex, Deadline deadline = {}) {
  Scheduler& scheduler = *active();
  auto& state = mutex.__data;
  const auto me = static_cast<int>(scheduler.current().number);
  if (state.__lock != 0 && state.__owner == me) {
    if (is_recursive(mutex)) {
      ++state.__count;
      return 0;
    }
    if ((state.__kind & 3) == PTHREAD_MUTEX_ERRORCHECK) return EDEADLK;
  }
  while (state.__lock != 0) {
    if (!scheduler.wait(Wait::kMutex, &mutex, deadline)) return ETIMEDOUT;
  }
  state.__lock = 1;
  state.__owner = me;
  scheduler.hold(&mutex);
  return 0;
}

void unlock(pthread_mutex_t& mutex) {
  auto& state = mutex.__data;
  if (is_recursive(mutex) && state.__count > 0) {
    --state.__count;
    return;
  }
  active()->let_go(&mutex);
  state.__lock = 0;
  state.__owner = 0;
  // All: one alone may be of a process that is stopped, now or before it runs.
  active()->wake(&mutex, SIZE_MAX);
}

int wait_for_condition(pthread_cond_t* condition, pthread_mutex_t* mutex, Deadline deadline = {}) {
  Scheduler& scheduler = *active();
  const bool spuriously = scheduler.wakes_spuriously();
  unlock(*mutex);
  bool woken = true;
  if (spuriously) {
    scheduler.yield();
  } else {
    woken = scheduler.wait(Wait::kCondition, condition, deadline);
  }
  lock(*mutex);
  return woken ? 0 : ETIMEDOUT;
}

// The clock that pthread_cond_init() was told of.
bool is_monotonic(const pthread_cond_t& condition) { return (condition.__data.__wrefs & 2) != 0; }

// --- Locks of readers and writers ---

struct ReadWriteState {
  uint32_t readers;
  uint32_t writer;  // number of the thread
};
static_assert(sizeof(ReadWriteState) <= sizeof(pthread_rwlock_t));

ReadWriteState& state_of(pthread_rwlock_t* lock) {
  return *reinterpret_cast<ReadWriteState*>(lock);
}

int lock_to_read(pthread_rwlock_t* lock, Deadline deadline = {}) {
  ReadWriteState& state = state_of(lock);
  while (state.writer != 0) {
    if (state.writer == active()->current().number) return EDEADLK;
    if (!active()->wait(Wait::kReadLock, lock, deadline)) return ETIMEDOUT;
  }
  ++state.readers;
  active()->hold(lock);
  return 0;
}

int lock_to_write(pthread_rwlock_t* lock, Deadline deadline = {}) {
  ReadWriteState& state = state_of(lock);
  while (state.writer != 0 || state.readers != 0) {
    if (state.writer == active()->current().number) return EDEADLK;
    if (!active()->wait(Wait::kWriteLock, lock, deadline)) return ETIMEDOUT;
  }
  state.writer = active()->current().number;
  active()->hold(lock);
  return 0;
}

// --- Once ---

constexpr int kInProgress = 1;
constexpr int kDone = 2;  // as the C library has it

// True when the caller is to do it. Not a scheduling point where nobody else does: what was done
// before the run began (by an earlier one's caller) must not change it.
template <typename State>
bool begin_once(State* state, const void* address) {
  while (*state == kInProgress) active()->wait(Wait::kOnce, address);
  if (*state != 0) return false;
  *state = kInProgress;
  active()->hold(address);
  return true;
}

template <typename State>
void end_once(State* state, const void* address, State value) {
  *state = value;
  active()->let_go(address);
  active()->wake(address, SIZE_MAX);
}

// The second byte of a guard; the first says that the variable is there, and is read by the
// compiler's code too.
char* progress_of(__cxxabiv1::__guard* guard) { return reinterpret_cast<char*>(guard) + 1; }

// --- Ends of threads ---

constexpr size_t kKeys = PTHREAD_KEYS_MAX;
struct Key {
  bool used;
  void (*destructor)(void*);
};
constinit std::array<Key, kKeys> keys{};

void destroy_thread_locals() {
  auto& destructors = active()->current().destructors;
  while (!destructors.empty()) {
    const auto [destructor, object] = destructors.back();
    destructors.pop_back();
    destructor(object);
  }
  for (int round = 0; round < PTHREAD_DESTRUCTOR_ITERATIONS; ++round) {
    bool again = false;
    for (pthread_key_t key = 0; key < kKeys; ++key) {
      if (!keys[key].used) continue;
      void* const value = pthread_getspecific(key);
      if (value == nullptr) continue;
      pthread_setspecific(key, nullptr);
      if (keys[key].destructor == nullptr) continue;
      keys[key].destructor(value);
      again = true;
    }
    if (!again) return;
  }
}

struct Body {
  void* (*start)(void*);
  void* argument;
};

void* run_thread(void* argument) {
  const Body body = *static_cast<Body*>(argument);
  delete static_cast<Body*>(argument);
  void* const result = body.start(body.argument);
  destroy_thread_locals();
  return result;
}

// --- Futexes ---

long futex_error(int error) {
  errno = error;
  return -1;
}

long wait_for_futex(const uint32_t* word, uint32_t value, Deadline deadline) {
  active()->step();
  if (*word != value) return futex_error(EAGAIN);
  return active()->wait(Wait::kFutex, word, deadline) ? 0 : futex_error(ETIMEDOUT);
}

long call_futex(const uint32_t* word, int operation, uint32_t value, const timespec* time) {
  Scheduler& scheduler = *active();
  const bool wall = (operation & FUTEX_CLOCK_REALTIME) != 0;
  switch (operation & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)) {
    case FUTEX_WAIT: {
      Deadline deadline;
      if (time != nullptr) deadline.ns = scheduler.now_ns() + deadline_of(*time, false).ns;
      return wait_for_futex(word, value, deadline);
    }
    case FUTEX_WAIT_BITSET:
      return wait_for_futex(word, value, time == nullptr ? Deadline() : deadline_of(*time, wall));
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
      scheduler.step();
      return static_cast<long>(scheduler.wake(word, value));
    default:
      scheduler.finish(Result::End::kFailed,
                       fmt::format("a futex operation that is not simulated: {}", operation));
  }
}

}  // namespace
}  // namespace sluice::simulation

using namespace sluice::simulation;  // NOLINT: what follows has the C library's names

extern "C" {

int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_mutex_lock)(mutex);
  active()->step();
  return lock(*mutex);
}

int pthread_mutex_trylock(pthread_mutex_t* mutex) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_mutex_trylock)(mutex);
  active()->step();
  const auto& state = mutex->__data;
  const bool mine = state.__owner == static_cast<int>(active()->current().number);
  if (state.__lock != 0 && !(mine && is_recursive(*mutex))) return EBUSY;
  return lock(*mutex);
}

int pthread_mutex_clocklock(pthread_mutex_t* mutex, clockid_t clock,
                            const timespec* time) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_mutex_clocklock)(mutex, clock, time);
  active()->step();
  return lock(*mutex, deadline_of(*time, clock == CLOCK_REALTIME));
}

int pthread_mutex_timedlock(pthread_mutex_t* mutex, const timespec* time) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_mutex_timedlock)(mutex, time);
  return pthread_mutex_clocklock(mutex, CLOCK_REALTIME, time);
}

int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_mutex_unlock)(mutex);
  unlock(*mutex);
  active()->step();
  return 0;
}

int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_cond_wait)(condition, mutex);
  active()->step();
  return wait_for_condition(condition, mutex);
}

int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const timespec* time) {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_cond_timedwait)(condition, mutex, time);
  active()->step();
  return wait_for_condition(condition, mutex, deadline_of(*time, !is_monotonic(*condition)));
}

int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* time) {
  if (active() == nullptr) {
    return SLUICE_SYSTEM(pthread_cond_clockwait)(condition, mutex, clock, time);
  }
  active()->step();
  return wait_for_condition(condition, mutex, deadline_of(*time, clock == CLOCK_REALTIME));
}

int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_cond_signal)(condition);
  active()->step();
  active()->wake(condition, 1);
  return 0;
}

int pthread_cond_broadcast(pthread_cond_t* condition) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_cond_broadcast)(condition);
  active()->step();
  active()->wake(condition, SIZE_MAX);
  return 0;
}

int pthread_cond_destroy(pthread_cond_t* condition) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_cond_destroy)(condition);
  active()->step();
  if (active()->anybody_waits_for(condition)) {
    fail("a condition variable is destroyed that somebody waits for\n" + describe_threads());
  }
  return 0;
}

int pthread_rwlock_rdlock(pthread_rwlock_t* lock) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_rdlock)(lock);
  active()->step();
  return lock_to_read(lock);
}

int pthread_rwlock_wrlock(pthread_rwlock_t* lock) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_wrlock)(lock);
  active()->step();
  return lock_to_write(lock);
}

int pthread_rwlock_tryrdlock(pthread_rwlock_t* lock) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_tryrdlock)(lock);
  active()->step();
  return state_of(lock).writer != 0 ? EBUSY : lock_to_read(lock);
}

int pthread_rwlock_trywrlock(pthread_rwlock_t* lock) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_trywrlock)(lock);
  active()->step();
  const ReadWriteState& state = state_of(lock);
  return state.writer != 0 || state.readers != 0 ? EBUSY : lock_to_write(lock);
}

int pthread_rwlock_clockrdlock(pthread_rwlock_t* lock, clockid_t clock,
                               const timespec* time) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_clockrdlock)(lock, clock, time);
  active()->step();
  return lock_to_read(lock, deadline_of(*time, clock == CLOCK_REALTIME));
}

int pthread_rwlock_clockwrlock(pthread_rwlock_t* lock, clockid_t clock,
                               const timespec* time) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_clockwrlock)(lock, clock, time);
  active()->step();
  return lock_to_write(lock, deadline_of(*time, clock == CLOCK_REALTIME));
}

int pthread_rwlock_timedrdlock(pthread_rwlock_t* lock, const timespec* time) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_timedrdlock)(lock, time);
  return pthread_rwlock_clockrdlock(lock, CLOCK_REALTIME, time);
}

int pthread_rwlock_timedwrlock(pthread_rwlock_t* lock, const timespec* time) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_timedwrlock)(lock, time);
  return pthread_rwlock_clockwrlock(lock, CLOCK_REALTIME, time);
}

int pthread_rwlock_unlock(pthread_rwlock_t* lock) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_rwlock_unlock)(lock);
  ReadWriteState& state = state_of(lock);
  active()->let_go(lock);
  if (state.writer == active()->current().number) {
    state.writer = 0;
  } else {
    --state.readers;
  }
  if (state.readers == 0) active()->wake(lock, SIZE_MAX);
  active()->step();
  return 0;
}

int pthread_once(pthread_once_t* once, void (*initialise)()) {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_once)(once, initialise);
  if (*once == kDone || !begin_once(once, once)) return 0;
  try {
    initialise();
  } catch (...) {
    end_once(once, once, 0);
    throw;
  }
  end_once(once, once, kDone);
  return 0;
}

int pthread_create(pthread_t* handle, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) noexcept {
  if (active() == nullptr)
    return SLUICE_SYSTEM(pthread_create)(handle, attributes, start, argument);
  Scheduler& scheduler = *active();
  Thread& thread = scheduler.start_thread(*scheduler.current().process, "", run_thread,
                                          new Body{start, argument});
  int detached = PTHREAD_CREATE_JOINABLE;
  if (attributes != nullptr) pthread_attr_getdetachstate(attributes, &detached);
  thread.detached = detached == PTHREAD_CREATE_DETACHED;
  *handle = thread.fiber->self();
  scheduler.step();
  return 0;
}

int pthread_join(pthread_t handle, void** result) {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_join)(handle, result);
  active()->step();
  Thread* const thread = active()->thread_of(handle);
  if (thread == nullptr) return ESRCH;
  if (thread == &active()->current()) return EDEADLK;
  while (thread->state != Thread::State::kEnded) active()->wait(Wait::kJoin, thread);
  if (result != nullptr) *result = thread->result;
  active()->forget(*thread);
  return 0;
}

int pthread_detach(pthread_t handle) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_detach)(handle);
  active()->step();
  Thread* const thread = active()->thread_of(handle);
  if (thread == nullptr) return ESRCH;
  thread->detached = true;
  if (thread->state == Thread::State::kEnded) active()->forget(*thread);
  return 0;
}

int pthread_setname_np(pthread_t handle, const char* name) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(pthread_setname_np)(handle, name);
  if (Thread* const thread = active()->thread_of(handle)) thread->name = name;
  return 0;
}

int pthread_key_create(pthread_key_t* key, void (*destructor)(void*)) noexcept {
  const int error = SLUICE_SYSTEM(pthread_key_create)(key, destructor);
  if (error == 0) keys[*key] = {true, destructor};
  return error;
}

int pthread_key_delete(pthread_key_t key) noexcept {
  if (key < kKeys) keys[key] = {};
  return SLUICE_SYSTEM(pthread_key_delete)(key);
}

// The C library's own (declared nowhere): registers the destructor of a thread_local variable.
int __cxa_thread_atexit_impl(void (*destructor)(void*), void* object, void* library) noexcept {
  if (active() == nullptr) {
    return SLUICE_SYSTEM(__cxa_thread_atexit_impl)(destructor, object, library);
  }
  active()->current().destructors.emplace_back(destructor, object);
  return 0;
}

int sched_yield() noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(sched_yield)();
  active()->yield();
  return 0;
}

long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  std::array<long, 6> arguments;
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  const auto [a, b, c, d, e, f] = arguments;
  if (active() == nullptr) return SLUICE_SYSTEM(syscall)(number, a, b, c, d, e, f);
  switch (number) {
    case SYS_futex:
      return call_futex(reinterpret_cast<const uint32_t*>(a), static_cast<int>(b),
                        static_cast<uint32_t>(c), reinterpret_cast<const timespec*>(d));
    case SYS_gettid:
      return active()->current().number;
    case SYS_getrandom:
      return getrandom(reinterpret_cast<void*>(a), static_cast<size_t>(b),
                       static_cast<unsigned>(c));
    default:
      return SLUICE_SYSTEM(syscall)(number, a, b, c, d, e, f);
  }
}

}  // extern "C"

using __cxxabiv1::__cxa_guard_abort;
using __cxxabiv1::__cxa_guard_acquire;
using __cxxabiv1::__cxa_guard_release;

namespace __cxxabiv1 {

extern "C" {

int __cxa_guard_acquire(__guard* guard) {
  if (active() == nullptr) return SLUICE_SYSTEM(__cxa_guard_acquire)(guard);
  if (*reinterpret_cast<const char*>(guard) != 0) return 0;
  if (!begin_once(progress_of(guard), guard)) return 0;
  return 1;
}

void __cxa_guard_release(__guard* guard) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(__cxa_guard_release)(guard);
  *reinterpret_cast<char*>(guard) = 1;
  end_once(progress_of(guard), guard, static_cast<char>(kDone));
}

void __cxa_guard_abort(__guard* guard) noexcept {
  if (active() == nullptr) return SLUICE_SYSTEM(__cxa_guard_abort)(guard);
  end_once(progress_of(guard), guard, static_cast<char>(0));
}

}  // extern "C"

}  // namespace __cxxabiv1

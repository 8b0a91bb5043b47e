// What a simulated thread runs on: a stack and thread-local storage of its own, but no thread of
// the operating system. All fibers of a process run on its one thread; going from one to another
// exchanges the stack pointer, the registers that a call preserves and the base of thread-local
// storage, without the kernel (tens of nanoseconds; a futex handoff between two threads of the
// system takes 3 to 4 us).
//
// A fiber's thread-local storage is made by the C library: pthread_create() is given the fiber's
// memory, and the thread leaves the kernel at once without giving anything back. So errno, locales,
// exceptions, thread_local variables and pthread_self() work as in any thread. Fibers that were
// made before a fork() are whole in the child.
//
// x86-64 Linux with glibc. Not thread-safe; a fiber that is made is never freed.
#ifndef SLUICE_TESTS_SIMULATION_FIBER_H_
#define SLUICE_TESTS_SIMULATION_FIBER_H_

#include <pthread.h>

#include <cstddef>
#include <cstdint>

namespace sluice::simulation {

class Fiber {
 public:
  // Aborts when the system has no memory or thread for it.
  static Fiber* make(size_t stack_bytes);
  // The stack and the storage that the caller runs on.
  static Fiber* adopt_caller();

  // What pthread_self() returns on it.
  pthread_t self() const { return self_; }
  // Its next switch_to() calls entry(argument) on an empty stack, with thread-local variables as a
  // new thread has them. `entry` never returns. Not for the running fiber.
  void begin(void (*entry)(void*), void* argument);
  // Goes on where `to` left off; returns when somebody switches back to this one, which must be
  // the running fiber.
  void switch_to(Fiber& to);

 private:
  Fiber() = default;
  void reset_thread_locals() const;

  pthread_t self_ = 0;
  char* top_ = nullptr;            // of the stack, below what the C library keeps there
  void* stack_pointer_ = nullptr;  // while it does not run
  bool used_ = false;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_FIBER_H_

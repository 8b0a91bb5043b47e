// The C library's own functions, behind those of the same names that this program defines in their
// place (thread_calls.cc, clock_calls.cc, file_calls.cc).
#ifndef SLUICE_TESTS_SIMULATION_SYSTEM_CALLS_H_
#define SLUICE_TESTS_SIMULATION_SYSTEM_CALLS_H_

#include <dlfcn.h>

namespace sluice::simulation {

// Without a guard: it is called before anything was constructed, and by what makes guards.
template <typename Function>
Function find_system_call(Function& known, const char* name) {
  if (known == nullptr) known = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  return known;
}

}  // namespace sluice::simulation

#define SLUICE_SYSTEM(name)                                      \
  ([] {                                                          \
    static constinit decltype(&::name) known = nullptr;          \
    return ::sluice::simulation::find_system_call(known, #name); \
  }())

#endif  // SLUICE_TESTS_SIMULATION_SYSTEM_CALLS_H_

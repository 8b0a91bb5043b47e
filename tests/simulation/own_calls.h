// Whether the functions of the C library that a simulation stands in for are this program's own.
#ifndef SLUICE_TESTS_SIMULATION_OWN_CALLS_H_
#define SLUICE_TESTS_SIMULATION_OWN_CALLS_H_

#include <dlfcn.h>
#include <gtest/gtest.h>

namespace sluice::simulation {

// `here`: a function of this program.
template <typename Names>
void expect_own_calls(const void* here, const Names& names) {
  Dl_info own{};
  ASSERT_NE(dladdr(here, &own), 0);
  for (const char* const name : names) {
    Dl_info found{};
    void* const address = dlsym(RTLD_DEFAULT, name);
    ASSERT_NE(address, nullptr) << name;
    ASSERT_NE(dladdr(address, &found), 0) << name;
    EXPECT_EQ(found.dli_fbase, own.dli_fbase) << name << " is of " << found.dli_fname;
  }
}

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_OWN_CALLS_H_

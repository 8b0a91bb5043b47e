// The calls that the caller is in, as text: with the names of this program's own functions, also
// those that no other library can see.
#ifndef SLUICE_TESTS_SIMULATION_STACK_TEXT_H_
#define SLUICE_TESTS_SIMULATION_STACK_TEXT_H_

#include <string>

namespace sluice::simulation {

// A line each, innermost first; the caller's own is left out. Its first call reads the program's
// table of symbols.
std::string own_stack();

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_STACK_TEXT_H_

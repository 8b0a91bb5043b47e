// The memory of a run: empty when it begins, at the same addresses in each run, whatever the parent
// has allocated before. Otherwise what depends on addresses, or on how much memory an allocation
// really got (RocksDB's count of its memory), would differ between two runs of a seed.
//
// In place of the C library's malloc() and its like, which it is outside of a run. For a process of
// one thread. Memory that was freed is used again for what is of the same size, and never returned.
#ifndef SLUICE_TESTS_SIMULATION_HEAP_H_
#define SLUICE_TESTS_SIMULATION_HEAP_H_

namespace sluice::simulation {

// From here on, in this process. What was allocated before may be freed; it is kept.
void begin_heap();

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_HEAP_H_

// RocksDB on a simulated disk: its own POSIX file system, through the functions of file_calls.cc,
// but for three things that would tie processes of the simulation to each other or cost each
// opening: locks are the file's (not a table of this program's), there is no log of what it does
// and no file of its options. And its background threads are this environment's, not the program's,
// so that they stop with the process that made them.
//
// One for each opening of a store, made by a thread of the process that opens it.
#ifndef SLUICE_TESTS_SIMULATION_ROCKSDB_DISK_H_
#define SLUICE_TESTS_SIMULATION_ROCKSDB_DISK_H_

#include <rocksdb/env.h>

#include <memory>

namespace sluice::simulation {

std::unique_ptr<rocksdb::Env> make_rocksdb_env();

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_ROCKSDB_DISK_H_

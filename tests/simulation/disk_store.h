// The store of node n1, on the disk that is mounted for it.
#ifndef SLUICE_TESTS_SIMULATION_DISK_STORE_H_
#define SLUICE_TESTS_SIMULATION_DISK_STORE_H_

#include <fmt/format.h>

#include <memory>

#include "dataplane/store/store.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {

// Ends the run where it cannot be opened.
inline std::unique_ptr<Store> open_disk_store(rocksdb::Env& env) {
  Store::Options options;
  options.folder = "/sim/n1/data";
  options.cluster = "cluster-uuid";
  options.node = "n1";
  options.node_number = 1;
  options.slot_bits = 4;
  options.memtable_bytes = size_t{1} << 20;
  options.block_cache_bytes = size_t{1} << 20;
  options.env = &env;
  auto store = Store::open(options);
  if (!store.ok()) fail(fmt::format("opening the store: {}", store.status().ToString()));
  return *std::move(store);
}

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_DISK_STORE_H_

// Whether this machine has what the tests on real verbs need.
#ifndef SLUICE_TESTS_DRIVERS_RDMA_HERE_H_
#define SLUICE_TESTS_DRIVERS_RDMA_HERE_H_

#include <string>

namespace sluice {

// An IPv4 address of an RDMA device of this machine: that of SLUICE_RDMA_ADDRESS, or the first
// active port's. Empty when there is none.
std::string rdma_address();

// Why rdma_address() is empty.
std::string why_no_rdma();

}  // namespace sluice

#endif  // SLUICE_TESTS_DRIVERS_RDMA_HERE_H_

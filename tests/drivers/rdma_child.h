// Peers in processes of their own, that can be killed and limited: this test program run again with
// a role.
#ifndef SLUICE_TESTS_DRIVERS_RDMA_CHILD_H_
#define SLUICE_TESTS_DRIVERS_RDMA_CHILD_H_

#include <sys/types.h>

#include <string>

#include "base/file.h"

namespace sluice {

class RdmaChild {
 public:
  // "receive" listens and takes what comes; "stall" takes four blocks and then nothing; "memlock"
  // tries to open an endpoint with a small limit on locked memory and says what happened.
  explicit RdmaChild(const std::string& role);
  ~RdmaChild();
  // The next line that it says; empty at its end.
  std::string line();
  void kill();

 private:
  pid_t pid_ = -1;
  UniqueFd output_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_DRIVERS_RDMA_CHILD_H_

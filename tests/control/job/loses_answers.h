// A cluster block whose answers can be lost, or that can be busy.
#ifndef SLUICE_TESTS_CONTROL_JOB_LOSES_ANSWERS_H_
#define SLUICE_TESTS_CONTROL_JOB_LOSES_ANSWERS_H_

#include <functional>
#include <vector>

#include "base/status.h"
#include "tests/control/node/forwarding_block.h"

namespace sluice {

// Makes commits, or not, and says that it does not know.
class LosesAnswers final : public ForwardingBlock {
 public:
  using ForwardingBlock::ForwardingBlock;
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    ++commits;
    if (refused > 0) {
      --refused;
      return unavailable("the cluster block is busy");
    }
    const auto revision = ForwardingBlock::commit(ops);
    if (!revision.ok() || lost == 0) return revision;
    --lost;
    if (meanwhile) meanwhile();
    return unavailable("the answer was lost");
  }
  int commits = 0;
  int refused = 0;
  int lost = 0;
  std::function<void()> meanwhile;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_JOB_LOSES_ANSWERS_H_

// What every plan is checked for, and how what is wrong is named. Internal to control/schedule.
// Pure.
#ifndef SLUICE_CONTROL_SCHEDULE_PLAN_RULES_H_
#define SLUICE_CONTROL_SCHEDULE_PLAN_RULES_H_

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "control/schedule/planner.h"

namespace sluice::schedule {

// Slots that cannot be planned: the first of them by number, how many they are, and which nodes
// would help. Confined to one thread.
class Shortage {
 public:
  void add(uint32_t slot);
  void add_node(const std::string& name) { nodes_.insert(name); }
  size_t count() const { return count_; }
  // "3, 7, 9, ..."
  std::string slots() const;
  // "n1, n2"
  std::string nodes() const;

 private:
  std::vector<uint32_t> first_;
  size_t count_ = 0;
  std::set<std::string> nodes_;
};

// INVALID_ARGUMENT for a target that is not one of so many nodes, is there twice, or has a weight
// that is not above 0.
absl::Status check_targets(std::span<const PlanTarget> targets, size_t nodes);
// Ascending.
std::vector<uint32_t> nodes_of(std::span<const PlanTarget> targets);

}  // namespace sluice::schedule

#endif  // SLUICE_CONTROL_SCHEDULE_PLAN_RULES_H_

// A plan by its nodes: for each what it sends and receives, as a plan of its own that has no other
// nodes than those it deals with. Immutable, so thread-safe.
#ifndef SLUICE_CONTROL_SCHEDULE_PLAN_PARTS_H_
#define SLUICE_CONTROL_SCHEDULE_PLAN_PARTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "control/schedule/planner.h"

namespace sluice {

class PlanParts {
 public:
  explicit PlanParts(Plan plan);
  PlanParts(const PlanParts&) = delete;
  PlanParts& operator=(const PlanParts&) = delete;
  // Its rates and loads are the whole plan's, its numbers of slots its own. Without nodes and slots
  // for a node that is not in the plan.
  Plan part_of(std::string_view node) const;

 private:
  const Plan plan_;
  std::unordered_map<std::string_view, uint32_t> nodes_;
  std::vector<std::vector<uint32_t>> slots_;  // by node, ascending: those that it sends or receives
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SCHEDULE_PLAN_PARTS_H_

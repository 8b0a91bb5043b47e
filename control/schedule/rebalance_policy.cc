#include "control/schedule/rebalance_policy.h"

namespace sluice {

void RebalancePolicy::begin(double now) {
  if (!has_begun()) first_began_ = now;
  began_ = now;
  next_ = now + options_.after_s;
}

bool RebalancePolicy::is_due(double now, double done_share) {
  if (!has_begun() || used_ >= options_.most) return false;
  if (now < next_ || done_share < options_.first_share) return false;
  next_ = began_ + seconds_since(now) * options_.again;
  return true;
}

bool RebalancePolicy::accept(const Rebalance& rebalance, double now) {
  if (rebalance.late.empty()) return false;
  const double gain = rebalance.seconds_as_planned - rebalance.replan.plan.makespan_s;
  if (gain < options_.least_gain * rebalance.seconds_as_planned) return false;
  const double all = now - first_began_ + rebalance.seconds_as_planned;
  if (gain < options_.least_of_all * all) return false;
  ++used_;
  return true;
}

}  // namespace sluice

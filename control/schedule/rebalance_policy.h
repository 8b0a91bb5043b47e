// When a coordinator looks whether nodes are slower than planned, and what gain is worth a new
// plan: each one costs the slots that are on their way. Pure: times are given, in seconds since
// any moment. Confined to one thread.
#ifndef SLUICE_CONTROL_SCHEDULE_REBALANCE_POLICY_H_
#define SLUICE_CONTROL_SCHEDULE_REBALANCE_POLICY_H_

#include "control/schedule/replan.h"

namespace sluice {

struct RebalanceOptions {
  int most = 6;                // new plans of one backup; 0: never
  double after_s = 10;         // a plan is followed at least that long
  double first_share = 0.2;    // and until this part of its slots is done
  double again = 1.5;          // the next look: when so many times as long has passed
  double least_gain = 0.35;    // of the time that is left
  double least_of_all = 0.05;  // and of all the time, from the first plan to the end
};

class RebalancePolicy {
 public:
  explicit RebalancePolicy(const RebalanceOptions& options) : options_(options) {}

  // Nodes follow a plan from now on.
  void begin(double now);
  bool has_begun() const { return began_ >= 0; }
  double seconds_since(double now) const { return now - began_; }
  // Whether to look now. done_share: of what that plan had to do. The next look comes later.
  bool is_due(double now, double done_share);
  // Whether to follow the new plan. It counts as one of `most` then.
  bool accept(const Rebalance& rebalance, double now);

 private:
  const RebalanceOptions options_;
  int used_ = 0;
  double first_began_ = -1;
  double began_ = -1;
  double next_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SCHEDULE_REBALANCE_POLICY_H_

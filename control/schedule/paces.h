// What nodes were seen to do in a plan so far, and what that makes of the rest. Internal to
// control/schedule; pure.
#ifndef SLUICE_CONTROL_SCHEDULE_PACES_H_
#define SLUICE_CONTROL_SCHEDULE_PACES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "control/schedule/replan.h"

namespace sluice::schedule {

// Who ends late, when what is left of a plan is done as planned.
struct Lateness {
  double seconds = 0;  // until the last living node has sent and received what is left
  // By node: it needs clearly longer than all together would if all were busy all the time.
  std::vector<uint8_t> senders;
  std::vector<uint8_t> receivers;
};
Lateness lateness_of(const Plan& plan, std::span<const uint8_t> done,
                     std::span<const NodePace> paces, std::span<const uint8_t> is_dead);

}  // namespace sluice::schedule

#endif  // SLUICE_CONTROL_SCHEDULE_PACES_H_

// Which nodes send to which targets in a plan, and how many peers that makes for each. Internal to
// control/schedule. Confined to one thread.
#ifndef SLUICE_CONTROL_SCHEDULE_PEER_LINKS_H_
#define SLUICE_CONTROL_SCHEDULE_PEER_LINKS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "control/schedule/assigner.h"

namespace sluice::schedule {

// A node that sends to itself uses no link. The cost of a call is linear in the sender's fan-out,
// which those who build plans keep small.
class PeerLinks {
 public:
  struct Link {
    uint32_t target = 0;
    uint32_t uses = 0;
  };

  explicit PeerLinks(size_t nodes) : links_(nodes), fan_in_(nodes) {}

  bool has(uint32_t sender, uint32_t target) const;
  void add(uint32_t sender, uint32_t target);
  // One use that was added. The link goes with its last one.
  void remove(uint32_t sender, uint32_t target);

  std::span<const Link> of(uint32_t sender) const { return links_[sender]; }
  uint32_t fan_out(uint32_t sender) const { return static_cast<uint32_t>(links_[sender].size()); }
  uint32_t fan_in(uint32_t target) const { return fan_in_[target]; }

 private:
  std::vector<std::vector<Link>> links_;  // by sender
  std::vector<uint32_t> fan_in_;
};

// Each sender and target between which slots go that are `counted` (by index in plan.slots), once,
// ascending; a node that sends to itself among them.
std::vector<std::pair<uint32_t, uint32_t>> pairs_of(const Plan& plan,
                                                    const std::function<bool(size_t)>& counted);

struct Fans {
  uint32_t largest_in = 0;
  uint32_t largest_out = 0;
};
// Of the slots that are still to be sent. freedom: by index in plan.slots.
Fans fans_of(const Plan& plan, std::span<const Freedom> freedom);

}  // namespace sluice::schedule

#endif  // SLUICE_CONTROL_SCHEDULE_PEER_LINKS_H_

#include "control/schedule/fan_assigner.h"

#include <algorithm>

namespace sluice::schedule {
namespace {

constexpr int kDivergentPasses = 3;
constexpr int kPeakPasses = 24;
// How far above the lower bound a node may end before its slots are placed again.
constexpr double kCeiling = 1.007;
// And while divergent slots are placed: these are large, so they have to leave room for agreed
// ones.
constexpr double kDivergentCeiling = 0.9;
// Costs are per byte, in units of a node's height: at a full node a byte costs 2.
constexpr double kCostOfWire = 0.1;  // of a link that is there
constexpr double kCostOfLink = 0.1;  // of a new one, far from the bound
constexpr double kCostAbove = 1000;  // of a link above the bound, or of a height above the ceiling

// What one peer more costs at a node that has `fan` of at most `most`.
double cost_of_peer(uint32_t fan, uint32_t most) {
  if (fan >= most) return kCostAbove * (1 + fan - most);
  const double part = static_cast<double>(fan) / most;
  const double square = part * part;
  const double fourth = square * square;
  return kCostOfLink / 2 + fourth * fourth;
}

}  // namespace

FanAssigner::FanAssigner(Plan* plan, std::span<const Freedom> freedom,
                         std::span<const PlanTarget> targets, std::span<const uint32_t> order,
                         double lower_bound)
    : plan_(*plan),
      freedom_(freedom),
      place_in_ranking_(plan_.nodes.size()),
      ranking_(static_cast<uint32_t>(targets.size())),
      fan_out_(plan_.fan),
      fan_in_(fan_in_bound(plan_.nodes.size(), targets.size(), plan_.fan)),
      send_(plan_.nodes.size()),
      receive_(plan_.nodes.size()),
      links_(plan_.nodes.size()) {
  for (const uint32_t i : order) {
    const Freedom needed = plan_.slots[i].agreed ? Freedom::kSender : Freedom::kAll;
    if (freedom_[i] >= needed) order_.push_back(i);
  }
  for (const PlanTarget& target : targets) {
    place_in_ranking_[target.node] = static_cast<uint32_t>(targets_.size());
    targets_.push_back(target.node);
  }
  set_capacities(targets, lower_bound);
}

// Targets share what is received by weight; their rates together are what they take.
void FanAssigner::set_capacities(std::span<const PlanTarget> targets, double lower_bound) {
  double weight = 0;
  double rate = 0;
  for (const PlanTarget& target : targets) {
    weight += target.weight;
    rate += plan_.nodes[target.node].receive_rate;
  }
  for (const PlanTarget& target : targets) {
    receive_[target.node].capacity = lower_bound * rate * target.weight / weight;
  }
  for (size_t n = 0; n < send_.size(); ++n) {
    send_[n].capacity = lower_bound * plan_.nodes[n].send_rate;
  }
}

void FanAssigner::run() {
  count_fixed();
  set_ceiling(kDivergentCeiling);
  place_divergent_slots();
  set_ceiling(kInfinite);
  reserve_links();
  for (const uint32_t i : order_) {
    if (plan_.slots[i].agreed) place(i, {});
  }
  for (const uint32_t i : order_) {
    if (plan_.slots[i].agreed) place_again(i);
  }
  set_ceiling(kCeiling);
  lower_peaks();
  trade_at_peaks();
}

// What cannot be changed. Divergent slots are sent by all wherever they go, so their sending counts
// from the beginning, too.
void FanAssigner::count_fixed() {
  std::vector<uint8_t> is_free(plan_.slots.size());
  for (const uint32_t i : order_) is_free[i] = 1;
  for (size_t i = 0; i < plan_.slots.size(); ++i) {
    const SlotPlan& slot = plan_.slots[i];
    if (freedom_[i] == Freedom::kDone || (slot.agreed && is_free[i] != 0)) continue;
    for (const PlanCopy& sent : plan_.senders_of(slot)) {
      send_[sent.node].bytes += sent.bytes;
      if (is_free[i] != 0) continue;
      receive_[slot.target].bytes += sent.bytes;
      links_.add(sent.node, slot.target);
    }
  }
}

void FanAssigner::place_divergent_slots() {
  for (int pass = 0; pass < kDivergentPasses; ++pass) {
    for (const uint32_t i : order_) {
      if (plan_.slots[i].agreed) continue;
      if (pass > 0) take_up(i);
      place(i, {});
    }
  }
}

std::vector<uint32_t> FanAssigner::sources_without_links() const {
  std::vector<uint8_t> is_source(plan_.nodes.size());
  for (const uint32_t i : order_) {
    const SlotPlan& slot = plan_.slots[i];
    if (!slot.agreed || freedom_[i] != Freedom::kAll) continue;
    for (const PlanCopy& held : plan_.copies_of(slot)) is_source[held.node] = 1;
  }
  std::vector<uint32_t> sources;
  for (uint32_t n = 0; n < is_source.size(); ++n) {
    if (is_source[n] != 0 && !is_target(n) && links_.fan_out(n) == 0) sources.push_back(n);
  }
  return sources;
}

// The fastest sources get the targets that have room for most.
void FanAssigner::reserve_links() {
  std::vector<uint32_t> sources = sources_without_links();
  std::stable_sort(sources.begin(), sources.end(), [this](uint32_t a, uint32_t b) {
    return send_[a].capacity > send_[b].capacity;
  });
  LeastKey fill(static_cast<uint32_t>(targets_.size()));
  for (uint32_t i = 0; i < targets_.size(); ++i) fill.set(i, 0);
  for (const uint32_t source : sources) {
    const uint32_t place = fill.least();
    const uint32_t target = targets_[place];
    links_.add(source, target);
    const bool full = links_.fan_in(target) >= fan_in_;
    fill.set(place, full ? kInfinite
                         : fill.key(place) + send_[source].capacity / receive_[target].capacity);
  }
}

// Per byte: the derivative of the square of its height, halfway.
double FanAssigner::load_cost(const Load& load, uint64_t bytes) const {
  if (load.capacity <= 0) return 0;
  const auto more = static_cast<double>(bytes);
  const double above = load.height(more) - ceiling_;
  return load.height() + load.height(more) + (above > 0 ? kCostAbove * above : 0);
}

double FanAssigner::link_cost(uint32_t sender, uint32_t target) const {
  if (sender == target) return 0;
  if (links_.has(sender, target)) return kCostOfWire;
  return cost_of_peer(links_.fan_out(sender), fan_out_) +
         cost_of_peer(links_.fan_in(target), fan_in_);
}

// A node that takes in as much as it sends of divergent slots can keep agreed ones to itself, so
// what it sends makes room.
double FanAssigner::divergent_cost(const SlotPlan& slot, uint64_t bytes, uint32_t target) const {
  double cost = load_cost(receive_[target], bytes) - 2 * send_[target].height();
  uint32_t fan_in = links_.fan_in(target);
  for (const PlanCopy& sent : plan_.copies_of(slot)) {
    if (sent.node == target || links_.has(sent.node, target)) continue;
    cost += cost_of_peer(links_.fan_out(sent.node), fan_out_) + cost_of_peer(fan_in++, fan_in_);
  }
  return cost;
}

// Its holders, those they talk to already, and the one that has most room.
FanAssigner::Choice FanAssigner::best_divergent(const SlotPlan& slot) const {
  const uint64_t bytes = plan_.bytes_of(slot);
  Choice best;
  const auto consider = [&](uint32_t target) {
    if (!is_target(target)) return;
    const double cost = divergent_cost(slot, bytes, target);
    if (cost < best.cost) best = {cost, 0, target};
  };
  for (const PlanCopy& held : plan_.copies_of(slot)) {
    consider(held.node);
    for (const PeerLinks::Link& link : links_.of(held.node)) consider(link.target);
  }
  consider(least_filled_target());
  return best;
}

FanAssigner::Choice FanAssigner::best_agreed(const SlotPlan& slot, bool choose_target,
                                             const Avoided& avoided) const {
  Choice best;
  for (uint32_t c = 0; c < slot.copies; ++c) {
    const PlanCopy& held = copy(slot, c);
    if (held.node == avoided.sender) continue;
    const double send_cost = load_cost(send_[held.node], held.bytes);
    const auto consider = [&](uint32_t target, double link_cost) {
      if (target == avoided.target) return;
      const double cost = send_cost + load_cost(receive_[target], held.bytes) + link_cost;
      if (cost < best.cost) best = {cost, c, target};
    };
    if (!choose_target) {
      consider(slot.target, link_cost(held.node, slot.target));
      continue;
    }
    if (is_target(held.node)) consider(held.node, 0);
    for (const PeerLinks::Link& link : links_.of(held.node)) {
      if (is_target(link.target)) consider(link.target, kCostOfWire);
    }
    const uint32_t emptiest = least_filled_target();
    consider(emptiest, link_cost(held.node, emptiest));
  }
  return best;
}

bool FanAssigner::place(uint32_t index, const Avoided& avoided) {
  SlotPlan placed = plan_.slots[index];
  const Choice best = placed.agreed ? best_agreed(placed, freedom_[index] == Freedom::kAll, avoided)
                                    : best_divergent(placed);
  if (best.cost == kInfinite) return false;
  placed.sender = best.sender;
  placed.target = best.target;
  put(index, placed);
  return true;
}

void FanAssigner::put(uint32_t index, const SlotPlan& placed) {
  plan_.slots[index] = placed;
  for (const PlanCopy& sent : plan_.senders_of(placed)) {
    receive_[placed.target].bytes += sent.bytes;
    links_.add(sent.node, placed.target);
    if (placed.agreed) send_[sent.node].bytes += sent.bytes;
  }
  rank_target(placed.target);
}

void FanAssigner::take_up(uint32_t index) {
  const SlotPlan& slot = plan_.slots[index];
  for (const PlanCopy& sent : plan_.senders_of(slot)) {
    receive_[slot.target].bytes -= sent.bytes;
    links_.remove(sent.node, slot.target);
    if (slot.agreed) send_[sent.node].bytes -= sent.bytes;
  }
  rank_target(slot.target);
}

void FanAssigner::place_again(uint32_t index) {
  take_up(index);
  place(index, {});
}

void FanAssigner::put_back(const Moved& moved) {
  take_up(moved.index);
  put(moved.index, moved.before);
}

// Without a ceiling the one that is filled least for its weight, so that all fill evenly; below a
// ceiling the one that has most room.
void FanAssigner::rank_target(uint32_t node) {
  if (!is_target(node)) return;
  const Load& load = receive_[node];
  double key = ceiling_ == kInfinite ? load.height()
                                     : static_cast<double>(load.bytes) - ceiling_ * load.capacity;
  if (links_.fan_in(node) >= fan_in_) key += load.capacity * kCostAbove;
  ranking_.set(place_in_ranking_[node], key);
}

void FanAssigner::set_ceiling(double ceiling) {
  ceiling_ = ceiling;
  for (const uint32_t target : targets_) rank_target(target);
}

bool FanAssigner::is_at_peak(const SlotPlan& slot) const {
  return is_above(receive_[slot.target]) || (slot.agreed && is_above(send_[sender_node(slot)]));
}

void FanAssigner::lower_peaks() {
  for (int pass = 0; pass < kPeakPasses; ++pass) {
    bool moved = false;
    for (const uint32_t i : order_) {
      const SlotPlan before = plan_.slots[i];
      if (!is_at_peak(before)) continue;
      place_again(i);
      moved = moved || !(plan_.slots[i] == before);
    }
    if (!moved) return;
  }
}

void FanAssigner::list_at_nodes(uint32_t index) {
  const SlotPlan& slot = plan_.slots[index];
  const uint32_t sender = sender_node(slot);
  slots_at_[sender].push_back(index);
  if (slot.target != sender) slots_at_[slot.target].push_back(index);
}

void FanAssigner::trade_at_peaks() {
  slots_at_.resize(plan_.nodes.size());
  for (const uint32_t i : order_) {
    if (plan_.slots[i].agreed) list_at_nodes(i);
  }
  for (uint32_t node = 0; node < send_.size(); ++node) trade_at(node);
}

// Its smallest slots first: they find room most easily.
void FanAssigner::trade_at(uint32_t node) {
  const std::vector<uint32_t> own = slots_at_[node];
  for (size_t k = own.size(); k > 0 && is_peak(node); --k) {
    const uint32_t i = own[k - 1];
    const bool sends_too_much = is_above(send_[node]);
    std::vector<Moved> moved{{i, plan_.slots[i]}};
    const SlotPlan& slot = plan_.slots[i];
    if ((sends_too_much ? sender_node(slot) : slot.target) != node) continue;
    take_up(i);
    if (!place(i, sends_too_much ? Avoided{node, kNobody} : Avoided{kNobody, node})) {
      put(i, moved[0].before);
      continue;
    }
    if (relieve(sender_node(slot), i, moved) && relieve(slot.target, i, moved)) {
      for (const Moved& one : moved) list_at_nodes(one.index);
    } else {
      for (size_t m = moved.size(); m > 0; --m) put_back(moved[m - 1]);
    }
  }
}

bool FanAssigner::relieve(uint32_t node, uint32_t except, std::vector<Moved>& moved) {
  if (!is_peak(node)) return true;
  for (const uint32_t i : slots_at_[node]) {
    const Moved tried{i, plan_.slots[i]};
    if (i == except || (tried.before.target != node && sender_node(tried.before) != node)) continue;
    place_again(i);
    if (!is_peak(node) && !is_at_peak(plan_.slots[i])) {
      moved.push_back(tried);
      return true;
    }
    put_back(tried);
  }
  return false;
}

}  // namespace sluice::schedule

#include "control/schedule/assigner.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "control/schedule/fan_assigner.h"
#include "control/schedule/peer_links.h"

namespace sluice::schedule {
namespace {

constexpr int kPasses = 24;
// Swaps look at pairs, so they are for nodes with few slots; with many, moves already come within
// one small slot of the optimum.
constexpr size_t kSwapSlots = 512;
constexpr int kSwaps = 256;
// A gain below this part is rounding.
constexpr double kGain = 1 - 1e-9;

}  // namespace

Assigner::Assigner(Plan* plan, std::vector<Freedom> freedom, std::span<const PlanTarget> targets)
    : plan_(*plan),
      freedom_(std::move(freedom)),
      targets_(targets),
      send_(plan_.nodes.size()),
      receive_(plan_.nodes.size()),
      target_weight_(plan_.nodes.size()) {
  for (const PlanTarget& target : targets_) target_weight_[target.node] = target.weight;
}

void Assigner::run() {
  const std::vector<uint32_t> order = largest_first();
  count_fixed();
  choose_targets(order);
  choose_senders(order);
  improve_by_moves(order);
  improve_by_swaps();
  prefer_local();
  sum_up();
  if (is_within_fans()) return;
  FanAssigner(&plan_, freedom_, targets_, order, plan_.lower_bound_s).run();
  sum_up();
}

bool Assigner::is_within_fans() const {
  if (plan_.fan == 0) return true;
  return plan_.largest_fan_out <= plan_.fan &&
         plan_.largest_fan_in <= fan_in_bound(plan_.nodes.size(), targets_.size(), plan_.fan);
}

std::vector<uint32_t> Assigner::largest_first() const {
  std::vector<std::pair<uint64_t, uint32_t>> keyed;
  for (uint32_t i = 0; i < plan_.slots.size(); ++i) {
    if (freedom_[i] >= Freedom::kSender) keyed.emplace_back(plan_.bytes_of(plan_.slots[i]), i);
  }
  std::sort(keyed.begin(), keyed.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::vector<uint32_t> order;
  order.reserve(keyed.size());
  for (const auto& [bytes, index] : keyed) order.push_back(index);
  return order;
}

void Assigner::count_fixed() {
  for (size_t i = 0; i < plan_.slots.size(); ++i) {
    const SlotPlan& slot = plan_.slots[i];
    if (freedom_[i] == Freedom::kDone) continue;
    if (freedom_[i] != Freedom::kAll) receive_[slot.target] += plan_.bytes_of(slot);
    if (may_choose_sender(i)) continue;
    for (const PlanCopy& sent : plan_.senders_of(slot)) send_[sent.node] += sent.bytes;
  }
}

void Assigner::choose_targets(const std::vector<uint32_t>& order) {
  double bytes =
      static_cast<double>(std::accumulate(receive_.begin(), receive_.end(), uint64_t{0}));
  double weight = 0;
  for (const uint32_t i : order) {
    if (freedom_[i] == Freedom::kAll) bytes += static_cast<double>(plan_.bytes_of(plan_.slots[i]));
  }
  for (const PlanTarget& target : targets_) weight += target.weight;
  for (const uint32_t i : order) {
    if (freedom_[i] != Freedom::kAll) continue;
    SlotPlan& slot = plan_.slots[i];
    const uint64_t size = plan_.bytes_of(slot);
    slot.target = best_target(slot, size, bytes / weight);
    receive_[slot.target] += size;
  }
}

// The target that is filled least by it, for its weight. One that holds the slot is taken before
// others as long as it is not filled beyond `level`, the height at which all are even: it need not
// use the network.
uint32_t Assigner::best_target(const SlotPlan& slot, uint64_t bytes, double level) const {
  const auto height = [&](uint32_t node) {
    return static_cast<double>(receive_[node] + bytes) / target_weight_[node];
  };
  double best = std::numeric_limits<double>::infinity();
  uint32_t chosen = 0;
  for (const PlanCopy& held : plan_.copies_of(slot)) {
    if (target_weight_[held.node] <= 0) continue;
    if (const double h = height(held.node); h < best) {
      best = h;
      chosen = held.node;
    }
  }
  if (best <= level) return chosen;
  best = std::numeric_limits<double>::infinity();
  for (const PlanTarget& target : targets_) {
    if (const double h = height(target.node); h < best) {
      best = h;
      chosen = target.node;
    }
  }
  return chosen;
}

void Assigner::choose_senders(const std::vector<uint32_t>& order) {
  for (const uint32_t i : order) {
    if (!may_choose_sender(i)) continue;
    SlotPlan& slot = plan_.slots[i];
    double best = std::numeric_limits<double>::infinity();
    for (uint32_t c = 0; c < slot.copies; ++c) {
      const PlanCopy& held = copy(slot, c);
      const double end = send_time(held.node, send_[held.node] + held.bytes);
      if (end < best || (end == best && held.node == slot.target)) {
        best = end;
        slot.sender = c;
      }
    }
    send_[sender_node(slot)] += copy(slot, slot.sender).bytes;
  }
}

void Assigner::improve_by_moves(const std::vector<uint32_t>& order) {
  for (int pass = 0; pass < kPasses; ++pass) {
    bool moved = false;
    for (const uint32_t i : order) {
      if (!may_choose_sender(i)) continue;
      SlotPlan& slot = plan_.slots[i];
      const uint32_t now = sender_node(slot);
      double best = send_time(now, send_[now]) * kGain;
      uint32_t chosen = slot.sender;
      for (uint32_t c = 0; c < slot.copies; ++c) {
        const PlanCopy& held = copy(slot, c);
        if (held.node == now) continue;
        const double end = send_time(held.node, send_[held.node] + held.bytes);
        if (end < best) {
          best = end;
          chosen = c;
        }
      }
      if (chosen == slot.sender) continue;
      send_[now] -= copy(slot, slot.sender).bytes;
      slot.sender = chosen;
      send_[sender_node(slot)] += copy(slot, chosen).bytes;
      moved = true;
    }
    if (!moved) return;
  }
}

void Assigner::improve_by_swaps() {
  for (int i = 0; i < kSwaps; ++i) {
    if (!swap_once()) return;
  }
}

bool Assigner::swap_once() {
  uint32_t last = 0;
  for (uint32_t n = 1; n < send_.size(); ++n) {
    if (send_time(n, send_[n]) > send_time(last, send_[last])) last = n;
  }
  std::vector<uint32_t> own;
  std::vector<uint32_t> others;  // slots that `last` holds and somebody else sends
  for (uint32_t i = 0; i < plan_.slots.size(); ++i) {
    if (!may_choose_sender(i)) continue;
    const SlotPlan& slot = plan_.slots[i];
    if (sender_node(slot) == last) {
      own.push_back(i);
      if (own.size() > kSwapSlots) return false;
      continue;
    }
    for (const PlanCopy& held : plan_.copies_of(slot)) {
      if (held.node == last && others.size() < kSwapSlots) others.push_back(i);
    }
  }
  const double now = send_time(last, send_[last]);
  for (const uint32_t mine : own) {
    SlotPlan& give = plan_.slots[mine];
    const uint64_t given = copy(give, give.sender).bytes;
    for (uint32_t c = 0; c < give.copies; ++c) {
      const uint32_t other = copy(give, c).node;
      if (other == last) continue;
      for (const uint32_t theirs : others) {
        SlotPlan& take = plan_.slots[theirs];
        if (sender_node(take) != other) continue;
        const uint64_t taken = copy(take, take.sender).bytes;
        if (taken >= given) continue;
        if (send_time(last, send_[last] - given + taken) >= now * kGain) continue;
        if (send_time(other, send_[other] + given - taken) >= now * kGain) continue;
        send_[last] -= given - taken;
        send_[other] += given - taken;
        give.sender = c;
        uint32_t back = 0;
        while (copy(take, back).node != last) ++back;
        take.sender = back;
        return true;
      }
    }
  }
  return false;
}

double Assigner::send_makespan() const {
  double makespan = 0;
  for (uint32_t n = 0; n < send_.size(); ++n) makespan = std::max(makespan, send_time(n, send_[n]));
  return makespan;
}

// A target that can send to itself without becoming the last to end spares the network.
void Assigner::prefer_local() {
  double makespan = send_makespan();
  for (uint32_t n = 0; n < receive_.size(); ++n) {
    makespan = std::max(makespan, static_cast<double>(receive_[n]) / plan_.nodes[n].receive_rate);
  }
  for (size_t i = 0; i < plan_.slots.size(); ++i) {
    SlotPlan& slot = plan_.slots[i];
    if (!may_choose_sender(i) || sender_node(slot) == slot.target) continue;
    for (uint32_t c = 0; c < slot.copies; ++c) {
      const PlanCopy& held = copy(slot, c);
      if (held.node != slot.target) continue;
      if (send_time(held.node, send_[held.node] + held.bytes) > makespan) continue;
      send_[sender_node(slot)] -= copy(slot, slot.sender).bytes;
      slot.sender = c;
      send_[held.node] += held.bytes;
    }
  }
}

void Assigner::sum_up() {
  plan_.loads.assign(plan_.nodes.size(), {});
  plan_.slots_agreed = 0;
  plan_.slots_divergent = 0;
  for (size_t i = 0; i < plan_.slots.size(); ++i) {
    const SlotPlan& slot = plan_.slots[i];
    ++(slot.agreed ? plan_.slots_agreed : plan_.slots_divergent);
    if (freedom_[i] == Freedom::kDone) continue;
    for (const PlanCopy& sent : plan_.senders_of(slot)) {
      plan_.loads[sent.node].send_bytes += sent.bytes;
      plan_.loads[slot.target].receive_bytes += sent.bytes;
      if (sent.node == slot.target) plan_.loads[slot.target].local_bytes += sent.bytes;
    }
  }
  plan_.makespan_s = 0;
  for (size_t n = 0; n < plan_.nodes.size(); ++n) {
    const double send = static_cast<double>(plan_.loads[n].send_bytes) / plan_.nodes[n].send_rate;
    const double receive =
        static_cast<double>(plan_.loads[n].receive_bytes) / plan_.nodes[n].receive_rate;
    plan_.makespan_s = std::max({plan_.makespan_s, send, receive});
  }
  plan_.lower_bound_s = std::min(lower_bound(), plan_.makespan_s);
  const Fans fans = fans_of(plan_, freedom_);
  plan_.largest_fan_in = fans.largest_in;
  plan_.largest_fan_out = fans.largest_out;
}

// Sending: for each set of nodes that end last, what only they can send over their common rate (all
// such sets together, by the rank of a slot's earliest-ending holder), and each slot at its fastest
// holder. Receiving: everything over all targets' rates.
double Assigner::lower_bound() const {
  std::vector<uint32_t> by_end(send_.size());
  std::iota(by_end.begin(), by_end.end(), 0);
  std::stable_sort(by_end.begin(), by_end.end(), [&](uint32_t a, uint32_t b) {
    return send_time(a, send_[a]) > send_time(b, send_[b]);
  });
  std::vector<uint32_t> rank(send_.size());
  for (uint32_t r = 0; r < by_end.size(); ++r) rank[by_end[r]] = r;

  std::vector<double> confined(
      send_.size());  // bytes that nodes up to this rank, and not fewer, must send
  double bound = 0;
  double received = 0;
  double largest = 0;
  for (size_t i = 0; i < plan_.slots.size(); ++i) {
    const SlotPlan& slot = plan_.slots[i];
    if (freedom_[i] == Freedom::kDone) continue;
    const auto size = static_cast<double>(plan_.bytes_of(slot));
    received += size;
    largest = std::max(largest, size);
    if (!slot.agreed) {
      for (const PlanCopy& held : plan_.copies_of(slot)) {
        confined[rank[held.node]] += static_cast<double>(held.bytes);
      }
      continue;
    }
    uint32_t last_rank = 0;
    double fastest = std::numeric_limits<double>::infinity();
    for (const PlanCopy& held : plan_.copies_of(slot)) {
      last_rank = std::max(last_rank, rank[held.node]);
      fastest = std::min(fastest, send_time(held.node, held.bytes));
    }
    confined[last_rank] += size;
    bound = std::max(bound, fastest);
  }
  double bytes = 0;
  double rate = 0;
  for (uint32_t r = 0; r < by_end.size(); ++r) {
    bytes += confined[r];
    rate += plan_.nodes[by_end[r]].send_rate;
    bound = std::max(bound, bytes / rate);
  }
  double target_rate = 0;
  double fastest_target = 0;
  for (const uint32_t node : plan_.targets) {
    target_rate += plan_.nodes[node].receive_rate;
    fastest_target = std::max(fastest_target, plan_.nodes[node].receive_rate);
  }
  if (received > 0) bound = std::max({bound, received / target_rate, largest / fastest_target});
  return bound;
}

}  // namespace sluice::schedule

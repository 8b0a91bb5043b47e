#include "control/schedule/paces.h"

#include <algorithm>
#include <array>
#include <optional>

#include "control/schedule/peer_links.h"

namespace sluice {
namespace {

// Of a plan's bytes: with less done there is nothing to tell.
constexpr double kLeastDone = 0.1;
// Slots that a node was to move by now, when it moves at the median pace.
constexpr double kLeastSlots = 10;
// Of a slot of average size, on the way between each two nodes that still have some: to judge by,
// and to tell a rate by.
constexpr double kMostOnTheWay = 1;
constexpr double kUsuallyOnTheWay = 0.5;
// A node that has done less of its part than this of the median is slow. Looked for from the
// slowest on, because who waits for a slow one looks slow as well.
constexpr std::array<double, 3> kSlow = {0.4, 0.5, 0.6};
// A slow node is planned to be slower still: a slot takes it long, so it is late by much when it is
// late at all, and what it could do besides matters little to the others.
constexpr double kSlowMargin = 0.7;
// Of the time in which all could do all that is left.
constexpr double kLate = 1.05;
// Nobody is taken to be slower than this part of what the plan took it for: it may have been away
// for a while, and one that is slower still is found again by the next look.
constexpr double kLeastShare = 1.0 / 8;

// What one node has to send, or to receive.
struct Part {
  uint64_t all = 0;
  uint64_t done = 0;
  uint32_t slots = 0;
  uint32_t open_peers = 0;  // that slots are left for, itself among them
  double share() const { return static_cast<double>(done) / static_cast<double>(all); }
  // Bytes, with so much of a slot on the way from or to each peer.
  double moved(double on_the_way) const {
    const double slot = static_cast<double>(all) / std::max(slots, 1u);
    return std::min(static_cast<double>(all),
                    static_cast<double>(done) +
                        on_the_way * slot * static_cast<double>(std::min(open_peers, kPlanFan)));
  }
};

struct Parts {
  std::vector<Part> send;
  std::vector<Part> receive;
};

bool is_set(std::span<const uint8_t> marks, size_t index) {
  return !marks.empty() && marks[index] != 0;
}

void count(Part& part, uint64_t bytes, bool is_done) {
  part.all += bytes;
  ++part.slots;
  if (is_done) part.done += bytes;
}

// Without what the other side is known to be slow at.
Parts count_parts(const Plan& plan, const PlanProgress& progress, std::span<const NodePace> paces) {
  Parts parts{std::vector<Part>(plan.nodes.size()), std::vector<Part>(plan.nodes.size())};
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    if (is_set(progress.done_before, i)) continue;
    const SlotPlan& slot = plan.slots[i];
    const bool is_done = is_set(progress.done, i);
    const bool slow_target = paces[slot.target].is_slow_receiver;
    for (const PlanCopy& sent : plan.senders_of(slot)) {
      if (!slow_target) count(parts.send[sent.node], sent.bytes, is_done);
      if (!paces[sent.node].is_slow_sender) count(parts.receive[slot.target], sent.bytes, is_done);
    }
  }
  return parts;
}

// Who still has slots for whom.
void count_open_peers(const Plan& plan, const PlanProgress& progress, Parts& parts) {
  const auto is_open = [&](size_t i) {
    return !is_set(progress.done_before, i) && !is_set(progress.done, i);
  };
  for (const auto& [sender, target] : schedule::pairs_of(plan, is_open)) {
    ++parts.send[sender].open_peers;
    ++parts.receive[target].open_peers;
  }
}

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::optional<double> median_share(const Parts& parts) {
  std::vector<double> shares;
  for (const auto* side : {&parts.send, &parts.receive}) {
    for (const Part& part : *side) {
      if (part.all > 0) shares.push_back(part.share());
    }
  }
  return median(std::move(shares));
}

double done_share(const Parts& parts) {
  double all = 0;
  double done = 0;
  for (const Part& part : parts.send) {
    all += static_cast<double>(part.all);
    done += static_cast<double>(part.done);
  }
  return all > 0 ? done / all : 0;
}

// Those who are not slow, as a part of what the plan took them for. Of the side that has more to
// do: the other one could do more.
double common_share(const Plan& plan, const Parts& parts, std::span<const NodePace> paces,
                    double seconds) {
  std::vector<double> sent;
  std::vector<double> received;
  for (size_t n = 0; n < paces.size(); ++n) {
    const Part& send = parts.send[n];
    const Part& receive = parts.receive[n];
    if (!paces[n].is_slow_sender && send.done > 0) {
      sent.push_back(static_cast<double>(send.done) / seconds / plan.nodes[n].send_rate);
    }
    if (!paces[n].is_slow_receiver && receive.done > 0) {
      received.push_back(static_cast<double>(receive.done) / seconds / plan.nodes[n].receive_rate);
    }
  }
  const double share =
      std::max(median(std::move(sent)).value_or(0), median(std::move(received)).value_or(0));
  return share > 0 ? share : 1;
}

// One that is behind on one side only may just be busy with the other one: it takes from its peers
// first and from itself last, say. So both together have to be behind as well.
void find_slow(const Parts& parts, double least, double middle, std::vector<NodePace>& paces) {
  const auto is_behind = [&](const Part& part) {
    return part.slots * middle >= kLeastSlots &&
           part.moved(kMostOnTheWay) < least * middle * static_cast<double>(part.all);
  };
  for (size_t n = 0; n < paces.size(); ++n) {
    const Part& send = parts.send[n];
    const Part& receive = parts.receive[n];
    const auto all = static_cast<double>(send.all + receive.all);
    const double moved = send.moved(kMostOnTheWay) + receive.moved(kMostOnTheWay);
    if (moved >= kSlow.back() * middle * all) continue;
    if (is_behind(send)) paces[n].is_slow_sender = true;
    if (is_behind(receive)) paces[n].is_slow_receiver = true;
  }
}

}  // namespace

std::vector<NodePace> paces_of(const Plan& plan, const PlanProgress& progress) {
  std::vector<NodePace> paces(plan.nodes.size());
  for (size_t n = 0; n < paces.size(); ++n) {
    paces[n] = {plan.nodes[n].send_rate, plan.nodes[n].receive_rate, false, false};
  }
  Parts whole = count_parts(plan, progress, paces);
  if (progress.seconds <= 0 || done_share(whole) < kLeastDone) return paces;
  for (const double least : kSlow) {
    Parts parts = count_parts(plan, progress, paces);
    count_open_peers(plan, progress, parts);
    if (const auto middle = median_share(parts)) find_slow(parts, least, *middle, paces);
  }
  count_open_peers(plan, progress, whole);
  const double common = common_share(plan, whole, paces, progress.seconds);
  const auto seen = [&](const Part& part, double promised, bool is_slow) {
    if (!is_slow) return promised * common;
    const double rate = kSlowMargin * part.moved(kUsuallyOnTheWay) / progress.seconds;
    return std::clamp(rate, promised * common * kLeastShare, promised * common);
  };
  for (size_t n = 0; n < paces.size(); ++n) {
    NodePace& pace = paces[n];
    pace.send_rate = seen(whole.send[n], pace.send_rate, pace.is_slow_sender);
    pace.receive_rate = seen(whole.receive[n], pace.receive_rate, pace.is_slow_receiver);
  }
  return paces;
}

namespace schedule {

Lateness lateness_of(const Plan& plan, std::span<const uint8_t> done,
                     std::span<const NodePace> paces, std::span<const uint8_t> is_dead) {
  std::vector<double> send(plan.nodes.size());
  std::vector<double> receive(plan.nodes.size());
  double bytes = 0;
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    const SlotPlan& slot = plan.slots[i];
    if (is_set(done, i)) continue;
    for (const PlanCopy& sent : plan.senders_of(slot)) {
      const auto size = static_cast<double>(sent.bytes);
      bytes += size;
      send[sent.node] += size / paces[sent.node].send_rate;
      receive[slot.target] += size / paces[slot.target].receive_rate;
    }
  }
  double send_rate = 0;
  double receive_rate = 0;
  for (size_t n = 0; n < paces.size(); ++n) {
    if (!is_set(is_dead, n)) send_rate += paces[n].send_rate;
  }
  for (const uint32_t target : plan.targets) {
    if (!is_set(is_dead, target)) receive_rate += paces[target].receive_rate;
  }
  const double all_busy = std::max(bytes / send_rate, bytes / receive_rate);
  Lateness lateness{0, std::vector<uint8_t>(paces.size()), std::vector<uint8_t>(paces.size())};
  for (size_t n = 0; n < paces.size(); ++n) {
    if (is_set(is_dead, n)) continue;
    lateness.seconds = std::max({lateness.seconds, send[n], receive[n]});
    lateness.senders[n] = send[n] > kLate * all_busy ? 1 : 0;
    lateness.receivers[n] = receive[n] > kLate * all_busy ? 1 : 0;
  }
  return lateness;
}

}  // namespace schedule
}  // namespace sluice

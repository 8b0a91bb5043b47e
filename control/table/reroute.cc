// Augmenting paths of the flow "donor -> slot -> taker": one more copy is placed by filling, or
// giving back, places that were filled in this refill, so that no further copy moves. When none is
// found from all donors together, none exists (racks apart).
#include <algorithm>
#include <deque>
#include <set>
#include <utility>

#include "control/table/builder.h"

namespace sluice::table {
namespace {

constexpr uint32_t kNowhere = UINT32_MAX;  // the slot of a step that starts a path

}  // namespace

struct Builder::Search {
  struct Step {
    uint16_t from = kHole;  // who leaves the place; kHole: a hole is filled
    Place place{kNowhere, 0};
    // Where the member comes to. Another place of the same slot if it gets its former place back:
    // who is there now moves to `place`.
    Place arrival{kNowhere, 0};
    bool seen = false;
  };
  std::vector<Step> steps;  // how each member is reached
  std::vector<uint16_t> unseen_takers;
  std::vector<std::vector<Place>> kept;    // places that a donor has had all along
  std::vector<std::vector<Place>> filled;  // fresh places, by who is there now
  std::vector<uint32_t> fresh_at;          // index in fresh_ and 1, by place; 0: not fresh
  std::deque<uint16_t> queue;
  uint16_t found = kHole;
};

bool Builder::reroute() {
  Search state;
  state.steps.resize(quotas_.size());
  state.unseen_takers = all_takers_;
  state.kept.resize(quotas_.size());
  state.filled.resize(quotas_.size());
  state.fresh_at.resize(layout_.size());
  std::vector<uint8_t> is_donor(quotas_.size());
  for (size_t m = 0; m < surplus_.size(); ++m) is_donor[m] = surplus_[m] > 0;
  for (size_t i = 0; i < fresh_.size(); ++i) {
    const Place place = fresh_[i].place;
    state.fresh_at[index_of(place)] = static_cast<uint32_t>(i + 1);
    state.filled[at(place)].push_back(place);
    if (fresh_[i].former != kHole) is_donor[fresh_[i].former] = 1;
  }
  for (uint32_t s = 0; s < slots_; ++s) {
    for (uint32_t i = 0; i < replicas_; ++i) {
      const uint16_t member = at({s, i});
      if (member == kHole) {
        reach(state, kHole, {s, i});
      } else if (is_donor[member] && state.fresh_at[index_of({s, i})] == 0) {
        state.kept[member].push_back({s, i});
      }
    }
  }
  const auto members = static_cast<uint16_t>(surplus_.size());
  for (uint16_t m = 0; m < members; ++m) {
    if (surplus_[m] == 0) continue;
    state.steps[m].seen = true;
    state.queue.push_back(m);
  }
  return search(state) && apply(state);
}

bool Builder::search(Search& state) {
  while (state.found == kHole && !state.queue.empty()) {
    const uint16_t member = state.queue.front();
    state.queue.pop_front();
    expand(state, member);
  }
  return state.found != kHole;
}

// Who could come where `member` leaves: a donor leaves a place it always had, a taker one it just
// got.
void Builder::expand(Search& state, uint16_t member) {
  for (const auto* places : {&state.kept[member], &state.filled[member]}) {
    for (const Place place : *places) {
      reach(state, member, place);
      if (state.found != kHole) return;
    }
  }
}

void Builder::reach(Search& state, uint16_t from, Place place) {
  for (size_t i = 0; i < state.unseen_takers.size() && state.found == kHole;) {
    const uint16_t taker = state.unseen_takers[i];
    if (!allowed(place, taker, true)) {
      ++i;
      continue;
    }
    state.steps[taker] = {from, place, place, true};
    state.unseen_takers.erase(state.unseen_takers.begin() + static_cast<ptrdiff_t>(i));
    if (deficit_[taker] > 0) state.found = taker;
    state.queue.push_back(taker);
  }
  // Donors that gave a copy of this slot could have it back.
  for (uint32_t i = 0; i < replicas_; ++i) {
    const Place given{place.slot, i};
    const uint32_t index = state.fresh_at[index_of(given)];
    if (index == 0) continue;
    const uint16_t former = fresh_[index - 1].former;
    if (former == kHole || state.steps[former].seen || has(place.slot, former, replicas_)) continue;
    state.steps[former] = {from, place, given, true};
    state.queue.push_back(former);
  }
}

// False, and nothing done, when the path would change one slot twice in ways that meet.
bool Builder::apply(const Search& state) {
  std::vector<std::pair<uint16_t, Search::Step>> path;
  for (uint16_t member = state.found; member != kHole;) {
    const Search::Step& step = state.steps[member];
    if (step.place.slot == kNowhere) break;
    path.emplace_back(member, step);
    member = step.from;
  }
  std::set<uint32_t> touched;
  for (const auto& [member, step] : path) {
    if (!touched.insert(step.place.slot).second) return false;
  }
  for (const auto& [member, step] : path) {
    const uint16_t leaving = at(step.place);
    const bool is_back = state.fresh_at[index_of(step.arrival)] != 0 &&
                         fresh_[state.fresh_at[index_of(step.arrival)] - 1].former == member;
    if (state.fresh_at[index_of(step.place)] == 0) fresh_.push_back({step.place, leaving});
    at(step.place) = at(step.arrival);
    at(step.arrival) = member;
    if (is_back) fresh_[state.fresh_at[index_of(step.arrival)] - 1].place.slot = kNowhere;
  }
  std::erase_if(fresh_, [](const Fresh& fresh) { return fresh.place.slot == kNowhere; });
  const uint16_t donor = path.back().second.from;
  if (donor != kHole) --surplus_[donor];
  if (--deficit_[state.found] == 0) std::erase(takers_, state.found);
  --missing_;
  return true;
}

}  // namespace sluice::table

// Which replica of each slot is first.
#include <algorithm>
#include <deque>
#include <utility>

#include "control/table/builder.h"

namespace sluice::table {

struct Builder::Primaries {
  std::span<const uint32_t> quotas;
  std::vector<uint32_t> count;  // slots that a member is first of
  std::vector<uint16_t> first;  // of each slot
  std::vector<std::vector<uint32_t>>
      slots;  // that a member is first of; may hold others' too, see pass_on()
  const Builder* builder = nullptr;
};

void Builder::choose_primaries(std::span<const uint32_t> primaries,
                               std::span<const uint16_t> preferred) {
  Primaries state{primaries,
                  std::vector<uint32_t>(primaries.size()),
                  std::vector<uint16_t>(slots_, kHole),
                  {},
                  this};
  state.slots.resize(primaries.size());
  // How many undecided slots could still give a member its due.
  std::vector<uint32_t> open(primaries.size());
  for (const uint16_t member : layout_) ++open[member];
  const auto decide = [&](uint32_t s, uint16_t member) {
    state.first[s] = member;
    ++state.count[member];
    state.slots[member].push_back(s);
    for (const uint16_t other : slot(s)) --open[other];
  };
  const std::vector<uint32_t> order = shuffled_slots();
  for (const uint32_t s : order) {
    if (preferred.empty() || preferred[s] == kHole) continue;
    if (!has(s, preferred[s], replicas_)) continue;
    if (state.count[preferred[s]] < primaries[preferred[s]]) decide(s, preferred[s]);
  }
  for (const uint32_t s : order) {
    if (state.first[s] != kHole) continue;
    // The one whose due is the largest part of its remaining chances.
    const auto due = [&](uint16_t m) { return int64_t{primaries[m]} - int64_t{state.count[m]}; };
    const auto members = slot(s);
    decide(s, *std::max_element(members.begin(), members.end(), [&](uint16_t a, uint16_t b) {
             return due(a) * open[b] < due(b) * open[a];
           }));
  }
  for (uint32_t m = 0; m < primaries.size(); ++m) {
    if (state.count[m] > primaries[m]) pass_on(state, m);
  }
  for (uint32_t s = 0; s < slots_; ++s) {
    uint32_t position = 0;
    while (at({s, position}) != state.first[s]) ++position;
    std::swap(at({s, 0}), at({s, position}));
  }
}

// While `from` is first too often: the shortest chain of members, each of which hands one slot on
// to the next, up to one that is first too rarely (breadth-first search: an augmenting path of the
// bipartite flow).
void Builder::pass_on(Primaries& state, uint32_t from) {
  const size_t members = state.quotas.size();
  std::vector<uint32_t> via(members);  // the slot that reaches a member
  std::vector<uint16_t> before(members);
  std::vector<uint8_t> seen(members);
  while (state.count[from] > state.quotas[from]) {
    std::fill(seen.begin(), seen.end(), uint8_t{0});
    seen[from] = 1;
    std::deque<uint16_t> queue{static_cast<uint16_t>(from)};
    uint16_t found = kHole;
    while (!queue.empty() && found == kHole) {
      const uint16_t member = queue.front();
      queue.pop_front();
      std::vector<uint32_t>& own = state.slots[member];
      std::erase_if(own, [&](uint32_t s) { return state.first[s] != member; });
      for (const uint32_t s : own) {
        for (const uint16_t next : state.builder->slot(s)) {
          if (seen[next]) continue;
          seen[next] = 1;
          via[next] = s;
          before[next] = member;
          if (state.count[next] < state.quotas[next]) {
            found = next;
            break;
          }
          queue.push_back(next);
        }
        if (found != kHole) break;
      }
    }
    if (found == kHole) return;
    ++state.count[found];
    --state.count[from];
    for (uint16_t member = found; member != from; member = before[member]) {
      state.first[via[member]] = member;
      state.slots[member].push_back(via[member]);
    }
  }
}

}  // namespace sluice::table

#include "control/table/builder.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

namespace sluice::table {
namespace {

// Swaps per copy that make the placement of one copy tell little about another's.
constexpr uint64_t kSwapsPerCopy = 4;
// Weighted draws before a taker is looked for one by one.
constexpr int kDraws = 8;
// Each failed search for a chain looked at every copy; when this many failed in a round, its rule
// is given up.
constexpr int kFailedChains = 16;

}  // namespace

Builder::Builder(uint32_t slots, uint32_t replicas, std::vector<uint32_t> quotas,
                 std::vector<uint32_t> racks, uint64_t seed)
    : slots_(slots),
      replicas_(replicas),
      quotas_(std::move(quotas)),
      racks_(std::move(racks)),
      random_(seed) {
  std::vector<uint64_t> due(racks_.size());
  for (size_t m = 0; m < quotas_.size(); ++m) due[racks_[m]] += quotas_[m];
  for (const uint64_t copies : due) {
    rack_caps_.push_back(static_cast<uint32_t>((copies + slots_ - 1) / slots_));
  }
}

bool Builder::has(uint32_t slot_index, uint16_t member, uint32_t but_position) const {
  const auto members = slot(slot_index);
  for (uint32_t i = 0; i < replicas_; ++i) {
    if (members[i] == member && i != but_position) return true;
  }
  return false;
}

uint32_t Builder::rack_copies(uint32_t slot_index, uint32_t rack) const {
  uint32_t copies = 0;
  for (const uint16_t member : slot(slot_index)) {
    if (member != kHole && racks_[member] == rack) ++copies;
  }
  return copies;
}

bool Builder::allowed(Place place, uint16_t member, bool mind_racks) const {
  const uint16_t current = at(place);
  if (current == member || has(place.slot, member, place.position)) return false;
  if (!mind_racks) return true;
  const uint32_t rack = racks_[member];
  const uint32_t leaving = current != kHole && racks_[current] == rack ? 1 : 0;
  return rack_copies(place.slot, rack) - leaving < rack_caps_[rack];
}

std::vector<uint32_t> Builder::shuffled_slots() {
  std::vector<uint32_t> order(slots_);
  std::iota(order.begin(), order.end(), 0);
  random_.shuffle(order);
  return order;
}

// All copies in one row, rack by rack and member by member, wrapped around the slots: who has at
// most `slots` copies in a row meets each slot at most once, and a rack with q copies meets each
// slot at most ceil(q / slots) times.
void Builder::fill() {
  layout_.assign(size_t{slots_} * replicas_, kHole);
  std::vector<uint16_t> order(quotas_.size());
  std::iota(order.begin(), order.end(), uint16_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](uint16_t a, uint16_t b) { return racks_[a] < racks_[b]; });
  const std::vector<uint32_t> slot_order = shuffled_slots();
  uint64_t row = 0;
  for (const uint16_t member : order) {
    for (uint32_t i = 0; i < quotas_[member]; ++i, ++row) {
      at({slot_order[row % slots_], static_cast<uint32_t>(row / slots_)}) = member;
    }
  }
  assert(row == uint64_t{slots_} * replicas_);
  swap_at_random(kSwapsPerCopy * slots_ * replicas_);
}

void Builder::swap_at_random(uint64_t attempts) {
  for (uint64_t i = 0; i < attempts; ++i) {
    const Place a{static_cast<uint32_t>(random_.below(slots_)),
                  static_cast<uint32_t>(random_.below(replicas_))};
    const Place b{static_cast<uint32_t>(random_.below(slots_)),
                  static_cast<uint32_t>(random_.below(replicas_))};
    if (a.slot == b.slot) continue;
    if (allowed(a, at(b), true) && allowed(b, at(a), true)) std::swap(at(a), at(b));
  }
}

void Builder::refill(std::span<const uint16_t> earlier, uint32_t width) {
  copy_or_drop(earlier, width);
  count_surplus();
  place_where_possible(true);
  place_where_possible(false);
  place_by_chains();
  repair_racks();
}

void Builder::copy_or_drop(std::span<const uint16_t> earlier, uint32_t width) {
  layout_.assign(size_t{slots_} * replicas_, kHole);
  std::vector<int64_t> over(quotas_.size());
  for (size_t m = 0; m < quotas_.size(); ++m) over[m] = -int64_t{quotas_[m]};
  for (const uint16_t member : earlier) {
    if (member != kHole) ++over[member];
  }
  std::vector<uint16_t> kept;
  for (const uint32_t s : shuffled_slots()) {
    kept.clear();
    for (const uint16_t member : earlier.subspan(size_t{s} * width, width)) {
      if (member != kHole) kept.push_back(member);
    }
    while (kept.size() > replicas_) {
      const auto most = std::max_element(kept.begin(), kept.end(),
                                         [&](uint16_t a, uint16_t b) { return over[a] < over[b]; });
      --over[*most];
      kept.erase(most);
    }
    for (uint32_t i = 0; i < kept.size(); ++i) at({s, i}) = kept[i];
  }
}

void Builder::count_surplus() {
  std::vector<uint32_t> held(quotas_.size());
  for (const uint16_t member : layout_) {
    if (member != kHole) ++held[member];
  }
  surplus_.assign(quotas_.size(), 0);
  deficit_.assign(quotas_.size(), 0);
  takers_.clear();
  fresh_.clear();
  missing_ = 0;
  for (uint32_t m = 0; m < quotas_.size(); ++m) {
    if (held[m] > quotas_[m]) surplus_[m] = held[m] - quotas_[m];
    if (held[m] >= quotas_[m]) continue;
    deficit_[m] = quotas_[m] - held[m];
    missing_ += deficit_[m];
    takers_.push_back(static_cast<uint16_t>(m));
  }
  all_takers_ = takers_;
}

bool Builder::wants_replacing(Place place) const {
  const uint16_t member = at(place);
  return member == kHole || surplus_[member] > 0;
}

// Holes first: they have to be filled where they are, while a member with a surplus may give any of
// its copies.
void Builder::place_where_possible(bool holes) {
  if (missing_ == 0) return;
  for (const uint32_t s : shuffled_slots()) {
    for (uint32_t i = 0; i < replicas_ && missing_ > 0; ++i) {
      const Place place{s, i};
      if ((at(place) == kHole) == holes && wants_replacing(place)) replace(place, true);
    }
  }
}

bool Builder::replace(Place place, bool mind_racks) {
  const uint16_t taker = pick_deficit(place, mind_racks);
  if (taker == kHole) return false;
  fresh_.push_back({place, at(place)});
  put_new(place, taker);
  if (--deficit_[taker] == 0) std::erase(takers_, taker);
  --missing_;
  return true;
}

void Builder::put_new(Place place, uint16_t member) {
  const uint16_t current = at(place);
  if (current != kHole && surplus_[current] > 0) --surplus_[current];
  at(place) = member;
}

// A draw of two, the one that misses more: near to a draw by weight, so that no taker is left over
// for the end.
uint16_t Builder::pick_deficit(Place place, bool mind_racks) {
  for (int i = 0; i < kDraws; ++i) {
    const uint16_t a = takers_[random_.below(takers_.size())];
    const uint16_t b = takers_[random_.below(takers_.size())];
    const uint16_t first = deficit_[a] >= deficit_[b] ? a : b;
    if (allowed(place, first, mind_racks)) return first;
  }
  const size_t start = random_.below(takers_.size());
  for (size_t i = 0; i < takers_.size(); ++i) {
    const uint16_t taker = takers_[(start + i) % takers_.size()];
    if (allowed(place, taker, mind_racks)) return taker;
  }
  return kHole;
}

// What is left cannot be placed directly. Cheapest first: another member of a place filled just now
// stands in; then augmenting paths over all that was moved (reroute.cc), which find every way that
// costs no further move; then any member stands in. Without regard to racks the last always
// succeeds: the taker is missing in some slot t, whose R members cannot all be in a slot that has
// the taker already.
void Builder::place_by_chains() {
  if (missing_ > 0) place_round(true, true);
  while (missing_ > 0 && reroute()) {
  }
  if (missing_ > 0) place_round(true, false);
  while (missing_ > 0 && place_round(false, false)) {
  }
}

// True when something was placed.
bool Builder::place_round(bool mind_racks, bool only_free) {
  const uint64_t before = missing_;
  int failures = 0;
  for (const uint32_t s : shuffled_slots()) {
    for (uint32_t i = 0; i < replicas_ && missing_ > 0; ++i) {
      const Place place{s, i};
      if (!wants_replacing(place) || replace(place, mind_racks)) continue;
      if (chain_fresh(place, mind_racks)) continue;
      if (!only_free && chain_any(place, mind_racks)) continue;
      if (++failures == kFailedChains) return missing_ < before;
    }
  }
  return missing_ < before;
}

bool Builder::is_complete() const {
  std::vector<uint32_t> held(quotas_.size());
  for (const uint16_t member : layout_) {
    if (member == kHole) return false;
    ++held[member];
  }
  return held == quotas_;
}

bool Builder::chain_fresh(Place place, bool mind_racks) {
  for (size_t i = 0; i < fresh_.size(); ++i) {
    if (next_fresh_ >= fresh_.size()) next_fresh_ = 0;
    if (chain_through(place, fresh_[next_fresh_++].place, mind_racks)) return true;
  }
  return false;
}

bool Builder::chain_any(Place place, bool mind_racks) {
  const size_t places = size_t{slots_} * replicas_;
  for (size_t i = 0; i < places; ++i) {
    const size_t index = next_place_++ % places;
    const Place middle{static_cast<uint32_t>(index / replicas_),
                       static_cast<uint32_t>(index % replicas_)};
    const uint16_t former = at(middle);
    if (!chain_through(place, middle, mind_racks)) continue;
    fresh_.push_back({middle, former});
    return true;
  }
  return false;
}

bool Builder::chain_through(Place place, Place middle, bool mind_racks) {
  const uint16_t stand_in = at(middle);
  if (stand_in == kHole || middle.slot == place.slot) return false;
  if (surplus_[stand_in] > 0 || deficit_[stand_in] > 0) return false;
  if (!allowed(place, stand_in, mind_racks)) return false;
  for (size_t i = 0; i < takers_.size(); ++i) {
    const uint16_t taker = takers_[i];
    if (!allowed(middle, taker, mind_racks)) continue;
    fresh_.push_back({place, at(place)});
    put_new(place, stand_in);
    at(middle) = taker;
    if (--deficit_[taker] == 0) std::erase(takers_, taker);
    --missing_;
    return true;
  }
  return false;
}

void Builder::repair_racks() {
  for (uint32_t s = 0; s < slots_; ++s) {
    while (repair_slot(s)) {
    }
  }
}

// One swap out of a slot in which a rack is over its cap. False when none is.
bool Builder::repair_slot(uint32_t slot_index) {
  for (uint32_t i = 0; i < replicas_; ++i) {
    const uint32_t rack = racks_[at({slot_index, i})];
    if (rack_copies(slot_index, rack) <= rack_caps_[rack]) continue;
    const uint32_t start = static_cast<uint32_t>(random_.below(slots_));
    for (uint32_t k = 0; k < slots_; ++k) {
      const uint32_t other = (start + k) % slots_;
      if (rack_copies(other, rack) >= rack_caps_[rack]) continue;
      if (exchange(slot_index, rack, other)) return true;
    }
  }
  return false;
}

// Gives a copy of `rack` from slot `from` to slot `to`, which has fewer of it, for one of a rack
// that `to` has more of.
bool Builder::exchange(uint32_t from, uint32_t rack, uint32_t to) {
  for (uint32_t i = 0; i < replicas_; ++i) {
    const Place given{from, i};
    if (racks_[at(given)] != rack || has(to, at(given), replicas_)) continue;
    for (uint32_t j = 0; j < replicas_; ++j) {
      const Place taken{to, j};
      const uint32_t back = racks_[at(taken)];
      if (rack_copies(to, back) <= rack_copies(from, back)) continue;
      if (has(from, at(taken), replicas_)) continue;
      std::swap(at(given), at(taken));
      return true;
    }
  }
  return false;
}

}  // namespace sluice::table

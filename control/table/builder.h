// Lays copies out over slots for given quotas: from nothing, or with the fewest moves from an
// earlier layout. Internal to control/table; pure and deterministic.
#ifndef SLUICE_CONTROL_TABLE_BUILDER_H_
#define SLUICE_CONTROL_TABLE_BUILDER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"

namespace sluice::table {

// No member: a copy that has to be placed.
inline constexpr uint16_t kHole = 0xffff;

// Confined to one thread.
class Builder {
 public:
  // quotas[m]: the copies of member m, at most `slots` each, slots * replicas together. racks[m]:
  // the number of its rack, below racks.size().
  Builder(uint32_t slots, uint32_t replicas, std::vector<uint32_t> quotas,
          std::vector<uint32_t> racks, uint64_t seed);

  // A layout from nothing.
  void fill();
  // A layout from an earlier one of `width` copies a slot, with kHole for members that are gone.
  void refill(std::span<const uint16_t> earlier, uint32_t width);
  // Puts a first replica first in each slot, so that member m is first primaries[m] times, if that
  // is possible. `preferred` (a member or kHole for each slot, or empty) stays first where the
  // quota allows it.
  void choose_primaries(std::span<const uint32_t> primaries, std::span<const uint16_t> preferred);

  // Whether every member has just its quota and no slot a hole.
  bool is_complete() const;
  std::vector<uint16_t> take() { return std::move(layout_); }

 private:
  struct Place {
    uint32_t slot = 0;
    uint32_t position = 0;
  };

  size_t index_of(Place place) const { return size_t{place.slot} * replicas_ + place.position; }
  uint16_t& at(Place place) { return layout_[index_of(place)]; }
  uint16_t at(Place place) const { return layout_[index_of(place)]; }
  std::span<const uint16_t> slot(uint32_t index) const {
    return {layout_.data() + size_t{index} * replicas_, replicas_};
  }
  // Whether the slot has the member at another position.
  bool has(uint32_t slot_index, uint16_t member, uint32_t but_position) const;
  uint32_t rack_copies(uint32_t slot_index, uint32_t rack) const;
  // Whether the member may stand there in place of what does.
  bool allowed(Place place, uint16_t member, bool mind_racks) const;
  std::vector<uint32_t> shuffled_slots();

  void swap_at_random(uint64_t attempts);

  // Of refill().
  void copy_or_drop(std::span<const uint16_t> earlier, uint32_t width);
  void count_surplus();
  void place_where_possible(bool holes);
  bool wants_replacing(Place place) const;
  bool replace(Place place, bool mind_racks);
  void put_new(Place place, uint16_t member);
  uint16_t pick_deficit(Place place, bool mind_racks);
  void place_by_chains();
  bool place_round(bool mind_racks, bool only_free);
  bool chain_fresh(Place place, bool mind_racks);
  bool chain_any(Place place, bool mind_racks);
  bool chain_through(Place place, Place middle, bool mind_racks);
  struct Search;
  bool reroute();
  bool search(Search& state);
  void expand(Search& state, uint16_t member);
  void reach(Search& state, uint16_t from, Place place);
  bool apply(const Search& state);

  // Swaps copies between slots until no rack has more of a slot than its cap. Always succeeds: each
  // swap lowers the sum of squares of the racks' copies in the slots.
  void repair_racks();
  bool repair_slot(uint32_t slot_index);
  bool exchange(uint32_t from, uint32_t rack, uint32_t to);

  // Of choose_primaries().
  struct Primaries;
  static void pass_on(Primaries& state, uint32_t from);

  const uint32_t slots_;
  const uint32_t replicas_;
  const std::vector<uint32_t> quotas_;
  const std::vector<uint32_t> racks_;
  std::vector<uint32_t> rack_caps_;
  Random random_;
  std::vector<uint16_t> layout_;

  // Of refill(): how many copies each member still gives or takes, and the sum of what is to be
  // taken.
  std::vector<uint32_t> surplus_;
  std::vector<uint32_t> deficit_;
  uint64_t missing_ = 0;
  // Members with a deficit: now, and at the start.
  std::vector<uint16_t> takers_;
  std::vector<uint16_t> all_takers_;
  // Places filled in this refill, and who was there before: they can be filled otherwise, or given
  // back, at no cost.
  struct Fresh {
    Place place;
    uint16_t former = kHole;
  };
  std::vector<Fresh> fresh_;
  // Where the next searches begin.
  size_t next_fresh_ = 0;
  size_t next_place_ = 0;
};

}  // namespace sluice::table

#endif  // SLUICE_CONTROL_TABLE_BUILDER_H_

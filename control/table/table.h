// The distribution table: which R distinct nodes hold each slot. Epoch n+1 is a pure function of
// epoch n (or none), members, weights, racks and seed, so that every node that computes it gets the
// same one, bit by bit.
//
// Pure: no clock, no I/O, no globals. A DistributionTable is immutable once made; share it freely
// between threads.
//
// What compute_table() guarantees:
//  1. Ideal shares are filled like water: share_i = min(1, c * weight_i) copies of each slot, with
//  c such that the shares sum to R.
//  2. Every member holds its ideal number of copies (share times slots) rounded up or down: up
//  where it holds that many already, else by largest remainder. So no rounding moves a copy.
//  3. The R nodes of a slot are distinct.
//  4. A rack that is due q copies in all has at most ceil(q / slots) in any one slot. So the nodes
//  of a slot are in distinct racks
//     whenever there are at least R racks and none is due more than one copy of each slot. A member
//     without a rack is one of its own.
//  5. First replicas (primaries) are shared out by weight as well: each member is first for its R =
//  1 ideal number of slots, rounded,
//     wherever an assignment of primaries with that property exists for the copies as they lie;
//     otherwise as near as it goes.
//  6. From epoch n to n+1 only copies that the new quotas force to move are moved: moved ==
//  moved_minimum, unless distinct nodes or racks
//     cannot be had without further moves; the two numbers are reported.
#ifndef SLUICE_CONTROL_TABLE_TABLE_H_
#define SLUICE_CONTROL_TABLE_TABLE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/checksum.h"

namespace sluice {

struct TableMember {
  std::string name;
  uint32_t number = 0;  // unique, from 1
  double weight = 1;    // finite, > 0
  std::string rack;     // empty: a rack of its own
  friend bool operator==(const TableMember&, const TableMember&) = default;
};

inline constexpr uint32_t kMaxTableMembers = 65535;
inline constexpr uint32_t kMaxReplicas = 16;
inline constexpr uint32_t kMaxTableSlotBits = 20;

struct TableInput {
  std::vector<TableMember> members;  // in any order
  uint32_t replicas = 0;             // R
  uint32_t slot_bits = 0;
  uint64_t seed = 0;
};

struct TableChange;

class DistributionTable {
 public:
  uint64_t epoch() const { return epoch_; }
  uint32_t slot_bits() const { return slot_bits_; }
  uint32_t slots() const { return uint32_t{1} << slot_bits_; }
  uint32_t replicas() const { return replicas_; }
  uint64_t seed() const { return seed_; }
  // Ascending by number.
  const std::vector<TableMember>& members() const { return members_; }

  // Indexes into members(); the first is the primary. slot < slots().
  std::span<const uint16_t> replicas_of(uint32_t slot) const {
    return {assignment_.data() + size_t{slot} * replicas_, replicas_};
  }
  const TableMember& primary_of(uint32_t slot) const { return members_[replicas_of(slot)[0]]; }
  bool holds(uint32_t slot, uint32_t member) const;
  // The index in members(), or -1.
  int find_member(std::string_view name) const;
  int find_number(uint32_t number) const;

  // By member index.
  std::vector<uint32_t> copies() const;
  std::vector<uint32_t> primaries() const;
  // In slots (not rounded): what share_i comes to.
  std::vector<double> ideal_copies() const;

  // A binary document; equal tables have equal encodings.
  std::string encode() const;
  // XXH3-128 of encode().
  Digest128 digest() const { return xxh3_128(encode()); }
  // DATA_LOSS for anything that encode() did not make (a copy twice in one slot, an unknown member,
  // ...).
  static absl::StatusOr<DistributionTable> decode(std::string_view document);

  friend bool operator==(const DistributionTable&, const DistributionTable&) = default;

 private:
  friend absl::StatusOr<TableChange> compute_table(const DistributionTable* previous,
                                                   const TableInput& input);
  uint64_t epoch_ = 0;
  uint32_t slot_bits_ = 0;
  uint32_t replicas_ = 0;
  uint64_t seed_ = 0;
  std::vector<TableMember> members_;
  std::vector<uint16_t> assignment_;  // slots x replicas
};

struct TableChange {
  DistributionTable table;
  uint64_t moved =
      0;  // copies that are at a node where the previous table had none; 0 without a previous table
  uint64_t moved_minimum =
      0;  // sum over members of max(0, new copies - copies in the previous table)
};

// Epoch 1 from nothing, or the epoch after `previous` (slot_bits must be the same).
// INVALID_ARGUMENT, with the numbers, for fewer members than R, more than kMaxTableMembers, weights
// that are not positive and finite, doubled names or numbers, slot_bits or R out of range.
absl::StatusOr<TableChange> compute_table(const DistributionTable* previous,
                                          const TableInput& input);

// Ideal shares (copies of each slot, 0 to 1) of weights filled like water for R copies; they sum to
// R. R <= weights.size().
std::vector<double> ideal_shares(std::span<const double> weights, uint32_t replicas);
// Whole copies per member, R * slots together: ideal shares rounded up or down, up for those who
// hold more than the lower number now (`held`, by member; may be empty), then by largest remainder.
// Exact integer arithmetic.
std::vector<uint32_t> copy_quotas(std::span<const double> weights, uint32_t replicas,
                                  uint32_t slots, std::span<const uint32_t> held = {});

// The largest held share over its ideal share, over all members; 1 is perfect.
double imbalance(const DistributionTable& table);

// The largest difference, in slots, between what a member holds and its ideal.
double worst_deviation(const DistributionTable& table);

}  // namespace sluice

#endif  // SLUICE_CONTROL_TABLE_TABLE_H_

// Ideal shares and whole quotas. Weights become integers first (40 bits below the largest), so that
// the apportionment is exact and the same on every machine.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "control/table/table.h"

namespace sluice {
namespace {

using Wide = unsigned __int128;

std::vector<uint64_t> scaled(std::span<const double> weights) {
  const double largest = *std::max_element(weights.begin(), weights.end());
  std::vector<uint64_t> result;
  result.reserve(weights.size());
  for (const double weight : weights) {
    const double part = std::floor(std::ldexp(weight / largest, 40));
    result.push_back(std::max<uint64_t>(1, static_cast<uint64_t>(part)));
  }
  return result;
}

// Who is full (one copy of each slot), and what is left to share out among the others.
struct Water {
  std::vector<uint64_t> weights;  // scaled
  std::vector<bool> full;
  uint64_t copies_left = 0;  // of each slot
  uint64_t weight_left = 0;
};

Water fill(std::span<const double> weights, uint32_t replicas) {
  assert(replicas <= weights.size());
  Water water{scaled(weights), std::vector<bool>(weights.size()), replicas, 0};
  std::vector<uint32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return water.weights[a] > water.weights[b]; });
  for (const uint64_t weight : water.weights) water.weight_left += weight;
  // The heaviest overflows first: once it does not, nobody does.
  for (const uint32_t member : order) {
    if (water.copies_left == 0) break;
    if (Wide{water.weights[member]} * water.copies_left < water.weight_left) break;
    water.full[member] = true;
    --water.copies_left;
    water.weight_left -= water.weights[member];
  }
  return water;
}

}  // namespace

std::vector<double> ideal_shares(std::span<const double> weights, uint32_t replicas) {
  const Water water = fill(weights, replicas);
  std::vector<double> shares(weights.size(), 1.0);
  for (size_t i = 0; i < weights.size(); ++i) {
    if (water.full[i]) continue;
    shares[i] = static_cast<double>(water.weights[i]) * static_cast<double>(water.copies_left) /
                static_cast<double>(water.weight_left);
  }
  return shares;
}

std::vector<uint32_t> copy_quotas(std::span<const double> weights, uint32_t replicas,
                                  uint32_t slots, std::span<const uint32_t> held) {
  const Water water = fill(weights, replicas);
  std::vector<uint32_t> quotas(weights.size(), slots);
  // Who has the copy already comes first, then the largest remainder, then the lowest index.
  struct Remainder {
    bool holds = false;
    uint64_t part = 0;
    uint32_t member = 0;
  };
  std::vector<Remainder> remainders;
  uint64_t left = water.copies_left * slots;
  for (uint32_t i = 0; i < weights.size(); ++i) {
    if (water.full[i]) continue;
    const Wide due = Wide{water.weights[i]} * water.copies_left * slots;
    quotas[i] = static_cast<uint32_t>(due / water.weight_left);
    left -= quotas[i];
    const auto part = static_cast<uint64_t>(due % water.weight_left);
    remainders.push_back({part > 0 && i < held.size() && held[i] > quotas[i], part, i});
  }
  std::sort(remainders.begin(), remainders.end(), [](const Remainder& a, const Remainder& b) {
    if (a.holds != b.holds) return a.holds;
    return a.part != b.part ? a.part > b.part : a.member < b.member;
  });
  for (uint64_t i = 0; i < left; ++i) ++quotas[remainders[i].member];
  return quotas;
}

}  // namespace sluice

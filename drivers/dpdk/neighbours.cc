#include "drivers/dpdk/neighbours.h"

#include <algorithm>
#include <cassert>

namespace sluice::dpdk {

Neighbours::Neighbours(const NeighbourOptions& options)
    : options_(options), entries_(options.entries) {
  assert(options.entries >= kWays && (options.entries & (options.entries - 1)) == 0);
}

size_t Neighbours::first_place(uint32_t ip) const {
  const uint32_t mixed = ip * 0x9e3779b1u;
  return (mixed >> 8) & (entries_.size() - 1) & ~(kWays - 1);
}

Neighbours::Entry* Neighbours::at(uint32_t ip) {
  const size_t first = first_place(ip);
  for (size_t i = 0; i < kWays; ++i) {
    if (entries_[first + i].ip == ip) return &entries_[first + i];
  }
  return nullptr;
}

Neighbours::Entry* Neighbours::make(uint32_t ip, bool weak, int64_t now_ns) {
  if (Entry* entry = at(ip); entry != nullptr) return entry;
  const size_t first = first_place(ip);
  Entry* worst = nullptr;
  for (size_t i = 0; i < kWays; ++i) {
    Entry& entry = entries_[first + i];
    if (entry.ip == 0) {
      worst = &entry;
      break;
    }
    // Unknown before known, then the one that was used longest ago.
    const bool worse = worst == nullptr || (worst->known && !entry.known) ||
                       (worst->known == entry.known && entry.used_ns < worst->used_ns);
    if (worse) worst = &entry;
  }
  const bool in_use = worst->ip != 0 && worst->known && now_ns - worst->used_ns < options_.fresh_ns;
  if (in_use && weak) return nullptr;
  *worst = Entry{};
  worst->ip = ip;
  worst->used_ns = now_ns;
  return worst;
}

Neighbours::Answer Neighbours::find(uint32_t ip, int64_t now_ns) {
  Entry* entry = make(ip, /*weak=*/false, now_ns);
  Answer answer;
  entry->used_ns = now_ns;
  if (entry->known && now_ns - entry->confirmed_ns > options_.forget_ns) entry->known = false;
  if (entry->known) answer.mac = entry->mac;
  const bool wanted = !entry->known || now_ns - entry->confirmed_ns > options_.fresh_ns;
  if (wanted && (entry->asked_ns == 0 || now_ns - entry->asked_ns >= options_.ask_every_ns)) {
    entry->asked_ns = now_ns;
    answer.ask = true;
  }
  return answer;
}

bool Neighbours::answered(uint32_t ip, const Mac& mac, int64_t now_ns) {
  Entry* entry = at(ip);
  if (entry == nullptr || entry->asked_ns == 0) return false;
  if (now_ns - entry->asked_ns > options_.answer_within_ns) return false;
  entry->known = true;
  entry->mac = mac;
  entry->confirmed_ns = now_ns;
  entry->asked_ns = 0;
  return true;
}

void Neighbours::asked_us(uint32_t ip, const Mac& mac, int64_t now_ns) {
  Entry* entry = make(ip, /*weak=*/true, now_ns);
  if (entry == nullptr) return;
  // A fresh answer to this port's own question weighs more than what a stranger says of itself.
  if (entry->known && entry->mac != mac && now_ns - entry->confirmed_ns <= options_.fresh_ns)
    return;
  entry->known = true;
  entry->mac = mac;
  entry->confirmed_ns = now_ns;
}

size_t Neighbours::size() const {
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(),
                                           [](const Entry& entry) { return entry.ip != 0; }));
}

}  // namespace sluice::dpdk

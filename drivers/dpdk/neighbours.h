// Which MAC an IPv4 address of the network has: the table that ARP fills. Bounded, whatever the
// network says; time is passed in. Confined to one thread. No DPDK in here.
//
// What it believes: an answer to its own question, and what a request for this port's own address
// says of its sender. An answer nobody asked for changes nothing.
#ifndef SLUICE_DRIVERS_DPDK_NEIGHBOURS_H_
#define SLUICE_DRIVERS_DPDK_NEIGHBOURS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "drivers/dpdk/frame.h"

namespace sluice::dpdk {

struct NeighbourOptions {
  size_t entries = 1024;                     // a power of two
  int64_t ask_every_ns = 100'000'000;        // while there is no answer
  int64_t fresh_ns = 30'000'000'000;         // asked again after so long, when used
  int64_t forget_ns = 120'000'000'000;       // not used any more without a new answer
  int64_t answer_within_ns = 1'000'000'000;  // later answers are nobody's
};

class Neighbours {
 public:
  explicit Neighbours(const NeighbourOptions& options = {});

  struct Answer {
    std::optional<Mac> mac;
    bool ask = false;  // send a request for it now
  };
  // The MAC of `ip`, and whether it is time to ask for it.
  Answer find(uint32_t ip, int64_t now_ns);
  // Somebody answered; whether it was believed.
  bool answered(uint32_t ip, const Mac& mac, int64_t now_ns);
  // Somebody asked for this port's address, and so said its own.
  void asked_us(uint32_t ip, const Mac& mac, int64_t now_ns);
  // Entries in use.
  size_t size() const;

 private:
  struct Entry {
    uint32_t ip = 0;  // 0: free
    bool known = false;
    Mac mac{};
    int64_t asked_ns = 0;      // 0: no question is open
    int64_t confirmed_ns = 0;  // known
    int64_t used_ns = 0;
  };

  // The places where `ip` may be: few, so that a flood of addresses costs little time.
  static constexpr size_t kWays = 8;
  Entry* at(uint32_t ip);
  // Its entry, made anew if need be in place of the least worthy one of its places; null when all
  // of them are in use for known neighbours and `weak`.
  Entry* make(uint32_t ip, bool weak, int64_t now_ns);
  size_t first_place(uint32_t ip) const;

  const NeighbourOptions options_;
  std::vector<Entry> entries_;
};

}  // namespace sluice::dpdk

#endif  // SLUICE_DRIVERS_DPDK_NEIGHBOURS_H_

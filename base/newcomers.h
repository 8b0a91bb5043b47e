// Peers that have connected and not yet shown who they are, and the rule by which some of them go
// when there are too many. Pure: told the time, closes nothing. Confined to one thread.
//
// A peer waits for a place (what it needs to introduce itself; there are few), holds one, or is
// leaving (refused, and being told so). The hosts that they come from share places and room:
//  1. A free place goes to the host that has the fewest peers here; of a host, to the oldest peer.
//  2. While somebody waits, the peer that has held a place for the longest, of the host that has
//     the most peers here, may be evicted once that is longer than patience().
//  3. When there is no room, a peer that holds no place is turned away: of the host that has the
//     most peers here, the oldest one.
// patience() is patience_ns while nobody waits and falls to least_patience_ns as the room fills up.
//
// So a host with one peer here is served next, and neither evicted nor turned away, whatever one
// other host does. Against peers of its own host, each peer gets at least least_patience_ns to
// introduce itself, and a place unless more than places / least_patience_ns (with the exchange's
// numbers: 800 a second) connect; of more than that it is an even draw, which the peer may try
// again.
#ifndef SLUICE_BASE_NEWCOMERS_H_
#define SLUICE_BASE_NEWCOMERS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

class Newcomers {
 public:
  struct Options {
    size_t room = 128;  // peers in all
    size_t places = 0;  // of them, that hold a place
    int64_t patience_ns = 200'000'000;
    int64_t least_patience_ns = 10'000'000;
  };
  explicit Newcomers(const Options& options) : options_(options) {}

  // The older of two peers has the smaller id, never 0; they may be added in any order. `address`:
  // "HOST:PORT", or a host alone.
  void add(uint64_t id, std::string_view address);
  void hold_place(uint64_t id, int64_t now_ns);
  // It has given its place back.
  void leave(uint64_t id);
  // Whether it was here.
  bool remove(uint64_t id);

  size_t size() const { return peers_.size(); }
  size_t waiting() const { return waiting_; }
  bool overfull() const { return peers_.size() > options_.room; }
  // Each 0 when there is none.
  uint64_t next_to_serve() const;
  uint64_t to_evict(int64_t now_ns) const;
  uint64_t to_turn_away() const;
  int64_t patience_ns() const;
  // When to_evict() will have somebody at the earliest; 0: nobody waits, or nobody holds a place.
  int64_t next_eviction_ns() const;

  static std::string_view host_of(std::string_view address);

 private:
  enum class Stage : uint8_t { kWaiting, kHolding, kLeaving };
  struct Peer {
    uint64_t id = 0;
    std::string host;
    Stage stage = Stage::kWaiting;
    int64_t since_ns = 0;  // kHolding
    size_t of_host = 0;    // peers of its host here
  };
  std::vector<Peer>::iterator position(uint64_t id);
  Peer* find(uint64_t id);
  const Peer* first_to_evict() const;
  void count_host(std::string_view host);

  const Options options_;
  std::vector<Peer> peers_;  // by age, the oldest first
  size_t waiting_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_BASE_NEWCOMERS_H_

// How much may be in flight, and how fast it may leave: delay-based congestion control after Swift
// (Kumar and others: Swift: Delay is Simple and Effective for Congestion Control in the Datacenter,
// SIGCOMM 2020), sections 3.1 and 3.3: a target delay that grows as the window shrinks, additive
// increase below it, a decrease in proportion to the excess above it, at most once a round trip.
//
// What differs, and why (docs/design/005-packets.md has the measurements):
//  - the delay of a round is its smallest, since without time stamps of a card a processor that was
//    away looks like a queue;
//  - a loss alone changes nothing: the window shrinks, by BBRv2's 0.7, when more than one packet in
//    twenty is lost, averaged over 512 (a queue that overflows looks so, a bad cable does not);
//  - the window doubles each round until the delay first rises (RFC 5681 slow start), and grows
//    fivefold after five rounds below target (TIMELY, Mittal and others, SIGCOMM 2015, 4.3).
//
// Pure: time and events are passed in. Confined to one thread.
#ifndef SLUICE_DRIVERS_PACKET_CONGESTION_H_
#define SLUICE_DRIVERS_PACKET_CONGESTION_H_

#include <cstdint>

namespace sluice::packet {

struct CongestionOptions {
  uint32_t packet_bytes = 1472;
  int64_t base_target_ns = 200'000;
  double max_window_packets = 8192;
};

class Congestion {
 public:
  static constexpr double kInitialWindow = 10;  // RFC 6928
  static constexpr double kMinWindow = 2;
  static constexpr double kIncrease = 1;       // packets a round
  static constexpr double kBeta = 0.8;         // Swift's, of the excess
  static constexpr double kMaxDecrease = 0.5;  // Swift's max_mdf
  static constexpr double kLossThreshold = 0.05;
  static constexpr double kLossDecrease = 0.7;
  static constexpr int kRoundsToHurry = 5;

  explicit Congestion(const CongestionOptions& options);

  // A packet was acknowledged. `limited`: the window, not a lack of blocks, is what held the sender
  // back.
  void on_acked(bool limited);
  // An acknowledgement told the delay of packet `number`; `next`: the next number to be sent;
  // `smallest`: the path's shortest round trip.
  void on_sample(uint64_t number, uint64_t next, int64_t round_trip, int64_t smallest);
  void on_lost(uint64_t next);
  // Nothing was acknowledged for several timeouts: what was known about the path is void.
  void on_silence();

  uint64_t window_bytes() const { return static_cast<uint64_t>(window_ * packet_bytes_); }
  double window_packets() const { return window_; }
  // Bytes a second at this round trip.
  double pacing_rate(int64_t round_trip) const;
  int64_t target(int64_t smallest) const;
  bool slow_start() const { return slow_start_; }
  double loss_rate() const { return loss_; }

 private:
  void end_round(uint64_t next, int64_t smallest);
  void set_window(double packets);

  const double packet_bytes_;
  const int64_t base_target_ns_;
  const double max_window_;
  double window_ = kInitialWindow;
  bool slow_start_ = true;
  bool limited_ = false;
  int rounds_below_ = 0;
  uint64_t round_end_ = 0;     // the first acknowledgement from here on ends the round
  uint64_t decrease_end_ = 0;  // no further decrease for losses of packets before it
  int64_t round_delay_ = 0;    // the smallest of this round; 0: none yet
  double loss_ = 0;
};

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_CONGESTION_H_

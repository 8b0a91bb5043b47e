// Incast: many senders at once into one receiver, on the simulated network.
#ifndef SLUICE_TESTS_DRIVERS_PACKET_INCAST_H_
#define SLUICE_TESTS_DRIVERS_PACKET_INCAST_H_

#include <cstddef>
#include <cstdint>

namespace sluice::packet {

struct IncastOptions {
  size_t senders = 8;
  uint64_t bytes_per_second = 1'250'000'000;  // 10 Gbit/s
  size_t queue_bytes = size_t{1} << 20;       // before the receiver
  bool staggered = false;                     // they begin 5 ms after each other
};

// Of 200 ms, after 50 ms that are not counted.
struct IncastResult {
  double rate = 0;  // payload, as a share of the link
  double jain = 0;  // Jain's index of the senders' rates; 1: all the same
  uint64_t packets = 0;
  uint64_t dropped = 0;  // by the queue
  uint64_t wrong = 0;    // blocks not intact or not in order
};

IncastResult run_incast(const IncastOptions& options);

}  // namespace sluice::packet

#endif  // SLUICE_TESTS_DRIVERS_PACKET_INCAST_H_

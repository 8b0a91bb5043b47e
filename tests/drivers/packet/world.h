// Some endpoints of the packet layer on one simulated network, in one thread and in virtual time:
// every endpoint is polled after every event and timer, so a run is exact and repeatable.
#ifndef SLUICE_TESTS_DRIVERS_PACKET_WORLD_H_
#define SLUICE_TESTS_DRIVERS_PACKET_WORLD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "base/random.h"
#include "drivers/packet/endpoint.h"
#include "drivers/packet/packet.h"
#include "drivers/sim/fabric.h"
#include "drivers/sim/packet_network.h"

namespace sluice::packet {

// One direction of one connection: blocks with content that tells them from each other, all checked
// on arrival.
struct Flow {
  size_t from = 0;
  size_t to = 0;
  ConnectionId from_id = 0;
  ConnectionId to_id = 0;
  uint64_t want = 0;  // blocks
  size_t min_bytes = 1;
  size_t max_bytes = 1;
  uint64_t salt = 0;

  uint64_t posted = 0;
  uint64_t sent = 0;  // kSent, OK
  uint64_t received = 0;
  uint64_t received_bytes = 0;
  uint64_t wrong = 0;  // not intact, or not the next one
  uint64_t failed = 0;

  size_t bytes_of(uint64_t block) const {
    if (min_bytes == max_bytes) return max_bytes;
    return min_bytes + Random::mix(salt + block) % (max_bytes - min_bytes + 1);
  }
};

class World {
 public:
  struct Options {
    SimOptions fabric;
    SimPacketOptions packets;
    PacketOptions layer;
    uint64_t seed = 1;
    size_t nodes = 2;
    size_t buffers = 64;  // of each node
    size_t buffer_bytes = 64 << 10;
  };
  struct End {
    bool up = false;
    bool closed = false;
    absl::Status status;
    size_t posted = 0;  // receive blocks
  };

  explicit World(const Options& options);
  ~World();

  // Polls everything, then moves time to what is next. False: nothing is to come before `until_ns`.
  bool step(int64_t until_ns);
  // Steps until `done`, for at most so much virtual time. Whether it was done.
  bool run(const std::function<bool()>& done, int64_t duration_ns);
  void run_for(int64_t duration_ns) {
    run([] { return false; }, duration_ns);
  }

  static std::string name(size_t node) { return "n" + std::to_string(node); }
  // {at a, at b}; {0, 0} when it does not come about.
  std::pair<ConnectionId, ConnectionId> connect(size_t a, size_t b,
                                                int64_t patience_ns = 10'000'000'000);
  // A flow whose receiver keeps `depth` blocks posted. Its messages are made and checked here.
  Flow& add_flow(size_t from, ConnectionId from_id, size_t to, ConnectionId to_id, uint64_t want,
                 size_t min_bytes, size_t max_bytes, size_t depth);
  void make_endpoint(size_t node);
  void drop_endpoint(size_t node) { endpoints_[node].reset(); }

  PacketEndpoint& endpoint(size_t node) { return *endpoints_[node]; }
  End& end(size_t node, ConnectionId id) { return ends_[{node, id}]; }
  BlockPool& pool(size_t node) { return *pools_[node]; }
  SimFabric& fabric() { return fabric_; }
  SimPacketNetwork& network() { return network_; }
  std::vector<ConnectionId>& accepted(size_t node) { return accepted_[node]; }
  int64_t now() const { return fabric_.now_ns(); }
  const std::vector<std::unique_ptr<Flow>>& flows() const { return flows_; }
  size_t closed_unaccepted = 0;  // kClosed of what was never up, at its listener

 private:
  bool pump(size_t node);
  void take(size_t node, Completion completion);
  void feed();
  void fill(uint8_t* to, size_t bytes, uint64_t salt, uint64_t block) const;
  bool right(const uint8_t* data, size_t bytes, uint64_t salt, uint64_t block) const;

  const Options options_;
  SimFabric fabric_;
  SimClock clock_;
  SimPacketNetwork network_;
  std::vector<std::unique_ptr<PacketTransport>> transports_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::vector<std::unique_ptr<BlockPool>> pools_;
  std::vector<std::unique_ptr<PacketEndpoint>> endpoints_;
  std::map<std::pair<size_t, ConnectionId>, End> ends_;
  std::vector<std::vector<ConnectionId>> accepted_;
  std::vector<std::unique_ptr<Flow>> flows_;
  std::map<std::pair<size_t, ConnectionId>, Flow*> by_sender_;
  std::map<std::pair<size_t, ConnectionId>, Flow*> by_receiver_;
  std::map<const Flow*, size_t> depths_;
  std::vector<uint8_t> pattern_;
};

}  // namespace sluice::packet

#endif  // SLUICE_TESTS_DRIVERS_PACKET_WORLD_H_

#include "tests/drivers/packet/incast.h"

#include <vector>

#include "tests/drivers/packet/world.h"

namespace sluice::packet {

IncastResult run_incast(const IncastOptions& options) {
  constexpr int64_t kFor = 200'000'000;
  World::Options world_options;
  world_options.nodes = options.senders + 1;
  world_options.fabric.bytes_per_second = options.bytes_per_second;
  world_options.packets.queue_bytes = options.queue_bytes;
  world_options.buffers = 160;
  World world(world_options);
  IncastResult result;
  std::vector<Flow*> flows;
  for (size_t i = 0; i < options.senders; ++i) {
    const auto [a, b] = world.connect(i, options.senders);
    if (a == 0) return result;
    flows.push_back(
        &world.add_flow(i, a, options.senders, b, uint64_t{1} << 60, 64 << 10, 64 << 10, 16));
    if (options.staggered) world.run_for(5'000'000);
  }
  world.run_for(50'000'000);
  std::vector<uint64_t> before;
  for (const Flow* flow : flows) before.push_back(flow->received_bytes);
  world.run_for(kFor);
  double total = 0;
  double squares = 0;
  for (size_t i = 0; i < flows.size(); ++i) {
    const auto bytes = static_cast<double>(flows[i]->received_bytes - before[i]);
    total += bytes;
    squares += bytes * bytes;
    result.wrong += flows[i]->wrong;
  }
  const SimPacketCounters wire = world.network().counters();
  result.rate = total * 1e9 / kFor / static_cast<double>(options.bytes_per_second);
  result.jain = total * total / (static_cast<double>(options.senders) * squares);
  result.packets = wire.sent;
  result.dropped = wire.queue_drops;
  return result;
}

}  // namespace sluice::packet

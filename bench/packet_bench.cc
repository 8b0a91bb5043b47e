// The packet layer on the simulated network, without a device: what a packet and a block cost, and
// how eight senders share one receiver. Times include the simulated port and, of each block, its
// making and checking; instructions of the layer alone are counted by `bench/run dpdk`.
#include <benchmark/benchmark.h>

#include "tests/drivers/packet/incast.h"
#include "tests/drivers/packet/world.h"

namespace sluice::packet {
namespace {

constexpr size_t kBlockBytes = size_t{64} << 10;

// One iteration is 64 blocks there; both ends' packets count.
void BM_Stream(benchmark::State& state) {
  World::Options options;
  options.packets.max_packet_bytes = static_cast<size_t>(state.range(0));
  World world(options);
  const auto [a, b] = world.connect(0, 1);
  Flow& flow = world.add_flow(0, a, 1, b, uint64_t{1} << 60, kBlockBytes, kBlockBytes, 24);
  world.run_for(10'000'000);
  const uint64_t packets = world.network().counters().sent;
  for (auto _ : state) {
    const uint64_t until = flow.received + 64;
    if (!world.run([&] { return flow.received >= until; }, 10'000'000'000)) {
      state.SkipWithError("it stands still");
      break;
    }
  }
  if (flow.wrong > 0) state.SkipWithError("a block was damaged");
  const uint64_t all_packets = world.network().counters().sent;
  state.counters["time_per_packet"] =
      benchmark::Counter(static_cast<double>(all_packets - packets),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  // From the start on, for who counts all instructions.
  state.counters["packets"] = static_cast<double>(all_packets);
  state.counters["blocks"] = static_cast<double>(flow.received);
}
BENCHMARK(BM_Stream)->Arg(1472)->Arg(8972)->Unit(benchmark::kMillisecond)->Iterations(40);

void BM_Incast(benchmark::State& state) {
  IncastOptions options;
  options.senders = static_cast<size_t>(state.range(0));
  IncastResult result;
  for (auto _ : state) result = run_incast(options);
  if (result.wrong > 0) state.SkipWithError("a block was damaged");
  state.counters["rate"] = result.rate;
  state.counters["jain"] = result.jain;
  state.counters["dropped"] = static_cast<double>(result.dropped);
}
BENCHMARK(BM_Incast)->Arg(8)->Unit(benchmark::kMillisecond)->Iterations(1);

}  // namespace
}  // namespace sluice::packet

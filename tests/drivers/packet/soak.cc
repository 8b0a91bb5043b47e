// Sends packets through the simulated network, in both directions, until so many have been sent,
// with losses, repeats, reordering and damage, and checks every block that arrives. Exits with 1
// when one is missing, wrong, repeated or out of order.
//
//   packet_soak [--packets 1000000] [--loss 0.01] [--flips 0.001] [--duplicate 0.001]
//               [--reorder 0.01] [--seed 1] [--packet-bytes 512]
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "base/clock.h"
#include "tests/drivers/packet/world.h"

namespace {

using namespace sluice;
using namespace sluice::packet;

int run(const std::map<std::string, double>& given) {
  World::Options options;
  options.seed = static_cast<uint64_t>(given.at("seed"));
  options.packets.seed = options.seed;
  options.packets.loss = given.at("loss");
  options.packets.corrupt = given.at("flips");
  options.packets.duplicate = given.at("duplicate");
  options.packets.reorder = given.at("reorder");
  options.packets.max_packet_bytes = static_cast<size_t>(given.at("packet-bytes"));
  options.packets.device_reads_late = true;
  options.buffers = 96;
  World world(options);
  const auto [a, b] = world.connect(0, 1);
  if (a == 0) {
    std::fprintf(stderr, "no connection\n");
    return 1;
  }
  constexpr uint64_t kEndless = uint64_t{1} << 60;
  Flow& there = world.add_flow(0, a, 1, b, kEndless, 1, 64 << 10, 32);
  Flow& back = world.add_flow(1, b, 0, a, kEndless, 1, 2000, 32);
  const auto packets = static_cast<uint64_t>(given.at("packets"));
  const int64_t began = system_clock().monotonic_ns();
  uint64_t steps = 0;
  uint64_t sent = 0;
  size_t largest_gap = 0;
  while (sent < packets) {
    if (!world.step(world.now() + 60'000'000'000)) {
      std::fprintf(stderr, "it stands still\n");
      return 1;
    }
    if (++steps % 1024 != 0) continue;
    const SimPacketCounters counters = world.network().counters();
    sent = counters.sent;
    largest_gap = std::max<size_t>(largest_gap, there.posted - there.received);
    if (there.wrong + back.wrong + there.failed + back.failed > 0) break;
    if (world.end(0, a).closed || world.end(1, b).closed) {
      std::fprintf(stderr, "closed: %s, %s\n", world.end(0, a).status.ToString().c_str(),
                   world.end(1, b).status.ToString().c_str());
      return 1;
    }
  }
  // What is under way arrives, and then nothing is missing.
  there.want = there.posted;
  back.want = back.posted;
  const bool all =
      world.run([&] { return there.sent == there.want && back.sent == back.want; }, 60'000'000'000);
  const double seconds = static_cast<double>(system_clock().monotonic_ns() - began) / 1e9;
  const SimPacketCounters wire = world.network().counters();
  const LayerCounters one = world.endpoint(0).layer_counters();
  const LayerCounters two = world.endpoint(1).layer_counters();
  const bool right = all && there.wrong + back.wrong + there.failed + back.failed == 0 &&
                     there.received == there.posted && back.received == back.posted;
  std::printf(
      "packets %llu lost %llu damaged %llu repeated_by_wire %llu reordered %llu\n"
      "thrown away: check %llu short %llu malformed %llu duplicates %llu; sent again %llu, probes "
      "%llu\n"
      "blocks %llu + %llu received, wrong %llu, bytes %llu, virtual seconds %.3f, real %.1f, "
      "%.0f ns a packet\n"
      "most blocks under way %zu of 32, largest queue %zu bytes\n%s\n",
      static_cast<unsigned long long>(wire.sent), static_cast<unsigned long long>(wire.lost),
      static_cast<unsigned long long>(wire.corrupted),
      static_cast<unsigned long long>(wire.duplicated),
      static_cast<unsigned long long>(wire.reordered),
      static_cast<unsigned long long>(one.wrong_check + two.wrong_check),
      static_cast<unsigned long long>(one.short_packets + two.short_packets),
      static_cast<unsigned long long>(one.malformed + two.malformed),
      static_cast<unsigned long long>(one.duplicates + two.duplicates),
      static_cast<unsigned long long>(one.repeated_packets + two.repeated_packets),
      static_cast<unsigned long long>(one.probes + two.probes),
      static_cast<unsigned long long>(there.received),
      static_cast<unsigned long long>(back.received),
      static_cast<unsigned long long>(there.wrong + back.wrong),
      static_cast<unsigned long long>(there.received_bytes + back.received_bytes),
      static_cast<double>(world.now()) / 1e9, seconds,
      seconds * 1e9 / static_cast<double>(wire.sent), largest_gap, wire.largest_queue_bytes,
      right ? "every block exactly once, in order, intact" : "WRONG");
  return right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, double> given = {{"packets", 1e6},     {"loss", 0.01},    {"flips", 0.001},
                                         {"duplicate", 0.001}, {"reorder", 0.01}, {"seed", 1},
                                         {"packet-bytes", 512}};
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = std::string(argv[i]).substr(0, 2) == "--" ? argv[i] + 2 : "";
    if (!given.contains(key)) {
      std::fprintf(stderr, "%s: not an option\n", argv[i]);
      return 2;
    }
    given[key] = std::strtod(argv[i + 1], nullptr);
  }
  return run(given);
}

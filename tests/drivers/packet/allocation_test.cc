// In steady state a packet allocates nothing, neither in the layer nor in the simulated port.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/drivers/packet/world.h"

namespace {
std::atomic<uint64_t> allocations{0};
}  // namespace

// Not inlined: the compiler would take malloc and operator delete for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace sluice::packet {
namespace {

TEST(PacketAllocations, NoneInSteadyState) {
  World::Options options;
  options.packets.loss = 0.01;
  options.packets.reorder = 0.01;
  World world(options);
  const auto [a, b] = world.connect(0, 1);
  Flow& flow = world.add_flow(0, a, 1, b, uint64_t{1} << 60, 60'000, 60'000, 24);
  world.run_for(100'000'000);
  const uint64_t packets = world.network().counters().sent;
  const uint64_t before = allocations.load();
  world.run_for(100'000'000);
  const uint64_t made = allocations.load() - before;
  const uint64_t sent = world.network().counters().sent - packets;
  EXPECT_GT(sent, 50'000u);
  EXPECT_LE(made, sent / 10'000) << "of " << sent << " packets";
  EXPECT_EQ(flow.wrong, 0u);
}

}  // namespace
}  // namespace sluice::packet

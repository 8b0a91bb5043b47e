// Exchanges alone, in simulated time.
#include <gtest/gtest.h>

#include "dataplane/stream/exchange.h"
#include "drivers/fault.h"
#include "drivers/sim/sim.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/world/fabric_time.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {
namespace {

// Of a connection that is being closed a driver takes no buffers to receive into, and the close may
// wait for the peer.
void connect_without_receives() {
  FabricTime time;
  SimFabric fabric(1, {.time = &time});
  const auto arena = Arena::create({.bytes = 64 * kBufferBytes});
  require_ok(arena.status(), "an arena");
  SimTransport sim_a(fabric, "a");
  SimTransport sim_b(fabric, "b");
  FaultTransport a(sim_a, {.partial_post = 1.0});
  FaultTransport b(sim_b, {.partial_post = 1.0});
  Exchange::Options options;
  options.arena = arena->get();
  options.transport = &b;
  options.listen = options.node = "b";
  const auto listening = Exchange::open(options);
  require_ok(listening.status(), "an exchange");
  options.transport = &a;
  options.listen = options.node = "a";
  const auto connecting = Exchange::open(options);
  require_ok(connecting.status(), "an exchange");
  Exchange::ConnectOptions to;
  to.address = "b";
  to.timeout_ms = 2'000;
  if ((*connecting)->connect(to).ok()) fail("connected, though nothing can be received");
}

TEST(Streams, AnExchangeWaitsWhileItsDriverTakesNoBuffers) {
  // Nobody is preempted: who does not wait runs for ever.
  const Result result =
      run(1, {.preempt = 0.0, .spuriously = 0.0, .step_limit = 100'000}, connect_without_receives);
  EXPECT_TRUE(result.passed()) << result.failure;
}

}  // namespace
}  // namespace sluice::simulation

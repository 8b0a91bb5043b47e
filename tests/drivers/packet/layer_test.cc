// What is special to the packet layer, on the simulated network: losses, strangers, rates.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cinttypes>
#include <cmath>
#include <string>
#include <vector>

#include "base/status.h"
#include "tests/drivers/packet/incast.h"
#include "tests/drivers/packet/world.h"

namespace sluice::packet {
namespace {

using testing::HasSubstr;

constexpr int64_t kSecondNs = 1'000'000'000;

World::Options lossless() {
  World::Options options;
  options.packets.queue_bytes = 4 << 20;
  return options;
}

// Bytes a second of one flow of blocks, over `duration_ns` after a warm-up.
double goodput(const World::Options& options, int64_t duration_ns) {
  World world(options);
  const auto [a, b] = world.connect(0, 1);
  EXPECT_NE(a, 0u);
  Flow& flow = world.add_flow(0, a, 1, b, uint64_t{1} << 60, 64 << 10, 64 << 10, 48);
  world.run_for(20'000'000);
  const uint64_t before = flow.received_bytes;
  world.run_for(duration_ns);
  EXPECT_EQ(flow.wrong, 0u);
  return static_cast<double>(flow.received_bytes - before) * 1e9 / static_cast<double>(duration_ns);
}

TEST(PacketLayer, RandomLossCostsLittle) {
  World::Options options = lossless();
  options.fabric.bytes_per_second = 1'250'000'000;  // 10 Gbit/s
  options.buffers = 128;
  const double whole = goodput(options, 100'000'000);
  EXPECT_GT(whole, 0.85 * 1.25e9);
  options.packets.loss = 0.001;
  const double thousandth = goodput(options, 100'000'000);
  options.packets.loss = 0.01;
  const double hundredth = goodput(options, 100'000'000);
  std::printf("goodput: lossless %.3f of the link, 0.1 %%: %.3f, 1 %%: %.3f of lossless\n",
              whole / 1.25e9, thousandth / whole, hundredth / whole);
  EXPECT_GE(thousandth, 0.9 * whole);
  EXPECT_GE(hundredth, 0.7 * whole);
}

// However much may be sent at once, arrivals are looked at after a few packets: bursts of a whole
// window make acknowledgements as late as they are long, and the window then grows without end.
TEST(PacketLayer, LooksAtArrivalsAfterAFewPackets) {
  World::Options options = lossless();
  options.fabric.bytes_per_second = 1'250'000'000;
  options.buffers = 128;
  World world(options);
  const auto [a, b] = world.connect(0, 1);
  ASSERT_NE(a, 0u);
  Flow& flow = world.add_flow(0, a, 1, b, uint64_t{1} << 60, 64 << 10, 64 << 10, 48);
  world.run_for(20'000'000);
  ASSERT_GT(world.endpoint(0).connection(a)->congestion()->window_packets(), 100);
  // The sender was away: all of its window is acknowledged, and half a millisecond's worth is due.
  for (int i = 0; i < 10; ++i) {
    world.fabric().advance(40'000);
    world.endpoint(1).wait(0);
  }
  world.fabric().advance(100'000);
  const uint64_t before = world.network().counters().sent;
  world.endpoint(0).wait(0);
  const uint64_t sent = world.network().counters().sent - before;
  EXPECT_GE(sent, 16u);
  EXPECT_LE(sent, 40u);
  EXPECT_EQ(flow.wrong, 0u);
}

void incast(size_t queue_bytes, bool staggered, double least_jain) {
  IncastOptions options;
  options.queue_bytes = queue_bytes;
  options.staggered = staggered;
  const IncastResult result = run_incast(options);
  std::printf("incast, queue %zu KiB%s: %.3f of the link, Jain %.4f, %" PRIu64 " of %" PRIu64
              " packets dropped\n",
              queue_bytes >> 10, staggered ? ", one by one" : "", result.rate, result.jain,
              result.dropped, result.packets);
  EXPECT_EQ(result.wrong, 0u);
  EXPECT_GE(result.rate, 0.9);
  EXPECT_GE(result.jain, least_jain);
}

TEST(PacketLayer, EightSendersShareOneReceiver) { incast(1 << 20, false, 0.95); }
TEST(PacketLayer, EightSendersThatBeginOneByOne) { incast(1 << 20, true, 0.95); }
// A queue that drops before the delay reaches the target: the link stays full, but who is dropped
// is the queue's doing, and fair it is not.
TEST(PacketLayer, EightSendersAtASmallQueueDoNotCollapse) { incast(128 << 10, false, 0); }

// Every block exactly once, in order, intact: thousands of small worlds.
TEST(PacketLayer, EverySeedDeliversEveryBlock) {
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    World::Options options;
    options.seed = seed;
    options.buffers = 24;
    options.buffer_bytes = 16 << 10;
    options.packets.seed = seed;
    options.packets.loss = 0.1;
    options.packets.duplicate = 0.05;
    options.packets.corrupt = 0.05;
    options.packets.reorder = 0.2;
    options.packets.max_packet_bytes = 512 + random.below(2000);
    options.packets.device_reads_late = random.chance(0.5);
    options.packets.device_packets = 4 + random.below(60);
    options.packets.queue_bytes = 8192 << random.below(6);
    options.fabric.jitter_ns = static_cast<int64_t>(random.below(50'000));
    World world(options);
    const auto [a, b] = world.connect(0, 1);
    ASSERT_NE(a, 0u);
    Flow& there = world.add_flow(0, a, 1, b, 12, 1, 16 << 10, 1 + random.below(8));
    Flow& back = world.add_flow(1, b, 0, a, 6, 1, 4096, 1 + random.below(8));
    ASSERT_TRUE(world.run([&] { return there.sent == there.want && back.sent == back.want; },
                          60 * kSecondNs))
        << there.sent << " " << back.sent;
    const bool first = random.chance(0.5);
    world.endpoint(first ? 0 : 1).close(first ? a : b);
    ASSERT_TRUE(
        world.run([&, a = a, b = b] { return world.end(0, a).closed && world.end(1, b).closed; },
                  60 * kSecondNs));
    EXPECT_TRUE(world.end(0, a).status.ok()) << world.end(0, a).status;
    EXPECT_TRUE(world.end(1, b).status.ok()) << world.end(1, b).status;
    ASSERT_EQ(there.wrong + back.wrong + there.failed + back.failed, 0u);
    ASSERT_EQ(there.received, there.want);
    ASSERT_EQ(back.received, back.want);
    EXPECT_EQ(world.pool(0).free(), world.pool(0).size());
    EXPECT_EQ(world.pool(1).free(), world.pool(1).size());
  }
}

TEST(PacketLayer, APartitionThatHealsIsSurvived) {
  World world(lossless());
  const auto [a, b] = world.connect(0, 1);
  Flow& flow = world.add_flow(0, a, 1, b, uint64_t{1} << 60, 1000, 60'000, 16);
  world.run_for(5'000'000);
  world.fabric().partition("n0", "n1");
  world.run_for(10 * kSecondNs);
  const uint64_t before = flow.received;
  world.run_for(kSecondNs);
  EXPECT_EQ(flow.received, before);
  world.fabric().heal("n0", "n1");
  ASSERT_TRUE(world.run([&] { return flow.received > before + 1000; }, 5 * kSecondNs));
  EXPECT_EQ(flow.wrong, 0u);
  EXPECT_FALSE(world.end(0, a).closed);
}

TEST(PacketLayer, APartitionThatStaysEndsBothEnds) {
  World world(lossless());
  const auto [a, b] = world.connect(0, 1);
  Flow& flow = world.add_flow(0, a, 1, b, uint64_t{1} << 60, 1000, 60'000, 16);
  world.run_for(5'000'000);
  world.fabric().partition("n0", "n1");
  ASSERT_TRUE(
      world.run([&, a = a, b = b] { return world.end(0, a).closed && world.end(1, b).closed; },
                30 * kSecondNs));
  EXPECT_EQ(world.end(0, a).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(message_of(world.end(1, b).status)), HasSubstr("n0"));
  EXPECT_EQ(flow.sent + flow.failed, flow.posted);
  EXPECT_EQ(world.pool(0).free(), world.pool(0).size());
  EXPECT_EQ(world.pool(1).free(), world.pool(1).size());
}

TEST(PacketLayer, AnIdleConnectionStaysAndNoticesARestart) {
  World world(lossless());
  const auto [a, b] = world.connect(0, 1);
  world.run_for(100 * kSecondNs);
  EXPECT_FALSE(world.end(0, a).closed);
  EXPECT_FALSE(world.end(1, b).closed);
  world.fabric().partition("n0", "n1");  // so that the reset is lost
  world.drop_endpoint(1);
  world.fabric().heal("n0", "n1");
  world.make_endpoint(1);
  ASSERT_TRUE(world.run([&, a = a] { return world.end(0, a).closed; }, 10 * kSecondNs));
  EXPECT_THAT(std::string(message_of(world.end(0, a).status)), HasSubstr("restarted"));
}

TEST(PacketLayer, EndsThatDisagreeAreToldWhy) {
  World::Options options = lossless();
  World world(options);
  options.buffer_bytes = 32 << 10;
  // A second world cannot talk to the first; a smaller message limit on a third node can.
  PacketOptions layer;
  layer.max_message_bytes = 4096;
  SimClock clock(world.fabric());
  PacketTransport other(
      "packet_sim", [&](std::string_view listen) { return world.network().open("x", listen); },
      layer, clock);
  auto arena = Arena::create({.bytes = 1 << 20, .buffer_bytes = 64 << 10});
  ASSERT_TRUE(arena.ok());
  auto endpoint = other.open(**arena, "");
  ASSERT_TRUE(endpoint.ok());
  auto id = (*endpoint)->connect("n1");
  ASSERT_TRUE(id.ok());
  Completion completion;
  for (int i = 0; i < 1000; ++i) {
    if ((*endpoint)->poll({&completion, 1}) > 0) break;
    world.run_for(100'000);
  }
  EXPECT_EQ(completion.kind, CompletionKind::kClosed);
  EXPECT_THAT(std::string(message_of(completion.status)), HasSubstr("65536"));
  EXPECT_EQ(world.closed_unaccepted, 1u);
}

TEST(PacketLayer, DifferentPacketLimitsAgreeOnTheSmaller) {
  World world(lossless());
  PacketOptions layer;
  layer.max_packet_bytes = 600;
  SimClock clock(world.fabric());
  PacketTransport other(
      "packet_sim", [&](std::string_view listen) { return world.network().open("x", listen); },
      layer, clock);
  auto arena = Arena::create({.bytes = 1 << 20, .buffer_bytes = 64 << 10});
  auto pool = (*arena)->make_pool("x", 4);
  auto endpoint = other.open(**arena, "");
  ASSERT_TRUE(endpoint.ok());
  auto id = (*endpoint)->connect("n1");
  std::vector<BlockBuffer> buffer;
  buffer.push_back((*pool)->try_take());
  EXPECT_EQ((*endpoint)->post_recv(*id, buffer), 1u);
  world.run_for(1'000'000);
  Completion completion;
  for (int i = 0; i < 100 && (*endpoint)->poll({&completion, 1}) == 0; ++i) world.run_for(100'000);
  ASSERT_EQ(completion.kind, CompletionKind::kConnected);
  for (int i = 0; i < 100 && world.accepted(1).empty(); ++i) {
    (*endpoint)->poll({});
    world.run_for(100'000);
  }
  ASSERT_EQ(world.accepted(1).size(), 1u);
  for (int i = 0; i < 100 && world.endpoint(1).credits(world.accepted(1)[0]) == 0; ++i) {
    EXPECT_EQ((*endpoint)->poll({&completion, 1}), 0u);
    world.run_for(100'000);
  }
  SendRequest request{world.pool(1).try_take(), 5000};
  std::fill_n(request.buffer.data(), 5000, 0x5a);
  ASSERT_EQ(world.endpoint(1).post_send(world.accepted(1)[0], {&request, 1}), 1u);
  for (int i = 0; i < 200 && (*endpoint)->poll({&completion, 1}) == 0; ++i) world.run_for(100'000);
  ASSERT_EQ(completion.kind, CompletionKind::kReceived);
  EXPECT_EQ(completion.bytes, 5000u);
  EXPECT_EQ(completion.buffer.data()[4999], 0x5a);
}

}  // namespace
}  // namespace sluice::packet

// The parts of the packet layer, each alone.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "base/random.h"
#include "drivers/packet/congestion.h"
#include "drivers/packet/numbers.h"
#include "drivers/packet/rtt.h"
#include "drivers/packet/sent_log.h"

namespace sluice::packet {
namespace {

TEST(RoundTrip, FollowsRfc6298) {
  RoundTrip trip;
  EXPECT_EQ(trip.timeout(0), kSecond);
  trip.sample(100 * kMillisecond, 0, 1);
  EXPECT_EQ(trip.smoothed(), 100 * kMillisecond);
  EXPECT_EQ(trip.variation(), 50 * kMillisecond);
  EXPECT_EQ(trip.timeout(0), 300 * kMillisecond);
  trip.sample(180 * kMillisecond, 0, 2);
  // RTTVAR = 3/4 * 50 + 1/4 * 80 = 57.5; SRTT = 7/8 * 100 + 1/8 * 180 = 110
  EXPECT_EQ(trip.variation(), 57'500'000);
  EXPECT_EQ(trip.smoothed(), 110 * kMillisecond);
  EXPECT_EQ(trip.timeout(0), 340 * kMillisecond);
  EXPECT_EQ(trip.timeout(1), 680 * kMillisecond);
  EXPECT_EQ(trip.timeout(5), RoundTrip::kMaxTimeout);
}

TEST(RoundTrip, HasAFloorAndTakesTheHostsPartFromTheNetworkOnly) {
  RoundTrip trip;
  for (int i = 0; i < 100; ++i) trip.sample(50 * kMicrosecond, 20 * kMicrosecond, i);
  EXPECT_EQ(trip.timeout(0), RoundTrip::kMinTimeout);
  EXPECT_EQ(trip.network(), 30 * kMicrosecond);
  EXPECT_EQ(trip.smallest(), 30 * kMicrosecond);
  trip.sample(50 * kMicrosecond, 500 * kMicrosecond, 100);  // more than there was
  EXPECT_EQ(trip.network(), 1);
  trip.sample(40 * kMicrosecond, 0, 20 * kSecond);  // the smallest is forgotten
  EXPECT_EQ(trip.smallest(), 40 * kMicrosecond);
}

TEST(ReceivedNumbers, AgreeWithASet) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    ReceivedNumbers numbers;
    std::set<uint64_t> model;
    uint64_t top = 1;
    for (int i = 0; i < 2000; ++i) {
      top += random.below(random.chance(0.01) ? 3000 : 4);
      const uint64_t number = 1 + (random.chance(0.8) ? top : random.below(top));
      const bool old =
          !model.empty() && *model.rbegin() / 64 >= number / 64 + ReceivedNumbers::kWords;
      ASSERT_EQ(numbers.seen(number), model.contains(number) || old);
      if (numbers.seen(number)) continue;
      numbers.add(number);
      model.insert(number);
      ASSERT_EQ(numbers.largest(), *model.rbegin());
    }
    uint64_t words[kMaxAckWords];
    const size_t count = numbers.ack_words(words);
    ASSERT_GE(count, 1u);
    for (size_t k = 0; k < count; ++k) {
      for (uint64_t b = 0; b < 64; ++b) {
        const uint64_t number = (numbers.largest() / 64 - k) * 64 + b;
        ASSERT_EQ((words[k] >> b & 1) != 0, model.contains(number)) << number;
      }
    }
  }
}

TEST(SentLog, ThreeLaterOnesMakeALoss) {
  SentLog log;
  SentPacket packet;
  packet.bytes = 100;
  packet.sent_ns = 1000;
  for (int i = 0; i < 10; ++i) log.add(packet);
  std::vector<uint64_t> acked;
  const auto on_acked = [&](uint64_t number, const SentPacket&, bool) { acked.push_back(number); };
  log.acknowledge(3, 0, 0b1100, on_acked);
  size_t lost = 0;
  log.find_losses(2000, 10'000, [&](const SentPacket&) { ++lost; });
  EXPECT_EQ(lost, 0u);
  EXPECT_EQ(log.loss_time(), 1000 + 10'000 + 1250);
  log.acknowledge(4, 0, 0b11100, on_acked);
  log.find_losses(2000, 10'000, [&](const SentPacket&) { ++lost; });
  EXPECT_EQ(lost, 1u);
  EXPECT_EQ(acked, (std::vector<uint64_t>{2, 3, 4}));
  EXPECT_EQ(log.packets_in_flight(), 6u);
  EXPECT_EQ(log.bytes_in_flight(), 600u);
  // It was only late: reordering is expected from now on.
  log.acknowledge(6, 0, 0b1111110, [](uint64_t, const SentPacket&, bool) {});
  EXPECT_EQ(log.spurious(), 1u);
  EXPECT_EQ(log.threshold(), 6u);
  EXPECT_EQ(log.packets_in_flight(), 4u);
}

TEST(SentLog, EveryPacketIsSettledOnceWhateverTheOrder) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    SentLog log;
    ReceivedNumbers peer;
    std::vector<int> settled(1);
    size_t acked = 0;
    size_t lost = 0;
    size_t late = 0;
    for (int step = 0; step < 3000; ++step) {
      for (uint64_t n = random.below(5); n > 0 && !log.full(); --n) {
        SentPacket packet;
        packet.sent_ns = step;
        packet.bytes = 10;
        const uint64_t number = log.add(packet);
        settled.push_back(0);
        if (random.chance(0.9)) peer.add(number);
      }
      if (peer.largest() == 0 || random.chance(0.3)) continue;
      uint64_t words[kMaxAckWords];
      const size_t count = peer.ack_words(words);
      for (size_t k = 0; k < count; ++k) {
        log.acknowledge(peer.largest(), k, words[k],
                        [&](uint64_t number, const SentPacket&, bool was_lost) {
                          ++settled[number];
                          ++(was_lost ? late : acked);
                        });
      }
      log.find_losses(step, 1000, [&](const SentPacket&) { ++lost; });
    }
    for (int times : settled) ASSERT_LE(times, 1);
    EXPECT_EQ(late, 0u);
    EXPECT_EQ(acked + lost + log.packets_in_flight() + 1, log.next());
    EXPECT_EQ(log.bytes_in_flight(), log.packets_in_flight() * 10);
    EXPECT_GT(lost, 300u);
  }
}

CongestionOptions options() { return {.packet_bytes = 1000, .base_target_ns = 100'000}; }

// One round: a window's packets are acknowledged with this delay.
void round(Congestion* congestion, uint64_t* number, int64_t delay) {
  const auto packets = static_cast<uint64_t>(congestion->window_packets());
  for (uint64_t i = 0; i < packets; ++i) {
    congestion->on_acked(true);
    ++*number;
    congestion->on_sample(*number, *number + packets, delay, 10'000);
  }
}

TEST(Congestion, DoublesUntilTheDelayRisesThenAddsAndTakesInProportion) {
  Congestion congestion(options());
  uint64_t number = 0;
  round(&congestion, &number, 10'000);
  round(&congestion, &number, 10'000);
  EXPECT_GE(congestion.window_packets(), 20);
  for (int i = 0; i < 5; ++i) round(&congestion, &number, 10'000);
  EXPECT_GT(congestion.window_packets(), 300);
  EXPECT_TRUE(congestion.slow_start());
  round(&congestion, &number, 90'000);
  round(&congestion, &number, 90'000);
  EXPECT_FALSE(congestion.slow_start());
  const double before = congestion.window_packets();
  round(&congestion, &number, 90'000);
  EXPECT_GT(congestion.window_packets(), before);
  EXPECT_LE(congestion.window_packets(), before + 10);
  // Twice the target: beta * 1/2 less, once a round (a round begins within round()).
  const double high = congestion.window_packets();
  round(&congestion, &number, 200'000);
  round(&congestion, &number, 200'000);
  EXPECT_LE(congestion.window_packets(), high * 0.65);
  EXPECT_GE(congestion.window_packets(), high * 0.35);
  // Far more: never less than half in one round.
  const double lower = congestion.window_packets();
  round(&congestion, &number, 10'000'000);
  EXPECT_GE(congestion.window_packets() / lower, 0.24);
}

TEST(Congestion, ALossAloneChangesNothingManyDo) {
  Congestion congestion(options());
  uint64_t number = 0;
  for (int i = 0; i < 4; ++i) round(&congestion, &number, 10'000);
  const double before = congestion.window_packets();
  for (int i = 0; i < 5; ++i) congestion.on_lost(number);
  EXPECT_EQ(congestion.window_packets(), before);
  for (int i = 0; i < 100; ++i) congestion.on_lost(number + 1000);
  EXPECT_NEAR(congestion.window_packets(), before * 0.7, 1);
  congestion.on_silence();
  EXPECT_EQ(congestion.window_packets(), Congestion::kMinWindow);
}

TEST(Congestion, SmallWindowsGetALaterTarget) {
  Congestion congestion(options());
  const int64_t at_ten = congestion.target(10'000);
  congestion.on_silence();
  EXPECT_GT(congestion.target(10'000), at_ten);
  EXPECT_LE(congestion.target(10'000), 200'000);
  EXPECT_EQ(congestion.target(10'000), congestion.target(200'000));  // not of when it began
  EXPECT_GT(congestion.target(5'000'000), 5'000'000);                // a long path
}

}  // namespace
}  // namespace sluice::packet

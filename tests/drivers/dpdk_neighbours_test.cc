#include "drivers/dpdk/neighbours.h"

#include <gtest/gtest.h>

namespace sluice::dpdk {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr uint32_t kPeer = 0x0a0c0002;
constexpr Mac kMac = {2, 0, 0, 0, 0, 2};
constexpr Mac kOther = {2, 0, 0, 0, 0, 9};

TEST(DpdkNeighbours, AsksOnceInAWhileUntilAnswered) {
  Neighbours table;
  EXPECT_TRUE(table.find(kPeer, kSecond).ask);
  EXPECT_FALSE(table.find(kPeer, kSecond + 1).ask);
  EXPECT_TRUE(table.find(kPeer, kSecond + 200'000'000).ask);
  EXPECT_TRUE(table.answered(kPeer, kMac, kSecond + 210'000'000));
  const Neighbours::Answer answer = table.find(kPeer, 2 * kSecond);
  EXPECT_EQ(answer.mac, kMac);
  EXPECT_FALSE(answer.ask);
}

TEST(DpdkNeighbours, BelievesNoAnswerWithoutItsQuestion) {
  Neighbours table;
  EXPECT_FALSE(table.answered(kPeer, kOther, kSecond));
  EXPECT_EQ(table.size(), 0u);
  table.find(kPeer, kSecond);
  EXPECT_FALSE(table.answered(kPeer, kOther, 3 * kSecond)) << "too late";
  table.find(kPeer, 4 * kSecond);
  EXPECT_TRUE(table.answered(kPeer, kMac, 4 * kSecond));
  EXPECT_FALSE(table.answered(kPeer, kOther, 4 * kSecond)) << "a second one";
  table.asked_us(kPeer, kOther, 5 * kSecond);
  EXPECT_EQ(table.find(kPeer, 5 * kSecond).mac, kMac) << "what a stranger says of itself";
}

TEST(DpdkNeighbours, AsksAgainInTimeAndForgets) {
  Neighbours table;
  table.find(kPeer, kSecond);
  table.answered(kPeer, kMac, kSecond);
  const Neighbours::Answer stale = table.find(kPeer, 40 * kSecond);
  EXPECT_TRUE(stale.ask);
  EXPECT_EQ(stale.mac, kMac) << "still used while it is asked";
  EXPECT_FALSE(table.find(kPeer, 200 * kSecond).mac.has_value());
}

TEST(DpdkNeighbours, LearnsFromAQuestion) {
  Neighbours table;
  table.asked_us(kPeer, kMac, kSecond);
  EXPECT_EQ(table.find(kPeer, 2 * kSecond).mac, kMac);
}

TEST(DpdkNeighbours, AFloodOfStrangersNeitherGrowsItNorDrivesOutPeersInUse) {
  Neighbours table({.entries = 64});
  table.find(kPeer, kSecond);
  table.answered(kPeer, kMac, kSecond);
  for (uint32_t i = 0; i < 100'000; ++i) {
    const int64_t now = 2 * kSecond + i * 1000;
    table.asked_us(0x0b000000 + i, kOther, now);
    if (i % 16 == 0) {
      EXPECT_EQ(table.find(kPeer, now).mac, kMac);
    }
  }
  EXPECT_LE(table.size(), 64u);
}

}  // namespace
}  // namespace sluice::dpdk

#include "control/membership/weights.h"

#include <gtest/gtest.h>

#include <limits>

#include "control/membership/work_meter.h"

namespace sluice {
namespace {

constexpr double kMib = 1 << 20;
constexpr int64_t kSecond = 1'000'000'000;

MeasuredRates some_rates() {
  MeasuredRates rates;
  rates.disk_write = {500 * kMib, 0};
  rates.link = {1000 * kMib, 0};
  rates.checksum = {9000 * kMib, 0};
  rates.free_bytes = uint64_t{1} << 44;
  return rates;
}

TEST(Weights, AreTheBottleneckCappedBySpace) {
  EXPECT_EQ(bottleneck_of(MeasuredRates()).weight, 1);
  EXPECT_STREQ(bottleneck_of(MeasuredRates()).what, "none");
  MeasuredRates rates = some_rates();
  EXPECT_DOUBLE_EQ(bottleneck_of(rates).weight, 500);
  EXPECT_STREQ(bottleneck_of(rates).what, "disk_write");
  EXPECT_EQ(bottleneck_of(rates).from, WeightFrom::kProbe);
  rates.link = {100 * kMib, 3};
  EXPECT_DOUBLE_EQ(bottleneck_of(rates).weight, 100);
  EXPECT_EQ(bottleneck_of(rates).from, WeightFrom::kWork);
  rates.limit = 70 * kMib;
  EXPECT_DOUBLE_EQ(bottleneck_of(rates).weight, 70);
  EXPECT_STREQ(bottleneck_of(rates).what, "limit");
  rates.free_bytes = uint64_t{60} * 600 * (1 << 20);
  EXPECT_DOUBLE_EQ(bottleneck_of(rates).weight, 60);
  EXPECT_STREQ(bottleneck_of(rates).what, "free_space");
  rates.free_bytes = 0;
  EXPECT_EQ(bottleneck_of(rates).weight, kLeastWeight);
}

TEST(Weights, RatesThatAreNoneDoNotLimit) {
  MeasuredRates rates = some_rates();
  for (const double none : {0.0, -1.0, std::numeric_limits<double>::infinity(),
                            std::numeric_limits<double>::quiet_NaN()}) {
    rates.link.rate = none;
    rates.limit = none;
    EXPECT_DOUBLE_EQ(bottleneck_of(rates).weight, 500);
    EXPECT_EQ(send_rate(rates), 0);
    EXPECT_DOUBLE_EQ(receive_rate(rates), 500 * kMib);
  }
}

TEST(Weights, APlanTakesTheRateOfEachDirection) {
  MeasuredRates rates = some_rates();
  rates.ingest = {80 * kMib, 9};
  EXPECT_DOUBLE_EQ(send_rate(rates), 1000 * kMib);
  EXPECT_DOUBLE_EQ(receive_rate(rates), 500 * kMib) << "backups do not ingest";
  rates.limit = 40 * kMib;
  EXPECT_DOUBLE_EQ(send_rate(rates), 40 * kMib);
  EXPECT_DOUBLE_EQ(receive_rate(rates), 40 * kMib);
  rates.free_bytes = uint64_t{10} * 600 * (1 << 20);
  EXPECT_DOUBLE_EQ(send_rate(rates), 40 * kMib);
  EXPECT_DOUBLE_EQ(receive_rate(rates), 10 * kMib);
  EXPECT_EQ(send_rate({}), 0);
  EXPECT_EQ(receive_rate({}), 0);
}

TEST(Weights, SettleOnlyOnRealChange) {
  EXPECT_EQ(settled_weight(100, 119), 100);
  EXPECT_EQ(settled_weight(100, 121), 121);
  EXPECT_EQ(settled_weight(100, 81), 100);
  EXPECT_EQ(settled_weight(100, 79), 79);
  EXPECT_EQ(settled_weight(100, -1), 100);
  EXPECT_EQ(settled_weight(100, 0.0 / 0.0), 100);
}

TEST(Weights, OnlyWhatIsNewIsNews) {
  const MeasuredRates stored = some_rates();
  MeasuredRates now = stored;
  EXPECT_FALSE(is_news(stored, now));
  now.disk_write.rate *= 1.19;
  now.free_bytes = 1;
  EXPECT_FALSE(is_news(stored, now)) << "noise";
  now.disk_write.rate = stored.disk_write.rate * 1.21;
  EXPECT_TRUE(is_news(stored, now));
  now = stored;
  now.ingest = {1, 5};
  EXPECT_TRUE(is_news(stored, now));
  now = stored;
  now.link.work_seconds = 5;
  EXPECT_TRUE(is_news(stored, now)) << "known from work";
  EXPECT_FALSE(is_news(now, stored)) << "no longer known from work";
  now = stored;
  now.limit = 1e7;
  EXPECT_TRUE(is_news(stored, now));
}

TEST(Weights, WorkIsRememberedBesideANewProbe) {
  MeasuredRates earlier = some_rates();
  earlier.disk_write = {90 * kMib, 12};
  earlier.limit = 7;
  MeasuredRates probe = some_rates();
  probe.link = {300 * kMib, 0};
  const MeasuredRates now = with_work_of(earlier, probe);
  EXPECT_EQ(now.disk_write, earlier.disk_write);
  EXPECT_EQ(now.link, probe.link);
  EXPECT_EQ(now.limit, 0) << "a limit is not remembered";
}

// A thread that moves 1 GB/s while it has messages does so on a wire of 125 MB/s as well.
TEST(Weights, WorkDoesNotMakeALinkFasterThanItsDevice) {
  const MeasuredRate device{125e6, 0};
  EXPECT_EQ(link_rate({1e9, 20}, device), device);
  EXPECT_EQ(link_rate({50e6, 20}, device), (MeasuredRate{50e6, 20}));
  EXPECT_EQ(link_rate({1e9, 20}, {}), (MeasuredRate{1e9, 20})) << "the device tells nothing";
  MeasuredRates earlier;
  earlier.link = {1e9, 20};
  MeasuredRates probe;
  probe.link = device;
  EXPECT_EQ(with_work_of(earlier, probe).link, device);
  probe.link = {};
  EXPECT_EQ(with_work_of(earlier, probe).link, earlier.link);
}

TEST(RateAverage, FollowsWhatWasAchieved) {
  RateAverage average(10);
  EXPECT_EQ(average.average(), MeasuredRate());
  average.add(1000, 1);
  EXPECT_DOUBLE_EQ(average.average().rate, 1000);
  average.add(2000, 0);
  average.add(2000, -1);
  average.add(2000, std::numeric_limits<double>::infinity());
  EXPECT_DOUBLE_EQ(average.average().rate, 1000);
  for (int i = 0; i < 200; ++i) average.add(2000, 1);
  EXPECT_NEAR(average.average().rate, 2000, 1);
  EXPECT_NEAR(average.average().work_seconds, 10, 0.001);
}

// Or a node would be what its first millisecond of work was for a minute.
TEST(RateAverage, TheFirstSampleCountsForItsSecondsAlone) {
  RateAverage average(60);
  average.add(1'000'000, 0.001);
  average.add(1'000'000, 1);
  EXPECT_NEAR(average.average().rate, 2'000'000 / 1.001, 20'000);
  EXPECT_NEAR(average.average().work_seconds, 1.001, 0.01);
}

TEST(RateAverage, GoesOnWhereItWasLeft) {
  RateAverage one(60);
  RateAverage other(60);
  one.add(5000, 5);
  other.resume(one.average());
  one.add(100, 1);
  other.add(100, 1);
  EXPECT_EQ(other.average(), one.average());
  other.resume({});
  EXPECT_EQ(other.average(), one.average()) << "nothing to go on from";
}

TEST(WorkMeter, ReplacesTheProbeOnceThereWasWorkEnough) {
  WorkMeter meter(2);
  meter.add(&MeasuredRates::disk_write, 100 << 20, kSecond);
  EXPECT_EQ(meter.rates(some_rates()), some_rates());
  meter.add(&MeasuredRates::disk_write, 100 << 20, 2 * kSecond);
  const MeasuredRates rates = meter.rates(some_rates());
  EXPECT_NEAR(rates.disk_write.rate, 200 * kMib / 3, kMib);
  EXPECT_EQ(rates.link, some_rates().link);
  EXPECT_EQ(bottleneck_of(rates).from, WeightFrom::kWork);
}

TEST(WorkMeter, CountsAStagesBusyTimeAndNotItsWaiting) {
  WorkMeter meter(0);
  meter.follow(&MeasuredRates::ingest, {10 << 20, kSecond, 100 * kSecond});
  EXPECT_NEAR(meter.rates({}).ingest.rate, 10 * kMib, 1);
  // A piece of work that is under way: its time counts with its bytes.
  meter.follow(&MeasuredRates::ingest, {10 << 20, 2 * kSecond, 200 * kSecond});
  EXPECT_NEAR(meter.rates({}).ingest.rate, 10 * kMib, 1);
  meter.follow(&MeasuredRates::ingest, {40 << 20, 4 * kSecond, 200 * kSecond});
  EXPECT_NEAR(meter.rates({}).ingest.rate, 10 * kMib, 1);
}

TEST(WorkMeter, GoesOnFromAnEarlierRun) {
  MeasuredRates earlier;
  earlier.ingest = {50 * kMib, 30};
  WorkMeter meter(2);
  meter.resume(earlier);
  EXPECT_EQ(meter.rates({}).ingest, earlier.ingest);
}

}  // namespace
}  // namespace sluice

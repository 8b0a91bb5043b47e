#include "control/peers/stage_report.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(StageReport, TheBottleneckHasTheLeastTimeToSpare) {
  EXPECT_EQ(bottleneck_of(std::vector<StageReport>()), nullptr);
  EXPECT_EQ(bottleneck_of({{"n1", DataStage::kScan, 0, 0, 0}}), nullptr);
  const std::vector<StageReport> stages = {{"n1", DataStage::kScan, 10, 600, 400},
                                           {"n3", DataStage::kDisk, 10, 91, 9},
                                           {"n2", DataStage::kDisk, 10, 900, 100}};
  ASSERT_NE(bottleneck_of(stages), nullptr);
  EXPECT_EQ(bottleneck_of(stages)->node, "n3");
  EXPECT_EQ(bottleneck_of(stages)->stage, DataStage::kDisk);
}

TEST(StageReport, IsMadeOfTimesAndTravels) {
  const StageTimes before{100, 5'000'000, 1'000'000, 7};
  const StageTimes now{350, 17'900'000, 4'000'000, 9};
  const StageReport report = report_of("n1", DataStage::kWire, since(before, now));
  EXPECT_EQ(report, (StageReport{"n1", DataStage::kWire, 250, 12, 3, 2}));
  v1::BackupStages message;
  put({report, {"n2", DataStage::kDisk, 1, 2, 3, 4}}, message.mutable_stages());
  EXPECT_EQ(stages_of(message.stages()),
            (std::vector<StageReport>{report, {"n2", DataStage::kDisk, 1, 2, 3, 4}}));
}

}  // namespace
}  // namespace sluice

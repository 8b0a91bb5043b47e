#include "control/restore/restore_stages.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(RestoreStages, AreWhatWasDoneMeanwhile) {
  const std::vector<StageReport> before = {{"n1", DataStage::kWire, 100, 10, 5, 3},
                                           {"n1", DataStage::kBuild, 40, 4, 4, 0},
                                           {"n2", DataStage::kWire, 900, 90, 9, 9}};
  const std::vector<StageReport> now = {{"n1", DataStage::kWire, 150, 30, 6, 8},
                                        {"n1", DataStage::kBuild, 40, 4, 9, 0},  // idle
                                        {"n2", DataStage::kWire, 70, 7, 1, 2},   // started again
                                        {"n3", DataStage::kKeep, 11, 1, 0, 0}};  // not asked before
  const std::vector<StageReport> done = {{"n1", DataStage::kWire, 50, 20, 1, 5},
                                         {"n2", DataStage::kWire, 70, 7, 1, 2},
                                         {"n3", DataStage::kKeep, 11, 1, 0, 0}};
  EXPECT_EQ(stages_since(before, now), done);
  EXPECT_TRUE(stages_since(now, now).empty());
}

}  // namespace
}  // namespace sluice

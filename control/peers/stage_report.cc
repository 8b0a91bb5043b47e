#include "control/peers/stage_report.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace sluice {
namespace {

constexpr std::string_view kStageNames[] = {"scan", "wire", "check", "merge",
                                            "disk", "read", "keep",  "build"};

std::optional<DataStage> stage_named(std::string_view name) {
  const auto* const found = std::find(std::begin(kStageNames), std::end(kStageNames), name);
  if (found == std::end(kStageNames)) return std::nullopt;
  return static_cast<DataStage>(found - std::begin(kStageNames));
}

}  // namespace

std::string_view name_of(DataStage stage) { return kStageNames[static_cast<size_t>(stage)]; }

const StageReport* bottleneck_of(const std::vector<StageReport>& stages) {
  const auto busiest = std::max_element(
      stages.begin(), stages.end(), [](const StageReport& a, const StageReport& b) {
        return std::pair(a.busy_share(), a.busy_ms) < std::pair(b.busy_share(), b.busy_ms);
      });
  return busiest == stages.end() || busiest->busy_ms == 0 ? nullptr : &*busiest;
}

StageReport report_of(std::string node, DataStage stage, const StageTimes& times) {
  return {std::move(node),
          stage,
          times.bytes,
          static_cast<uint64_t>(std::max<int64_t>(times.busy_ns, 0) / kMs),
          static_cast<uint64_t>(std::max<int64_t>(times.wait_ns, 0) / kMs),
          times.system_calls};
}

StageTimes since(const StageTimes& before, const StageTimes& now) {
  return {now.bytes - before.bytes, now.busy_ns - before.busy_ns, now.wait_ns - before.wait_ns,
          now.system_calls - before.system_calls};
}

void put(const std::vector<StageReport>& stages, StageReports* to) {
  for (const StageReport& stage : stages) {
    v1::StageReport* report = to->Add();
    report->set_node(stage.node);
    report->set_stage(std::string(name_of(stage.stage)));
    report->set_bytes(stage.bytes);
    report->set_busy_ms(stage.busy_ms);
    report->set_wait_ms(stage.wait_ms);
    report->set_system_calls(stage.system_calls);
  }
}

std::vector<StageReport> stages_of(const StageReports& from) {
  std::vector<StageReport> stages;
  for (const v1::StageReport& report : from) {
    const std::optional<DataStage> stage = stage_named(report.stage());
    if (!stage) continue;
    stages.push_back({report.node(), *stage, report.bytes(), report.busy_ms(), report.wait_ms(),
                      report.system_calls()});
  }
  return stages;
}

}  // namespace sluice

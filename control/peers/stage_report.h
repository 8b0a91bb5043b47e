// What the stages of a node's data path did for a job, for reports that say what bounded it. Pure.
#ifndef SLUICE_CONTROL_PEERS_STAGE_REPORT_H_
#define SLUICE_CONTROL_PEERS_STAGE_REPORT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/stage.h"
#include "control/proto/documents.pb.h"

namespace sluice {

// Of a backup: scan (reading the cut, packing, checksums), check (checksums and digests of what
// arrived), merge (of slots whose replicas differ), disk (writes to the archive in flight). Of a
// restore: read (reading and checking the archive), keep (checking blocks that arrived and
// gathering their rows), build (making them durable). Of both: wire (moving messages).
enum class DataStage { kScan, kWire, kCheck, kMerge, kDisk, kRead, kKeep, kBuild };
// "scan", "wire", ...: in messages, stored documents and what is printed.
std::string_view name_of(DataStage stage);

struct StageReport {
  std::string node;
  DataStage stage = DataStage::kScan;
  uint64_t bytes = 0;
  uint64_t busy_ms = 0;       // at least one worker was at it
  uint64_t wait_ms = 0;       // since its first work
  uint64_t system_calls = 0;  // of wire and disk
  // Of its time; 0 when it had none.
  double busy_share() const {
    const uint64_t all = busy_ms + wait_ms;
    return all == 0 ? 0 : static_cast<double>(busy_ms) / static_cast<double>(all);
  }
  friend bool operator==(const StageReport&, const StageReport&) = default;
};

// The one that has the least time to spare, which bounds the others; null when there is none.
const StageReport* bottleneck_of(const std::vector<StageReport>& stages);

StageReport report_of(std::string node, DataStage stage, const StageTimes& times);
// What was done since `before`.
StageTimes since(const StageTimes& before, const StageTimes& now);

using StageReports = google::protobuf::RepeatedPtrField<v1::StageReport>;
void put(const std::vector<StageReport>& stages, StageReports* to);
// Without those of stages that this build does not know.
std::vector<StageReport> stages_of(const StageReports& from);

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_STAGE_REPORT_H_

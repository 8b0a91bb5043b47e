#include "control/backup/backup_role.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/guard.h"
#include "base/status.h"
#include "control/membership/work_meter.h"

namespace sluice {

std::string archive_path(const NodeContext& context, const BackupHead& head) {
  return context.archive_folder + "/" + head.name;
}

ArchiveIdentity archive_identity(const NodeContext& context, const BackupHead& head) {
  return {context.cluster().uuid, head.uuid, head.name, head.slot_bits, head.cut, head.epoch};
}

BackupRole::BackupRole(const NodeContext& context, BackupHead head, Plan plan)
    : context_(context),
      head_(std::move(head)),
      plan_(std::move(plan)),
      self_(plan_.find_node(context.name)),
      is_target_(self_ >= 0 && std::find(plan_.targets.begin(), plan_.targets.end(),
                                         static_cast<uint32_t>(self_)) != plan_.targets.end()),
      scan_(*context.clock),
      check_(*context.clock),
      merge_(*context.clock),
      disk_(*context.clock),
      wire_before_(context.exchange->times()),
      report_(context, head_, context.directory->snapshot()->members.size(),
              [this] { return stages(); }) {
  if (self_ < 0) return;
  source_ = guarded_thread("sending copies", [this] { run_source(); });
  if (is_target_) target_ = guarded_thread("consolidating copies", [this] { run_target(); });
}

BackupRole::~BackupRole() {
  stop();
  const StageTimes written = disk_.times();
  context_.work->add(&MeasuredRates::disk_write, written.bytes, written.busy_ns);
}

std::vector<StageReport> BackupRole::stages() const {
  std::vector<StageReport> reports;
  const auto add = [&](DataStage stage, const StageTimes& times) {
    if (times.bytes > 0) reports.push_back(report_of(context_.name, stage, times));
  };
  add(DataStage::kScan, scan_.times());
  add(DataStage::kWire, since(wire_before_, context_.exchange->times()));
  add(DataStage::kCheck, check_.times());
  add(DataStage::kMerge, merge_.times());
  add(DataStage::kDisk, disk_.times());
  return reports;
}

void BackupRole::stop() {
  cancellation_.cancel();
  const MutexLock stopping(stop_mutex_);
  if (source_.joinable()) source_.join();
  if (target_.joinable()) target_.join();
  merge_source_.reset();
  // It takes the mutex to report, so it ends without it.
  std::unique_ptr<Consolidation> consolidation;
  {
    const MutexLock lock(mutex_);
    consolidation = std::move(consolidation_);
  }
  consolidation.reset();
  // The next attempt opens the same folder.
  const MutexLock lock(mutex_);
  part_.reset();
  writer_.reset();
}

absl::StatusOr<BackupRoles::Part> BackupRole::part() {
  const MutexLock lock(mutex_);
  if (!part_.has_value()) {
    return failed_precondition("{}: its part of backup {} is not consolidated", context_.name,
                               head_.name);
  }
  return BackupRoles::Part{*part_, writer_->newest_stamp(), archive_path(context_, head_)};
}

absl::StatusOr<std::vector<uint32_t>> BackupRole::durable() {
  const MutexLock lock(mutex_);
  // What an earlier attempt made durable is known once the part is open.
  if (is_target_ && writer_ == nullptr) {
    return unavailable("{} has not opened its part of backup {} yet", context_.name, head_.name);
  }
  return std::vector<uint32_t>(durable_.begin(), durable_.end());
}

absl::Status BackupRole::commit(const Manifest& manifest) {
  const MutexLock lock(mutex_);
  if (!part_.has_value()) {
    return failed_precondition("{}: its part of backup {} is not consolidated", context_.name,
                               head_.name);
  }
  return writer_->commit(manifest);
}

}  // namespace sluice

#include "control/peers/directory.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "control/membership/table_store.h"

namespace sluice {

namespace {
constexpr auto kRetry = std::chrono::milliseconds(200);
}

const Member* Directory::Snapshot::find(std::string_view name) const {
  for (const Member& member : members) {
    if (member.info.name == name) return &member;
  }
  return nullptr;
}

bool Directory::Snapshot::live(std::string_view name) const {
  const Member* member = find(name);
  return member != nullptr && member->live;
}

std::vector<std::string> Directory::Snapshot::live_names() const {
  std::vector<std::string> names;
  for (const Member& member : members) {
    if (member.live) names.push_back(member.info.name);
  }
  return names;
}

Directory::Directory(ClusterBlock& block, ClusterInfo info)
    : block_(block), info_(std::move(info)), snapshot_(std::make_shared<Snapshot>()) {}

Directory::~Directory() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  members_.reset();
  table_.reset();
}

absl::StatusOr<std::unique_ptr<Directory>> Directory::open(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(ClusterInfo info, load_cluster(block));
  auto directory = std::unique_ptr<Directory>(new Directory(block, std::move(info)));
  SLUICE_RETURN_IF_ERROR(directory->refresh());
  Directory* self = directory.get();
  SLUICE_ASSIGN_OR_RETURN(directory->members_,
                          MemberWatch::start(block, [self] { self->follow(); }));
  SLUICE_ASSIGN_OR_RETURN(
      directory->table_,
      block.watch(kTableHeadKey, 0, [self](const WatchEvent&) { self->follow(); }));
  return directory;
}

std::shared_ptr<const Directory::Snapshot> Directory::snapshot() const {
  const MutexLock lock(mutex_);
  return snapshot_;
}

absl::Status Directory::refresh() {
  const MutexLock refreshing(refreshing_);
  const auto old = snapshot();
  auto next = std::make_shared<Snapshot>();
  SLUICE_ASSIGN_OR_RETURN(next->members, list_members(block_));
  next->table = old->table;
  if (auto head = load_table_head(block_); !head.ok()) {
    if (head.status().code() != absl::StatusCode::kNotFound) return head.status();
  } else if (head->epoch != old->epoch()) {
    SLUICE_ASSIGN_OR_RETURN(DistributionTable table, load_table(block_));
    if (table.slot_bits() != info_.slot_bits || table.replicas() != info_.replicas) {
      return data_loss("{}: a table of {} slot bits and {} replicas, the cluster has {} and {}",
                       kTableHeadKey, table.slot_bits(), table.replicas(), info_.slot_bits,
                       info_.replicas);
    }
    next->table = std::make_shared<const DistributionTable>(std::move(table));
  }
  {
    const MutexLock lock(mutex_);
    snapshot_ = std::move(next);
  }
  changed_.notify_all();
  return absl::OkStatus();
}

void Directory::follow() {
  MutexLock lock(mutex_);
  for (bool told = false; !stopping_; told = true) {
    lock.unlock();
    const absl::Status status = refresh();
    if (!status.ok() && !told) spdlog::warn("cluster block: {}", message_of(status));
    if (!absl::IsUnavailable(status) || defect(Defect::kMissedChangeStays)) return;
    lock.lock();
    changed_.wait_for(lock, kRetry, [this]() SLUICE_REQUIRES(mutex_) { return stopping_; });
  }
}

std::shared_ptr<const Directory::Snapshot> Directory::wait(
    int64_t timeout_ms, const std::function<bool(const Snapshot&)>& done) {
  MutexLock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [&]() SLUICE_REQUIRES(mutex_) { return done(*snapshot_); });
  return snapshot_;
}

}  // namespace sluice

#include "control/backup/local_archives.h"

#include <filesystem>
#include <system_error>

#include "base/defect.h"
#include "base/status.h"
#include "control/backup/documents.h"
#include "control/peers/archive_reference.h"

namespace sluice {

absl::StatusOr<ArchivePartId> LocalArchives::own_id(const v1::ArchiveReference& reference) const {
  SLUICE_ASSIGN_OR_RETURN(ArchivePartId id, id_of(reference));
  SLUICE_RETURN_IF_ERROR(check_backup_name(reference.name()));
  if (id.cluster != context_.cluster().uuid) {
    return failed_precondition("{} is a node of cluster {}, not of {}", context_.name,
                               context_.cluster().uuid, id.cluster);
  }
  if (id.node != context_.name) {
    return failed_precondition("{} was asked for the part of node {}", context_.name, id.node);
  }
  return id;
}

absl::StatusOr<std::string> LocalArchives::directory_of(const std::string& backup_name) const {
  std::error_code error;
  if (!std::filesystem::is_directory(context_.archive_folder, error)) {
    return unavailable("the archive directory {} of {} is not there", context_.archive_folder,
                       context_.name);
  }
  std::string directory = context_.archive_folder + "/" + backup_name;
  // Most likely the disk that it leads to is not mounted: what is there is not gone.
  if (std::filesystem::is_symlink(directory, error) && !std::filesystem::exists(directory, error)) {
    return unavailable("{}: {} is a link that leads nowhere", context_.name, directory);
  }
  return directory;
}

absl::Status LocalArchives::check_idle_locked(const ArchivePartId& id) const {
  const auto readers = readers_.find(id.backup);
  if (readers == readers_.end() || defect(Defect::kPartGoesWhileRead)) return absl::OkStatus();
  return failed_precondition("its part is being read now, for {}", *readers->second.begin());
}

absl::StatusOr<std::unique_ptr<LocalArchives::Reading>> LocalArchives::read(
    const v1::ArchiveReference& reference, std::string_view purpose) {
  SLUICE_ASSIGN_OR_RETURN(ArchivePartId id, own_id(reference));
  SLUICE_ASSIGN_OR_RETURN(std::string directory, directory_of(reference.name()));
  const MutexLock lock(mutex_);
  if (removing_.contains(id.backup)) {
    return failed_precondition("{} removes its part of backup {} now", context_.name,
                               reference.name());
  }
  readers_[id.backup].emplace(purpose);
  return std::make_unique<Reading>(*this, std::move(id), std::move(directory),
                                   std::string(purpose));
}

void LocalArchives::end_reading(const std::string& backup, const std::string& purpose) {
  const MutexLock lock(mutex_);
  const auto readers = readers_.find(backup);
  readers->second.erase(readers->second.find(purpose));
  if (readers->second.empty()) readers_.erase(readers);
}

absl::StatusOr<bool> LocalArchives::check(const v1::ArchiveReference& reference) {
  SLUICE_ASSIGN_OR_RETURN(const ArchivePartId id, own_id(reference));
  SLUICE_ASSIGN_OR_RETURN(const std::string directory, directory_of(reference.name()));
  const auto found = identify_part(directory);
  if (absl::IsNotFound(found.status())) return false;
  SLUICE_RETURN_IF_ERROR(found.status());
  SLUICE_RETURN_IF_ERROR(check_identity(directory, *found, id));
  const MutexLock lock(mutex_);
  SLUICE_RETURN_IF_ERROR(check_idle_locked(id));
  return true;
}

absl::Status LocalArchives::remove(const std::string& backup_name, const ArchivePartId& id,
                                   Removable what) {
  SLUICE_ASSIGN_OR_RETURN(const std::string directory, directory_of(backup_name));
  const MutexLock serial(removal_);
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(check_idle_locked(id));
    removing_.insert(id.backup);
  }
  absl::Status status = remove_part(directory, id, what);
  const MutexLock lock(mutex_);
  removing_.erase(id.backup);
  return status;
}

}  // namespace sluice

// Backups whose parts are directories on this machine.
#include <fmt/ranges.h>

#include <map>
#include <utility>

#include "base/status.h"
#include "control/mount/mounted_backups.h"
#include "dataplane/archive/reader.h"

namespace sluice {

namespace {

class LocalSource final : public BackupSource {
 public:
  absl::Status add(const std::string& directory) {
    SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open({directory}));
    const ArchiveIdentity& identity = archive->manifest().identity;
    Archive& of_name = archives_[identity.name];
    if (!of_name.directories.empty() && of_name.backup.id != identity.backup) {
      return failed_precondition(
          "{} and {} are of two backups with the name {}: mount them one at a time",
          of_name.directories.front(), directory, identity.name);
    }
    of_name.backup = {identity.name, identity.backup,
                      static_cast<int64_t>(Version::stamp_ms(identity.cut))};
    of_name.directories.push_back(directory);
    return absl::OkStatus();
  }
  // That all parts are there.
  absl::Status check() const {
    for (const auto& [name, of_name] : archives_) {
      SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open(of_name.directories));
      if (const auto missing = archive->missing_parts(); !missing.empty()) {
        return failed_precondition(
            "parts of the backup {} are missing ({}): give the directories of all parts", name,
            fmt::join(missing, ", "));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<MountableBackup>> list() override {
    std::vector<MountableBackup> backups;
    for (const auto& [name, of_name] : archives_) backups.push_back(of_name.backup);
    return backups;
  }
  absl::StatusOr<std::unique_ptr<BackupContents>> open(const MountableBackup& backup) override {
    const auto found = archives_.find(backup.name);
    if (found == archives_.end()) return not_found("no directory is of backup {}", backup.name);
    return open_local_contents(found->second.directories);
  }

 private:
  struct Archive {
    MountableBackup backup;
    std::vector<std::string> directories;
  };
  std::map<std::string, Archive> archives_;  // by name
};

}  // namespace

absl::StatusOr<std::unique_ptr<BackupSource>> open_local_source(
    const std::vector<std::string>& directories) {
  auto source = std::make_unique<LocalSource>();
  for (const std::string& directory : directories) {
    SLUICE_RETURN_IF_ERROR(source->add(directory));
  }
  SLUICE_RETURN_IF_ERROR(source->check());
  return source;
}

}  // namespace sluice

#include "dataplane/archive/part_identity.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/defect.h"
#include "base/file.h"
#include "base/status.h"
#include "dataplane/archive/folder.h"
#include "dataplane/archive/journal.h"
#include "dataplane/archive/manifest.h"

namespace sluice {
namespace {

bool has(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string backup_text(const std::string& name, const std::string& uuid) {
  return name.empty() ? fmt::format("backup {}", uuid) : fmt::format("backup {} ({})", name, uuid);
}

// What is damaged tells nothing; what cannot be read is an error.
template <typename T>
absl::StatusOr<std::optional<T>> whole_or_nothing(absl::StatusOr<T> decoded) {
  if (decoded.ok()) return std::optional<T>(*std::move(decoded));
  if (absl::IsDataLoss(decoded.status()) || absl::IsNotFound(decoded.status())) {
    return std::optional<T>();
  }
  return decoded.status();
}

// Takes one file's word for backup and node. DATA_LOSS where another file says otherwise.
absl::Status agree(const std::string& file, const std::string& backup, const std::string& node,
                   ArchivePartId* id) {
  if ((!id->backup.empty() && !backup.empty() && id->backup != backup) ||
      (!id->node.empty() && id->node != node)) {
    return data_loss("{} is of node {} and backup {}, beside files of node {} and backup {}", file,
                     node, backup.empty() ? "(not known)" : backup, id->node, id->backup);
  }
  if (id->backup.empty()) id->backup = backup;
  id->node = node;
  return absl::OkStatus();
}

absl::Status read_manifest(const std::string& file, FoundPart* found, bool* whole,
                           std::vector<std::string>* nodes) {
  const auto bytes = read_file(file, kMaxManifestBytes);
  if (!bytes.ok() && !absl::IsInvalidArgument(bytes.status())) return bytes.status();
  if (!bytes.ok()) return absl::OkStatus();  // not a regular file
  SLUICE_ASSIGN_OR_RETURN(const auto manifest, whole_or_nothing(Manifest::decode(*bytes)));
  if (!manifest.has_value()) return absl::OkStatus();
  *whole = true;
  found->id.cluster = manifest->identity.cluster;
  found->id.backup = manifest->identity.backup;
  found->id.manifest_digest = xxh3_128(*bytes);
  found->backup_name = manifest->identity.name;
  for (const PartManifest& part : manifest->parts) nodes->push_back(part.node);
  return absl::OkStatus();
}

absl::Status read_part(const std::string& file, ArchivePartId* id) {
  const auto bytes = read_file(file, kMaxManifestBytes);
  if (!bytes.ok()) return bytes.status();
  SLUICE_ASSIGN_OR_RETURN(const auto part, whole_or_nothing(PartManifest::decode(*bytes)));
  return part.has_value() ? agree(file, "", part->node, id) : absl::OkStatus();
}

absl::Status read_index(const std::string& file, ArchivePartId* id) {
  const auto bytes = read_file(file, kMaxIndexBytes);
  if (!bytes.ok()) return bytes.status();
  SLUICE_ASSIGN_OR_RETURN(const auto index, whole_or_nothing(SegmentIndex::decode(*bytes)));
  return index.has_value() ? agree(file, index->backup, index->node, id) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<FoundPart> identify_part(const std::string& directory) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, list_folder(directory));
  if (std::none_of(names.begin(), names.end(), is_archive_file)) {
    return not_found("{} holds no archive", directory);
  }
  FoundPart found;
  bool whole = false;
  std::vector<std::string> nodes;
  const bool removing = !has(names, kManifestFile) && has(names, kRemovedFile);
  if (has(names, kManifestFile) || removing) {
    const std::string file = directory + "/" + (removing ? kRemovedFile : kManifestFile);
    SLUICE_RETURN_IF_ERROR(read_manifest(file, &found, &whole, &nodes));
  }
  found.state = removing ? FoundPart::State::kRemoving
                : whole  ? FoundPart::State::kFinished
                         : FoundPart::State::kManifestDamaged;
  if (has(names, kPartFile)) {
    SLUICE_RETURN_IF_ERROR(read_part(directory + "/" + kPartFile, &found.id));
  }
  for (const std::string& name : names) {
    if (!numbered(name, kIndexPrefix)) continue;
    SLUICE_RETURN_IF_ERROR(read_index(fmt::format("{}/{}", directory, name), &found.id));
  }
  // Beside a manifest it is what a crash left, and counts for nothing.
  if (!has(names, kManifestFile) && !removing && has(names, kJournalFile)) {
    SLUICE_ASSIGN_OR_RETURN(const UnfinishedPart owner, Journal::owner(directory));
    found.state = FoundPart::State::kUnfinished;
    SLUICE_RETURN_IF_ERROR(
        agree(directory + "/" + kJournalFile, owner.identity.backup, owner.node, &found.id));
    found.id.cluster = owner.identity.cluster;
    found.backup_name = owner.identity.name;
  }
  if (found.id.node.empty() && nodes.size() == 1) found.id.node = nodes[0];
  if (found.id.backup.empty() || (found.id.node.empty() && !removing)) {
    return data_loss("{} holds files of an archive that do not tell whose part it is", directory);
  }
  return found;
}

std::string describe(const FoundPart& found) {
  const std::string part =
      found.id.node.empty() ? "a part" : fmt::format("the part of node {}", found.id.node);
  return fmt::format("{} of {}{}", part, backup_text(found.backup_name, found.id.backup),
                     found.state == FoundPart::State::kUnfinished ? ", unfinished" : "");
}

absl::Status check_identity(const std::string& directory, const FoundPart& found,
                            const ArchivePartId& expected) {
  if (defect(Defect::kSwappedPartIsBelieved)) return absl::OkStatus();
  if (found.id.backup != expected.backup) {
    return data_loss("{} holds {}, expected a part of backup {}", directory, describe(found),
                     expected.backup);
  }
  if (!found.id.cluster.empty() && found.id.cluster != expected.cluster) {
    return data_loss("{} holds {} of cluster {}, expected cluster {}", directory, describe(found),
                     found.id.cluster, expected.cluster);
  }
  if (!expected.node.empty() && !found.id.node.empty() && found.id.node != expected.node) {
    return data_loss("{} holds {}, expected the part of node {}", directory, describe(found),
                     expected.node);
  }
  const Digest128 unknown;
  if (expected.manifest_digest != unknown && found.id.manifest_digest != unknown &&
      found.id.manifest_digest != expected.manifest_digest) {
    return data_loss("{} holds {} with manifest {}, expected manifest {}", directory,
                     describe(found), found.id.manifest_digest.to_hex(),
                     expected.manifest_digest.to_hex());
  }
  return absl::OkStatus();
}

absl::Status remove_part(const std::string& directory, const ArchivePartId& expected,
                         Removable what) {
  SLUICE_ASSIGN_OR_RETURN(const FoundPart found, identify_part(directory));
  SLUICE_RETURN_IF_ERROR(check_identity(directory, found, expected));
  if (what == Removable::kUnfinished && found.state != FoundPart::State::kUnfinished) {
    return failed_precondition("{} holds {}, which was finished", directory, describe(found));
  }
  return delete_archive(directory);
}

absl::Status delete_archive(const std::string& directory) {
  struct stat info {};
  if (lstat(directory.c_str(), &info) != 0) {
    return errno_status(errno, fmt::format("stat {}", directory));
  }
  char* resolved = realpath(directory.c_str(), nullptr);
  if (resolved == nullptr) return errno_status(errno, fmt::format("resolve {}", directory));
  const std::string real = resolved;
  std::free(resolved);
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, list_folder(real));
  if (std::none_of(names.begin(), names.end(), is_archive_file)) {
    return not_found("{} holds no archive", directory);
  }
  // Without its manifest it is no longer an archive, wherever a crash stops the rest; under another
  // name it still tells whose the rest is.
  const std::string manifest = real + "/" + kManifestFile;
  if (has(names, kManifestFile)) {
    if (rename(manifest.c_str(), (real + "/" + kRemovedFile).c_str()) != 0) {
      return errno_status(errno, fmt::format("rename {}", manifest));
    }
    SLUICE_RETURN_IF_ERROR(sync_folder(real));
  }
  const auto tells_identity = [](std::string_view name) {
    return name == kPartFile || name == kJournalFile || name == kRemovedFile;
  };
  for (const std::string& name : names) {
    if (!is_archive_file(name) || tells_identity(name) || name == kManifestFile) continue;
    SLUICE_RETURN_IF_ERROR(remove_file(fmt::format("{}/{}", real, name)));
  }
  SLUICE_RETURN_IF_ERROR(sync_folder(real));
  for (const char* name : {kPartFile, kJournalFile, kRemovedFile}) {
    SLUICE_RETURN_IF_ERROR(remove_file(real + "/" + name));
    SLUICE_RETURN_IF_ERROR(sync_folder(real));
  }
  // Stays when there is something else in it.
  if (rmdir(real.c_str()) == 0 && S_ISLNK(info.st_mode)) {
    SLUICE_RETURN_IF_ERROR(remove_file(directory));
  }
  return absl::OkStatus();
}

}  // namespace sluice

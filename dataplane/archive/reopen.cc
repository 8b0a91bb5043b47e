#include "dataplane/archive/reopen.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "dataplane/archive/folder.h"
#include "dataplane/archive/part_identity.h"
#include "dataplane/archive/writer.h"

namespace sluice {
namespace {

bool is_there(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

absl::StatusOr<Manifest> load_manifest(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(const std::string bytes,
                          read_file(folder + "/" + kManifestFile, kMaxManifestBytes));
  return Manifest::decode(bytes);
}

const PartManifest* part_of(const Manifest& manifest, const std::string& node) {
  for (const PartManifest& part : manifest.parts) {
    if (part.node == node) return &part;
  }
  return nullptr;
}

absl::Status load_slots(const std::string& folder, const ArchiveIdentity& identity,
                        uint64_t newest_stamp, CommittedPart* committed) {
  for (const SlotSummary& slot : committed->part.slots) {
    committed->slots[slot.slot] = {slot.slot, slot.digest, newest_stamp, {}};
  }
  for (const SegmentSummary& segment : committed->part.segments) {
    const std::string file = folder + "/" + index_file(segment.number);
    SLUICE_ASSIGN_OR_RETURN(const std::string bytes, read_file(file, kMaxIndexBytes));
    if (xxh3_128(bytes) != segment.index_digest) {
      return data_loss("{} is not the index that the manifest names", file);
    }
    SLUICE_ASSIGN_OR_RETURN(const SegmentIndex index, SegmentIndex::decode(bytes));
    for (const BlockLocation& block : index.blocks) {
      const auto slot = committed->slots.find(block.slot);
      if (index.backup != identity.backup || slot == committed->slots.end()) {
        return data_loss("{} lists a block of slot {}, which the manifest does not", file,
                         block.slot);
      }
      slot->second.blocks.push_back(block);
      slot->second.blocks.back().segment = segment.number;
    }
  }
  for (auto& [number, slot] : committed->slots) {
    std::sort(slot.blocks.begin(), slot.blocks.end(),
              [](const auto& a, const auto& b) { return a.sequence < b.sequence; });
  }
  return absl::OkStatus();
}

// Whether the directory's files are of this node's part, as far as they tell.
absl::StatusOr<bool> is_of_node(const std::string& folder, const std::string& node) {
  const auto found = identify_part(folder);
  if (absl::IsDataLoss(found.status())) return false;
  if (!found.ok()) return found.status();
  return found->id.node == node;
}

}  // namespace

absl::StatusOr<std::optional<CommittedPart>> load_committed(const std::string& folder,
                                                            const ArchiveIdentity& identity,
                                                            const std::string& node) {
  if (!is_there(folder + "/" + kManifestFile)) return std::nullopt;
  const auto manifest = load_manifest(folder);
  if (!manifest.ok()) {
    return already_exists("{} holds a finished archive: {}", folder, message_of(manifest.status()));
  }
  const PartManifest* part = part_of(*manifest, node);
  SLUICE_ASSIGN_OR_RETURN(const bool own, is_of_node(folder, node));
  if (manifest->identity != identity || part == nullptr || !own) {
    return already_exists(
        "{} holds a finished archive, of backup {} ({}) of cluster {}: move it away", folder,
        manifest->identity.name, manifest->identity.backup, manifest->identity.cluster);
  }
  CommittedPart committed;
  committed.part = *part;
  if (absl::Status status = load_slots(folder, identity, manifest->newest_stamp, &committed);
      !status.ok()) {
    return already_exists("{} holds a finished archive: {}", folder, message_of(status));
  }
  SLUICE_RETURN_IF_ERROR(remove_file(folder + "/" + kJournalFile));
  return committed;
}

absl::StatusOr<std::unique_ptr<Journal>> take_back(const std::string& folder,
                                                   const ArchiveIdentity& identity,
                                                   const std::string& node,
                                                   const CommittedPart& committed,
                                                   WriteFunction write) {
  SLUICE_ASSIGN_OR_RETURN(auto journal, Journal::open(folder, identity, node, std::move(write)));
  std::vector<DurableSlot> slots;
  for (const auto& [number, slot] : committed.slots) slots.push_back(slot);
  SLUICE_RETURN_IF_ERROR(journal->append(slots));
  journal->slots() = committed.slots;
  SLUICE_RETURN_IF_ERROR(remove_file(folder + "/" + kManifestFile));
  SLUICE_RETURN_IF_ERROR(sync_folder(folder));
  return journal;
}

absl::StatusOr<UnfinishedPart> unfinished_part(const std::string& folder) {
  if (is_there(folder + "/" + kManifestFile)) {
    return not_found("{} holds no unfinished archive part", folder);
  }
  return Journal::owner(folder);
}

absl::Status remove_earlier_cut(const std::string& folder, const ArchiveIdentity& identity,
                                const std::string& node) {
  ArchiveIdentity left;
  if (const auto manifest = load_manifest(folder); manifest.ok()) {
    if (part_of(*manifest, node) == nullptr) return absl::OkStatus();
    left = manifest->identity;
  } else {
    const auto unfinished = unfinished_part(folder);
    if (!unfinished.ok() || unfinished->node != node) return absl::OkStatus();
    left = unfinished->identity;
  }
  if (left.cluster != identity.cluster || left.backup != identity.backup ||
      left.cut >= identity.cut) {
    return absl::OkStatus();
  }
  // The manifest may name this node and stand in a copy of another one's part.
  SLUICE_ASSIGN_OR_RETURN(const bool own, is_of_node(folder, node));
  if (!own) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(delete_archive(folder));
  return make_folders(folder);
}

}  // namespace sluice

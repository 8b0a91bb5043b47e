// What earlier lives left in an archive's folder, for the writer that opens it again. Internal to
// dataplane/archive.
#ifndef SLUICE_DATAPLANE_ARCHIVE_REOPEN_H_
#define SLUICE_DATAPLANE_ARCHIVE_REOPEN_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/archive/journal.h"
#include "dataplane/archive/manifest.h"

namespace sluice {

struct CommittedPart {
  PartManifest part;
  std::map<uint32_t, DurableSlot> slots;  // with the whole manifest's newest stamp
};

// The node's part that the folder's root manifest names; nothing where there is no manifest.
// ALREADY_EXISTS when it is of another backup, cut or node, or damaged. A journal beside the
// manifest is removed: a crash left it, and the manifest says all.
absl::StatusOr<std::optional<CommittedPart>> load_committed(const std::string& folder,
                                                            const ArchiveIdentity& identity,
                                                            const std::string& node);

// Makes a committed part an unfinished one again: its slots go to a new journal, then the manifest
// goes, each durably.
absl::StatusOr<std::unique_ptr<Journal>> take_back(const std::string& folder,
                                                   const ArchiveIdentity& identity,
                                                   const std::string& node,
                                                   const CommittedPart& committed,
                                                   WriteFunction write);

// A backup that was begun anew has a later cut: what this node holds of the earlier one is removed.
absl::Status remove_earlier_cut(const std::string& folder, const ArchiveIdentity& identity,
                                const std::string& node);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_REOPEN_H_

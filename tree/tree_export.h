// Exports records made by a tree import back to a folder tree.
#ifndef SLUICE_TREE_TREE_EXPORT_H_
#define SLUICE_TREE_TREE_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tree/record_stream.h"
#include "tree/tree_import.h"

namespace sluice {

struct TreeExportOptions {
  std::string
      folder;  // made when it is not there; what is in it stays unless an entry has its name
  std::string prefix;  // of the keys; not part of the paths
};

struct TreeExportResult {
  uint64_t records = 0;  // used, chunks included
  uint64_t bytes = 0;    // their keys and values
  uint64_t files = 0;
  uint64_t folders = 0;
  uint64_t links = 0;
  uint64_t other_records =
      0;  // records that are no tree entries, and chunks that belong to no file
  // Files and folders whose set-user-ID or set-group-ID bit was not set, as they do not belong here
  // to the owner and group that they had.
  uint64_t set_id_dropped = 0;
  StreamFailures failures;  // refused paths, and what the file system refused
  StreamFailures damaged;   // files with missing or wrong chunks, entries that break the layout
};

// Each file is written aside (in a folder ".sluice-export-*" within the export's own) and renamed
// when it is whole and its digest holds, so no file is ever there in part. Nothing outside of the
// folder is touched, whatever keys and links say: paths are opened name by name without following
// links, links are made after all files. Modes, times of files and links, and last those of folders
// are set; owners are not. What an import replaces meanwhile is exported as the old or the new.
// Goes on after an entry that cannot be exported. A status only for what ends the whole export.
absl::StatusOr<TreeExportResult> export_tree(const TreeExportOptions& options, RecordSource& source,
                                             StreamProgress& progress);

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_EXPORT_H_

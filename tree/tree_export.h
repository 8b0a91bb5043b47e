// Exports records made by a tree import back to a directory tree.
#ifndef SLUICE_TREE_TREE_EXPORT_H_
#define SLUICE_TREE_TREE_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tree/record_stream.h"
#include "tree/set_metadata.h"
#include "tree/tree_import.h"
#include "tree/tree_writer.h"

namespace sluice {

struct TreeExportOptions {
  TreeWriterOptions target;  // what is in it stays unless an entry has its name
  std::string prefix;        // of the keys; not part of the paths
};

struct TreeExportResult {
  uint64_t records = 0;  // used, chunks included
  uint64_t bytes = 0;    // their keys and values
  uint64_t files = 0;    // names of files, hard links among them
  uint64_t directories = 0;
  uint64_t links = 0;       // symbolic ones
  uint64_t hard_links = 0;  // names beyond the first of each file
  uint64_t specials = 0;    // pipes and devices
  uint64_t changed = 0;     // files that changed while the import read them
  // Records that are not tree entries, and chunks that belong to no file.
  uint64_t other_records = 0;
  // Entries of an earlier import below what is no longer a directory.
  uint64_t superseded = 0;
  NotSet not_set;
  StreamFailures failures;  // refused paths, and what the file system refused
  StreamFailures damaged;   // files with missing or wrong chunks, entries that break the layout
};

// Each file is written aside and renamed when it is whole and its digest holds (TreeWriter), so no
// file is ever there in part. Metadata of directories is set last. What an import replaces
// meanwhile is exported as the old or the new. Goes on after an entry that cannot be exported.
// Keeps directories and hard links in memory until the end. A status only for what ends the whole
// export.
absl::StatusOr<TreeExportResult> export_tree(const TreeExportOptions& options, RecordSource& source,
                                             StreamProgress& progress);

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_EXPORT_H_

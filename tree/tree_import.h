// Imports a folder tree as records (tree_entry.h).
//
// Each file is afterwards the one that was there before, or the one that was read, whole; so it is
// at every moment in between, also when the import is killed. Files of several chunks are written
// in groups: generation records, then chunks, then the files' own records, each step when the one
// before it is acknowledged. Chunks that no file's record names any more are removed at the end:
// those that this import replaced, and up to kMaxStrays others that interrupted imports left. While
// an import lives it has a claim on its generations, so that no other import removes them.
#ifndef SLUICE_TREE_TREE_IMPORT_H_
#define SLUICE_TREE_TREE_IMPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tree/record_stream.h"

namespace sluice {

struct TreeImportOptions {
  std::string root;    // a folder, or a link to one
  std::string prefix;  // before each key
  int readers = 2;     // threads; each holds one chunk in memory
};

struct TreeImportResult {
  uint64_t records = 0;  // acknowledged, chunks and generation records included
  uint64_t bytes = 0;    // their keys and values
  uint64_t files = 0;
  uint64_t folders = 0;
  uint64_t links = 0;
  uint64_t skipped = 0;     // sockets, devices and pipes
  uint64_t removed = 0;     // chunks and generation records that were no longer needed
  bool leftovers = false;   // some could not be removed; the next import tries again
  StreamFailures failures;  // unreadable, changing while read, with too long a key, or not written
};

// Goes on after an entry that cannot be imported. A status only for what ends the whole import: a
// root that cannot be read, a store that fails, cancellation. `progress` counts what was accepted.
absl::StatusOr<TreeImportResult> import_tree(const TreeImportOptions& options, RecordStore& store,
                                             StreamProgress& progress);

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_IMPORT_H_

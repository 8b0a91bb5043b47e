// Imports a directory tree as records (tree_entry.h).
//
// Each file is afterwards the one that was there before, or the one that was read, whole; so it is
// at every moment in between, also when the import is killed. Files of several chunks, and those
// with several names, are written in groups: generation records, then chunks, then the files' own
// records, then the other names, each step when the one before it is acknowledged. Chunks that no
// file's record names any more are removed at the end: those that this import replaced, and up to
// kMaxStrays others that interrupted imports left. While an import lives it has a claim on its
// generations, so that no other import removes them.
#ifndef SLUICE_TREE_TREE_IMPORT_H_
#define SLUICE_TREE_TREE_IMPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tree/record_stream.h"
#include "tree/tree_scan.h"

namespace sluice {

struct TreeImportOptions {
  std::string root;      // a directory, or a link to one
  std::string prefix;    // before each key
  int readers = 2;       // threads; each holds one chunk in memory
  TreeScanOptions scan;  // what to leave out
  // Remove the entries that earlier imports made with this prefix and the tree no longer has
  // (tree_mirror.h).
  bool mirror = false;
};

struct TreeImportResult {
  uint64_t records = 0;  // acknowledged, chunks and generation records included
  uint64_t bytes = 0;    // their keys and values
  uint64_t files = 0;    // names of files, hard links among them
  uint64_t directories = 0;
  uint64_t links = 0;        // symbolic ones
  uint64_t hard_links = 0;   // names beyond the first of each file
  uint64_t specials = 0;     // pipes and devices
  uint64_t split_links = 0;  // files imported alone, as too many with several names are known
  // Left out.
  uint64_t sockets = 0;
  uint64_t excluded = 0;  // not counting what is below
  uint64_t other_file_systems = 0;
  uint64_t loops = 0;

  uint64_t removed = 0;            // chunks and generation records that were no longer needed
  uint64_t mirrored = 0;           // entries removed as the tree no longer has them
  StreamFailures mirror_failures;  // entries that should have been
  bool leftovers = false;          // some chunks could not be removed; the next import tries again
  StreamFailures failures;  // unreadable, changing while read, with too long a key, or not written
};

// Goes on after an entry that cannot be imported. A status only for what ends the whole import: a
// root that cannot be read, a store that fails, cancellation. `progress` counts what was accepted.
absl::StatusOr<TreeImportResult> import_tree(const TreeImportOptions& options, RecordStore& store,
                                             StreamProgress& progress);

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_IMPORT_H_

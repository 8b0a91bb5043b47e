// Imports a folder tree as records (tree_entry.h).
#ifndef SLUICE_CONTROL_CLI_TREE_IMPORT_H_
#define SLUICE_CONTROL_CLI_TREE_IMPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "control/cli/record_stream.h"

namespace sluice {

struct TreeImportOptions {
  std::string root;    // a folder, or a link to one
  std::string prefix;  // before each key
  int readers = 2;     // threads; each holds one chunk in memory
};

struct TreeImportResult {
  uint64_t records = 0;  // acknowledged by the sink, chunks included
  uint64_t bytes = 0;    // their keys and values
  uint64_t files = 0;
  uint64_t folders = 0;
  uint64_t links = 0;
  uint64_t skipped = 0;     // sockets, devices and pipes
  StreamFailures failures;  // unreadable, changing while read, with too long a key, or not written
};

// Goes on after an entry that cannot be imported. A status only for what ends the whole import: a
// root that cannot be read, a sink that fails, cancellation. `progress` counts what was accepted by
// the sink.
absl::StatusOr<TreeImportResult> import_tree(const TreeImportOptions& options, RecordSink& sink,
                                             StreamProgress& progress);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_TREE_IMPORT_H_

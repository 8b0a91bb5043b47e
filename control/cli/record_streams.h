// Imports and exports as commands: progress, results, and the trees among them.
#ifndef SLUICE_CONTROL_CLI_RECORD_STREAMS_H_
#define SLUICE_CONTROL_CLI_RECORD_STREAMS_H_

#include <cstdint>

#include "base/clock.h"
#include "control/cli/outcome.h"
#include "control/cli/progress.h"
#include "control/cli/standard_streams.h"
#include "control/client/cluster_client.h"
#include "tree/record_stream.h"
#include "tree/tree_export.h"
#include "tree/tree_import.h"

namespace sluice {

// One import or export: a progress bar, and cancellation by the first interrupt.
struct RunningStream {
  explicit RunningStream(const char* what)
      : bar([this, what] {
          return ProgressBar::State{progress.bytes, 0, what};
        }),
        interrupt([this] { progress.cancelled = true; }),
        begun_ns(system_clock().monotonic_ns()) {}
  double seconds() const {
    return static_cast<double>(system_clock().monotonic_ns() - begun_ns) / 1e9;
  }

  StreamProgress progress;
  ProgressBar bar;
  Interrupts::Handler interrupt;
  int64_t begun_ns;
};

// Sets the fields and the text that all of them have.
void describe(Outcome* outcome, const char* done, uint64_t records, uint64_t bytes, double seconds);
// A line on stderr for each that is known.
void warn_failures(const StreamFailures& failures, const char* what);

Outcome import_tree_command(ClusterClient& client, const TreeImportOptions& options);
Outcome export_tree_command(ClusterClient& client, const TreeExportOptions& options);
// `done`: "exported", "restored".
Outcome export_tree_from(RecordSource& source, const TreeExportOptions& options, const char* done);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_RECORD_STREAMS_H_

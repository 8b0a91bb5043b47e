// Changes a job's head document: a compare-and-swap that is asked again while the cluster block
// takes no writes, and is made once whatever answers are lost.
#ifndef SLUICE_CONTROL_JOB_DOCUMENT_SWAP_H_
#define SLUICE_CONTROL_JOB_DOCUMENT_SWAP_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice {

// Of the cluster block or of a peer: it may pass.
inline bool is_transient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

struct DocumentSwap {
  std::string key;
  std::string document;
  Revision before = 0;          // of the document that it takes the place of; 0: there is none yet
  std::vector<ClusterOp> with;  // part of the commit
};

// The document's new revision. ABORTED when somebody else changed it, or a comparison of `with`
// failed. A commit of which it is not known whether it was made is asked again as long as
// try_again(), which waits before it, answers true. Threads: as the block.
absl::StatusOr<Revision> swap_document(ClusterBlock& block, const DocumentSwap& swap,
                                       const std::function<bool()>& try_again);

}  // namespace sluice

#endif  // SLUICE_CONTROL_JOB_DOCUMENT_SWAP_H_

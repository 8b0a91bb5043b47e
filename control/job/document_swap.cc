#include "control/job/document_swap.h"

namespace sluice {

absl::StatusOr<Revision> swap_document(ClusterBlock& block, const DocumentSwap& swap,
                                       const std::function<bool()>& try_again) {
  std::vector<ClusterOp> ops{ClusterOp::put(swap.key, swap.document, swap.before)};
  ops.insert(ops.end(), swap.with.begin(), swap.with.end());
  for (bool in_doubt = false;; in_doubt = true) {
    const absl::StatusOr<Revision> revision = block.commit(ops);
    if (revision.ok()) return revision;
    const absl::Status& status = revision.status();
    if (in_doubt && absl::IsAborted(status)) {
      const auto now = block.get(swap.key);
      if (now.ok() && now->has_value() && (*now)->value == swap.document) return (*now)->revision;
      if (now.ok()) return status;
    } else if (!is_transient(status)) {
      return status;
    }
    if (!try_again()) return status;
  }
}

}  // namespace sluice

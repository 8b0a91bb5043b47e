#include "control/cluster_block/checks.h"

#include <unordered_set>

#include "base/status.h"
#include "base/text.h"

namespace sluice::cluster_block {

absl::Status check_key(std::string_view key) {
  if (key.empty()) return invalid_argument("a key of the cluster block cannot be empty");
  if (key.size() > ClusterBlock::kMaxKeyBytes) {
    return invalid_argument("key '{}' has {} bytes; at most {}", printable(key), key.size(),
                            ClusterBlock::kMaxKeyBytes);
  }
  return absl::OkStatus();
}

absl::Status check_prefix(std::string_view prefix) {
  if (prefix.size() > ClusterBlock::kMaxKeyBytes) {
    return invalid_argument("prefix '{}' has {} bytes; at most {}", printable(prefix),
                            prefix.size(), ClusterBlock::kMaxKeyBytes);
  }
  return absl::OkStatus();
}

absl::Status check_ops(const std::vector<ClusterOp>& ops) {
  if (ops.empty()) return invalid_argument("a commit to the cluster block has no operations");
  if (ops.size() > ClusterBlock::kMaxOps) {
    return invalid_argument("a commit to the cluster block has {} operations; at most {}",
                            ops.size(), ClusterBlock::kMaxOps);
  }
  size_t bytes = 0;
  std::unordered_set<std::string_view> keys;
  for (const ClusterOp& op : ops) {
    if (absl::Status status = check_key(op.key); !status.ok()) return status;
    if (op.value.size() > ClusterBlock::kMaxValueBytes) {
      return invalid_argument("the document for key '{}' has {} bytes; at most {}",
                              printable(op.key), op.value.size(), ClusterBlock::kMaxValueBytes);
    }
    if (!keys.insert(op.key).second) {
      return invalid_argument("key '{}' occurs twice in one commit", printable(op.key));
    }
    if (op.kind == ClusterOp::Kind::kCheck && !op.expected) {
      return invalid_argument("a check of key '{}' names no revision", printable(op.key));
    }
    bytes += op.key.size() + op.value.size();
  }
  if (bytes > ClusterBlock::kMaxCommitBytes) {
    return invalid_argument("a commit to the cluster block has {} bytes; at most {}", bytes,
                            ClusterBlock::kMaxCommitBytes);
  }
  return absl::OkStatus();
}

absl::Status check_ttl(int64_t ttl_ms) {
  if (ttl_ms < ClusterBlock::kMinLeaseMs || ttl_ms > ClusterBlock::kMaxLeaseMs) {
    return invalid_argument("a lease of {} ms: {} to {} ms are possible", ttl_ms,
                            ClusterBlock::kMinLeaseMs, ClusterBlock::kMaxLeaseMs);
  }
  return absl::OkStatus();
}

absl::Status revision_mismatch(std::string_view key, Revision actual, Revision expected) {
  if (actual == 0) {
    return aborted("key '{}' is not there; revision {} was expected", printable(key), expected);
  }
  if (expected == 0) {
    return aborted("key '{}' exists already, at revision {}", printable(key), actual);
  }
  return aborted("key '{}' is at revision {}; {} was expected", printable(key), actual, expected);
}

absl::Status lease_ended(LeaseId lease) { return failed_precondition("lease {} has ended", lease); }

}  // namespace sluice::cluster_block

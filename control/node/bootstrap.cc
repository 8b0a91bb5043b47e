#include "control/node/bootstrap.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/random.h"
#include "base/status.h"
#include "control/membership/membership.h"
#include "control/membership/table_store.h"

namespace sluice {

namespace {
constexpr int64_t kPollMs = 20;
}

absl::StatusOr<ClusterInfo> make_cluster(ClusterBlock& block, const ClusterShape& shape,
                                         Clock& clock) {
  ClusterInfo info;
  info.uuid = shape.uuid.empty() ? make_uuid() : shape.uuid;
  info.slot_bits = shape.slot_bits;
  info.replicas = shape.replicas;
  info.seed = shape.seed == 0 ? entropy() : shape.seed;
  info.created_ms = clock.wall_ms();
  const absl::Status created = create_cluster(block, info);
  if (!absl::IsAlreadyExists(created)) {
    SLUICE_RETURN_IF_ERROR(created);
    return info;
  }
  SLUICE_ASSIGN_OR_RETURN(ClusterInfo there, load_cluster(block));
  if (there.uuid != info.uuid) return created;
  return there;
}

absl::Status publish_first_table(ClusterBlock& block, size_t nodes, int64_t timeout_ms,
                                 Clock& clock) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterInfo info, load_cluster(block));
  if (nodes < info.replicas) {
    return invalid_argument("{} nodes cannot hold {} replicas", nodes, info.replicas);
  }
  Deadline deadline(clock, timeout_ms);
  while (true) {
    const auto head = load_table_head(block);
    if (head.ok()) return absl::OkStatus();
    if (head.status().code() != absl::StatusCode::kNotFound) return head.status();
    SLUICE_ASSIGN_OR_RETURN(const std::vector<Member> members, list_members(block));
    std::string live;
    std::vector<Member> first;  // of what is not there, no copy would ever be
    for (const Member& member : members) {
      if (!member.live) continue;
      first.push_back(member);
      live += fmt::format("{}{}", live.empty() ? "" : ", ", member.info.name);
    }
    if (first.size() >= nodes) {
      SLUICE_ASSIGN_OR_RETURN(
          const TableChange change,
          compute_table(nullptr, {table_members(first), info.replicas, info.slot_bits, info.seed}));
      const absl::Status published = publish_table(block, change.table);
      if (published.code() != absl::StatusCode::kAborted) return published;
      continue;
    }
    if (!deadline.pause(kPollMs)) {
      return deadline_exceeded("{} of {} nodes are live ({})", first.size(), nodes,
                               live.empty() ? "none" : live);
    }
  }
}

}  // namespace sluice

// What of the cluster's trees is in a backup: what was asked for, what was found, what became of
// it.
//
// Stored documents as in backup_store.h. Functions may be called from any thread.
#ifndef SLUICE_CONTROL_BACKUP_BACKUP_TREES_H_
#define SLUICE_CONTROL_BACKUP_BACKUP_TREES_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/cluster_block/cluster_block.h"
#include "control/peers/node_context.h"
#include "control/proto/documents.pb.h"
#include "control/proto/peer.pb.h"
#include "control/schedule/planner.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/tree_source/tree_source.h"

namespace sluice {

struct BackupSources {
  std::vector<std::string> trees;  // names; empty: all
  bool records = true;
  bool rescan = false;  // read every file, whatever is known of it
  bool is_default() const { return trees.empty() && records && !rescan; }
};

// As part of the commit that creates the backup.
std::vector<ClusterOp> sources_put(std::string_view uuid, const BackupSources& sources);
absl::StatusOr<BackupSources> load_sources(ClusterBlock& block, std::string_view uuid);

using BackupTrees = std::vector<v1::BackupTree>;  // by number
ClusterOp trees_put(std::string_view uuid, const BackupTrees& trees);
// None where there is no document.
absl::StatusOr<BackupTrees> load_trees(ClusterBlock& block, std::string_view uuid);
std::vector<ArchivedTree> archived_trees(const BackupTrees& trees);

// What a node answers, and what it reports once it has sent a tree. Of paths the first few.
void put(const TreeReport& report, v1::BackupTree* to);

// What the cluster's nodes find in their trees, numbered by name and node.
struct FoundTree {
  v1::BackupTree tree;
  std::vector<PublishedTreeSlot> slots;  // without nodes
};
// Waits until all have looked. NOT_FOUND naming a tree that was asked for and that no node has;
// UNAVAILABLE for a node that went away meanwhile, and what the node says of a tree that it cannot
// look at, naming both; CANCELLED when `stopped` says so. `on_wait` is told now and then what is
// waited for.
absl::StatusOr<std::vector<FoundTree>> look_at_trees(
    const NodeContext& context, const std::string& backup, uint64_t attempt,
    const BackupSources& sources, const std::function<bool()>& stopped,
    const std::function<void(std::string)>& on_wait);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_BACKUP_TREES_H_

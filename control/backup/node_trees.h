// The directory trees that a node backs up where they are: looks at them for backups, and sources
// that send them.
//
// A look takes as long as reading the tree's directories does, so it goes on beside the calls that
// ask for it. Thread-safe. Memory: what looks found (by shard, some 100 bytes each) for the last
// kKeptLooks of each tree.
#ifndef SLUICE_CONTROL_BACKUP_NODE_TREES_H_
#define SLUICE_CONTROL_BACKUP_NODE_TREES_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "dataplane/tree_source/tree_source.h"

namespace sluice {

struct TreeSettings {
  std::string name;  // check_tree_name()
  std::string path;  // of the directory
  std::vector<std::string> exclude;
  bool one_file_system = false;
  friend bool operator==(const TreeSettings&, const TreeSettings&) = default;
};

// 1 to 64 bytes of [A-Za-z0-9._-], not beginning with a dot or dash. INVALID_ARGUMENT naming it and
// the rule.
absl::Status check_tree_name(std::string_view name);

class NodeTrees {
 public:
  static constexpr size_t kKeptLooks = 4;

  // Catalogues are kept below `directory`. INVALID_ARGUMENT for names and patterns that break the
  // rules.
  static absl::StatusOr<std::unique_ptr<NodeTrees>> open(const std::vector<TreeSettings>& trees,
                                                         const std::string& directory,
                                                         uint32_t slot_bits);
  // Ends what looks at trees.
  ~NodeTrees();
  NodeTrees(const NodeTrees&) = delete;
  NodeTrees& operator=(const NodeTrees&) = delete;

  struct Seen {
    std::string name;
    bool done = false;
    absl::Status status;  // once done
    TreeShards shards;
    TreeReport report;
  };
  // Of the trees with these names, or of all, what an attempt of a backup finds in them. The first
  // call of an attempt begins to look, and ends the looks of earlier ones.
  std::vector<Seen> look(const std::string& backup, uint64_t attempt,
                         const std::vector<std::string>& names, bool rescan);
  // Of the last look. NOT_FOUND for a tree that is not (any more) in the configuration, or was not
  // looked at.
  absl::StatusOr<std::shared_ptr<TreeSource>> source(std::string_view name, uint32_t number);

 private:
  struct Look {
    std::string backup;
    uint64_t attempt = 0;
    std::atomic<bool> stop{false};
    Mutex mutex;
    Seen seen SLUICE_GUARDED_BY(mutex);
    std::thread thread;
  };
  struct Tree {
    TreeSettings settings;
    TreeScanOptions scan;
    std::string directory;                     // of the catalogue
    std::shared_ptr<TreeCatalogue> catalogue;  // under the mutex of all
    Mutex looking;                             // one look at a time
    std::list<std::shared_ptr<Look>> looks;    // the newest first; under the mutex of all
  };

  explicit NodeTrees(uint32_t slot_bits) : slot_bits_(slot_bits) {}
  absl::StatusOr<std::unique_ptr<TreeSource>> open_source(const Tree& tree, uint32_t number);
  absl::Status look_at(Tree& tree, Look& look, bool rescan, Seen* seen);
  absl::Status begin_again(Tree& tree);
  std::shared_ptr<Look> look_of(Tree& tree, const std::string& backup, uint64_t attempt,
                                bool rescan) SLUICE_REQUIRES(mutex_);
  void run(Tree& tree, Look& look, bool rescan);
  void retire(std::shared_ptr<Look> look) SLUICE_REQUIRES(mutex_);
  static void end(Look& look);

  const uint32_t slot_bits_;
  Mutex mutex_;
  std::vector<std::unique_ptr<Tree>> trees_;  // fixed after open()
  std::list<std::shared_ptr<Look>> retired_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_NODE_TREES_H_

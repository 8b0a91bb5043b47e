// Removes the entries of earlier imports that a tree no longer has.
#ifndef SLUICE_TREE_TREE_MIRROR_H_
#define SLUICE_TREE_TREE_MIRROR_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "tree/record_stream.h"
#include "tree/tree_generations.h"
#include "tree/tree_scan.h"

namespace sluice {

// Each entry below the prefix is looked for in the tree as it is now, so memory does not grow with
// its size, and what cannot be looked at stays. So do: what the scan's options leave out; entries
// of another tree, one with a root of its own below the prefix; records that are not tree entries;
// and what has the content of another name that stays. Confined to one thread.
class TreeMirror {
 public:
  // `root` is the tree's; all outlive it.
  TreeMirror(int root, const std::string& prefix, const TreeScanOptions& options,
             RecordStore& store, TreeGenerations& generations)
      : root_(root), prefix_(prefix), options_(options), store_(store), generations_(generations) {}

  // Chunks of files that are removed are left to generations.collect().
  absl::Status remove_gone(const std::function<bool()>& cancelled);
  uint64_t removed() const { return removed_; }
  const StreamFailures& failures() const { return failures_; }

 private:
  static constexpr size_t kMaxRoots = 65'536;  // remembered
  static constexpr size_t kBatch = 1024;       // keys that are removed together

  bool is_gone(const std::string& path);
  // Whether a root of another tree is at or above the path.
  absl::StatusOr<bool> is_of_other_tree(std::string_view path);
  absl::StatusOr<bool> is_root(const std::string& directory);
  absl::Status remove(std::vector<std::string> paths);
  absl::StatusOr<bool> is_named_by_others(const std::string& path);
  absl::Status find_named();

  const int root_;
  const std::string& prefix_;
  const TreeScanOptions& options_;
  RecordStore& store_;
  TreeGenerations& generations_;
  std::unordered_map<std::string, bool> roots_;  // by directory
  // Keys of entries that hard links name which stay; known once it is asked for.
  std::optional<std::unordered_set<std::string>> named_;
  uint64_t removed_ = 0;
  StreamFailures failures_;
};

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_MIRROR_H_

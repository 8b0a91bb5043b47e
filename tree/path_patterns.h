// Which paths of a tree are left out: patterns as in a .gitignore file.
//
// - A pattern without '/', or with one only at its end, matches a name in every directory; any
// other
//   is matched against the whole path below the tree's root, with or without a '/' in front.
// - '*' matches any bytes but '/', '?' one byte but '/', "[a-z]" and "[!a-z]" one byte; '\' takes
//   the byte behind it as it is. "**" as a whole name matches any number of directories, none too;
//   at the end of a pattern it matches everything below.
// - '/' at the end: directories only.
// - '!' in front: what an earlier pattern left out is taken after all. The last pattern that
// matches
//   decides. Below a directory that is left out nothing is taken.
//
// Matching takes time in proportion to pattern times path at most. Thread-safe once filled.
#ifndef SLUICE_TREE_PATH_PATTERNS_H_
#define SLUICE_TREE_PATH_PATTERNS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace sluice {

// Whether one name, without '/', matches a pattern of one name.
bool name_matches(std::string_view pattern, std::string_view name);

class PathPatterns {
 public:
  static constexpr size_t kMaxPatterns = 10'000;
  static constexpr size_t kMaxPatternBytes = 4096;

  // INVALID_ARGUMENT for one that matches nothing, such as "" and "/".
  absl::Status add(std::string_view pattern);
  bool empty() const { return patterns_.empty(); }

  // For a path below the root whose parents are not left out.
  bool excludes(std::string_view path, bool directory) const;
  // For any path: also where a parent is left out.
  bool excludes_with_parents(std::string_view path, bool directory) const;

 private:
  struct Pattern {
    std::vector<std::string> names;  // "**" for any directories
    bool anchored = false;
    bool directories_only = false;
    bool takes = false;  // '!'
  };
  std::vector<Pattern> patterns_;
};

}  // namespace sluice

#endif  // SLUICE_TREE_PATH_PATTERNS_H_

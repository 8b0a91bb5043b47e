#include "tree/tree_mirror.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "base/status.h"
#include "tree/beneath.h"
#include "tree/tree_entry.h"

namespace sluice {

// What is not known to have gone has not.
bool TreeMirror::is_gone(const std::string& path) {
  if (options_.exclude.excludes_with_parents(path, false) ||
      options_.exclude.excludes_with_parents(path, true)) {
    return false;
  }
  struct stat info {};
  const size_t slash = path.rfind('/');
  if (slash != std::string::npos) {
    const UniqueFd parent = open_beneath(root_, path.substr(0, slash), O_PATH | O_DIRECTORY);
    if (!parent) return errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    if (options_.one_file_system) {
      struct stat root {};
      if (fstat(parent.get(), &info) != 0 || fstat(root_, &root) != 0) return false;
      if (info.st_dev != root.st_dev) return false;
    }
    if (fstatat(parent.get(), path.c_str() + slash + 1, &info, AT_SYMLINK_NOFOLLOW) != 0)
      return errno == ENOENT || errno == ENOTDIR;
  } else if (fstatat(root_, path.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT;
  }
  return S_ISSOCK(info.st_mode);
}

absl::StatusOr<bool> TreeMirror::is_root(const std::string& directory) {
  if (const auto known = roots_.find(directory); known != roots_.end()) return known->second;
  SLUICE_ASSIGN_OR_RETURN(const auto value, store_.get(prefix_ + directory + "/."));
  if (roots_.size() >= kMaxRoots) roots_.clear();
  return roots_[directory] = value.has_value();
}

absl::StatusOr<bool> TreeMirror::is_of_other_tree(std::string_view path) {
  if (path.ends_with("/.")) return true;
  for (size_t slash = path.find('/'); slash != std::string_view::npos;
       slash = path.find('/', slash + 1)) {
    SLUICE_ASSIGN_OR_RETURN(const bool root, is_root(std::string(path.substr(0, slash))));
    if (root) return true;
  }
  return false;
}

// What the tree still has of hard links; all others go too.
absl::Status TreeMirror::find_named() {
  named_.emplace();
  std::vector<std::string> links;
  SLUICE_RETURN_IF_ERROR(store_.scan_heads(
      prefix_, kTreeHeadBytes, [&](std::string_view key, std::string_view head) -> absl::Status {
        const std::string path(key.substr(prefix_.size()));
        if (is_hard_link(head) && check_tree_path(path).ok() && !is_gone(path))
          links.push_back(path);
        return absl::OkStatus();
      }));
  for (const std::string& path : links) {
    SLUICE_ASSIGN_OR_RETURN(const auto value, store_.get(prefix_ + path));
    if (!value.has_value()) continue;
    const auto link = parse_tree_entry(*value);
    if (!link.ok() || link->header.kind != TreeKind::kHardLink) continue;
    const auto target = target_of(prefix_ + path, path, *link);
    if (target.ok()) named_->insert(target->key);
  }
  return absl::OkStatus();
}

// A name that the import left out, or could not read, has its content there.
absl::StatusOr<bool> TreeMirror::is_named_by_others(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const auto value, store_.get(prefix_ + path));
  if (!value.has_value()) return false;
  const auto entry = parse_tree_entry(*value);
  if (!entry.ok() || !entry->extras.linked) return false;
  if (!named_.has_value()) SLUICE_RETURN_IF_ERROR(find_named());
  return named_->contains(prefix_ + path);
}

absl::Status TreeMirror::remove(std::vector<std::string> paths) {
  const auto writer = store_.writer();
  for (const std::string& path : paths) {
    SLUICE_ASSIGN_OR_RETURN(const bool other, is_of_other_tree(path));
    if (other) continue;
    SLUICE_ASSIGN_OR_RETURN(const bool named, is_named_by_others(path));
    if (named) continue;
    SLUICE_RETURN_IF_ERROR(writer->erase(prefix_ + path));
    generations_.note_imported(path, 0);  // so that its chunks are looked at
  }
  SinkTotals totals = writer->finish();
  removed_ += totals.records;
  for (StreamFailure& failure : totals.failures.first)
    failures_.add(failure.path.substr(prefix_.size()), std::move(failure.reason));
  failures_.count += totals.failures.count - totals.failures.first.size();
  return absl::OkStatus();
}

absl::Status TreeMirror::remove_gone(const std::function<bool()>& cancelled) {
  std::vector<std::string> gone;
  SLUICE_RETURN_IF_ERROR(store_.scan_heads(
      prefix_, kTreeHeadBytes, [&](std::string_view key, std::string_view head) -> absl::Status {
        if (cancelled()) return sluice::cancelled("cancelled");
        const std::string path(key.substr(prefix_.size()));
        if (!is_named_entry(head) || path == "." || !check_tree_path(path).ok() || !is_gone(path))
          return absl::OkStatus();
        gone.push_back(path);
        if (gone.size() < kBatch) return absl::OkStatus();
        return remove(std::exchange(gone, {}));
      }));
  return remove(std::move(gone));
}

}  // namespace sluice

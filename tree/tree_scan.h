// Walks a directory tree and tells of everything in it, with metadata, knowing nothing of where it
// goes.
//
// Directories are read through handles: no link is followed, and nothing outside of the tree is
// visited, whatever changes meanwhile. Names are bytes; paths may be longer than PATH_MAX. A
// directory is told of before what is in it, and entries of one batch (256 KiB of the kernel's) in
// order of their names. Memory: a batch for each level that is being read, whatever the number of
// files; few directories are open at a time.
#ifndef SLUICE_TREE_TREE_SCAN_H_
#define SLUICE_TREE_TREE_SCAN_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "tree/file_metadata.h"
#include "tree/path_patterns.h"

namespace sluice {

struct TreeScanOptions {
  // Directories on which other file systems are mounted are told of, and not entered; files that
  // are mounted are left out.
  bool one_file_system = false;
  PathPatterns exclude;
};

struct ScannedEntry {
  std::string path;  // below the root; "." for the root itself
  // Of files without names and attributes: TreeFile reads these together with the content.
  FileMetadata metadata;
  FileIdentity identity;
};

enum class LeftOut : uint8_t {
  kExcluded,         // with all that is below it
  kOtherFileSystem,  // what is mounted there
  kLoop,             // a directory that it is in, mounted there once more
  kSocket,
};

class TreeScanHandler {
 public:
  virtual ~TreeScanHandler() = default;
  // Whether to enter it, of a directory.
  virtual bool on_entry(ScannedEntry entry) = 0;
  virtual void on_left_out(const std::string& path, LeftOut why) = 0;
  // What could not be read, or has gone. A directory may have been told of before, without what is
  // in it.
  virtual void on_failed(const std::string& path, std::string reason) = 0;
  // Asked before each entry.
  virtual bool stopped() = 0;
};

// Confined to one thread.
class TreeScanner {
 public:
  // The root, its options, `names` and the handler outlive it.
  TreeScanner(int root, const TreeScanOptions& options, OwnerNames& names,
              TreeScanHandler& handler);
  ~TreeScanner();
  TreeScanner(const TreeScanner&) = delete;
  TreeScanner& operator=(const TreeScanner&) = delete;

  // An error only where the root itself cannot be looked at.
  absl::Status run();

 private:
  struct Level;
  void enter(const std::string& name);
  void read_batch();
  void visit(const std::string& name, uint8_t type);
  void leave();
  void tell(const std::string& name, const struct stat& info);
  // The innermost directory, opened again where it had to be closed.
  bool reopen();
  void close_outermost();
  std::string path_of(const std::string& name) const;

  const int root_;
  const TreeScanOptions& options_;
  OwnerNames& names_;
  TreeScanHandler& handler_;
  const size_t max_open_;
  uint64_t root_device_ = 0;
  std::string path_;  // of the innermost directory; empty for the root
  std::vector<std::unique_ptr<Level>> levels_;
  size_t open_levels_ = 0;
  std::set<std::pair<uint64_t, uint64_t>> entered_;  // device and inode of each level
  std::vector<char> buffer_;
};

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_SCAN_H_

// A regular file of a tree that is being read: its metadata, its content piece by piece, and
// whether it stayed as it is meanwhile.
#ifndef SLUICE_TREE_TREE_FILE_H_
#define SLUICE_TREE_TREE_FILE_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "tree/file_metadata.h"

namespace sluice {

// Confined to one thread.
class TreeFile {
 public:
  // `path` is below `root`; no link is followed. ABORTED when there is something else than a file
  // now. Times of access stay as they are where this process may see to that. Waits for a tick of
  // the file system's clock where the file changed within this one, a few times: a change beside
  // the reading could have the same time.
  static absl::StatusOr<TreeFile> open(int root, std::string_view path, OwnerNames& names);

  int fd() const { return fd_.get(); }
  const FileMetadata& metadata() const { return metadata_; }
  const FileIdentity& identity() const { return identity_; }
  bool sparse() const { return sparse_; }

  // Whether content or metadata changed since open(), or may have, as it changed in each of the
  // ticks that open() waited for. What is written through a mapping is seen
  // once the kernel notes its time, which may be later.
  absl::StatusOr<bool> changed() const;

 private:
  UniqueFd fd_;
  FileMetadata metadata_;
  FileIdentity identity_;
  bool sparse_ = false;
  bool busy_ = false;
};

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_FILE_H_

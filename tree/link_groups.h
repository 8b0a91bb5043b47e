// Names of one file: which of them is imported with the content, and which name that one.
#ifndef SLUICE_TREE_LINK_GROUPS_H_
#define SLUICE_TREE_LINK_GROUPS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "base/mutex.h"
#include "tree/file_metadata.h"

namespace sluice {

// The device and inode of a file.
using FileId = std::pair<uint64_t, uint64_t>;
inline FileId id_of(const FileIdentity& identity) { return {identity.device, identity.inode}; }
// TreeExtras::file_number.
uint64_t number_of(const FileId& id);

// The first name that was met is imported with the content; others wait until that is acknowledged,
// so that no entry names one that is not there. Where the first fails, the next name takes its
// place. A file is forgotten when all its names were met. Thread-safe.
class LinkGroups {
 public:
  static constexpr size_t kMaxFiles = size_t{1} << 20;

  struct First {
    std::string path;
    Digest128 digest;     // of its entry
    uint64_t number = 0;  // of the file
    bool file = false;    // not a link, pipe or device
  };
  struct Met {
    bool import_it = false;     // with its content
    bool alone = false;         // ... as kMaxFiles are known: it will not be named by others
    std::optional<First> link;  // to be written as a link to this one now
    // Neither: it waits.
  };
  Met meet(const FileIdentity& identity, const std::string& path);
  // The first name's entry is acknowledged. Returns the names that waited.
  std::vector<std::string> imported(const FileId& id, const First& first);
  // The first name could not be imported. Returns the one to import instead, if any waits.
  std::optional<std::string> failed(const FileId& id);

 private:
  struct File {
    uint64_t left = 0;  // names that were not met
    bool waiting_for_first = true;
    First first;
    std::vector<std::string> waiting;
  };
  Mutex mutex_;
  std::map<FileId, File> files_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_TREE_LINK_GROUPS_H_

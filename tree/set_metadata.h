// Gives an entry of a file system the metadata that was recorded of another one.
#ifndef SLUICE_TREE_SET_METADATA_H_
#define SLUICE_TREE_SET_METADATA_H_

#include <cstdint>

#include "absl/status/status.h"
#include "tree/file_metadata.h"

namespace sluice {

// Entries with something that could not be set as it was, mostly for want of privileges.
struct NotSet {
  uint64_t owner = 0;       // user or group
  uint64_t set_id = 0;      // bits that act for an owner other than the recorded one
  uint64_t xattr = 0;       // extended attributes but these:
  uint64_t acl = 0;         // access control lists
  uint64_t capability = 0;  // file capabilities
  uint64_t device = 0;      // devices, which were not made

  uint64_t sum() const { return owner + set_id + xattr + acl + capability + device; }
};

// Owners by name where this system knows it and `names` is not null, else by number. In an order
// that gives nobody more than they had: owner, attributes, mode, capabilities, times. Set-user-ID
// and set-group-ID bits only where owner and group are the recorded ones. `fd` is open in any way,
// O_PATH among them, and nobody else must be able to open the entry before. What an entry has that
// was not recorded, such as an inherited list, is removed where `replace` is set. Counts what could
// not be set; an error only where mode or times could not.
absl::Status set_metadata_of(int fd, const FileMetadata& metadata, OwnerNames* names, bool replace,
                             NotSet* not_set);

}  // namespace sluice

#endif  // SLUICE_TREE_SET_METADATA_H_

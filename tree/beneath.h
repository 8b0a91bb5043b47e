// Opens what is below a directory, whatever others put in its way meanwhile: no link is followed
// and no path leads out. Thread-safe.
#ifndef SLUICE_TREE_BENEATH_H_
#define SLUICE_TREE_BENEATH_H_

#include <string_view>

#include "base/file.h"

namespace sluice {

// As openat() with O_NOFOLLOW and O_CLOEXEC. `path` is relative and without ".." names; it may be
// longer than PATH_MAX. ELOOP or ENOTDIR where a name in it is not a directory. errno says why
// where the descriptor is not open.
UniqueFd open_beneath(int root, std::string_view path, int flags);

}  // namespace sluice

#endif  // SLUICE_TREE_BENEATH_H_

// The extras of a tree's entry as bytes: fields with tags, in one form only (docs/tree-entries.md).
#ifndef SLUICE_TREE_TREE_EXTRAS_H_
#define SLUICE_TREE_TREE_EXTRAS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "tree/tree_entry.h"

namespace sluice {

// Attributes, with room for the rest.
inline constexpr size_t kMaxTreeExtrasBytes = kMaxAttributeBytes + (512 << 10);

std::string encode_tree_extras(const TreeHeader& header, const TreeExtras& extras);
// Also sets what the header knows through them: whether the file has holes, and chunks then.
// DATA_LOSS for tags that the header's kind does not have, and for anything that
// encode_tree_extras() does not write.
absl::Status decode_tree_extras(std::string_view bytes, TreeHeader* header, TreeExtras* extras);

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_EXTRAS_H_

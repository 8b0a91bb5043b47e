// Feeds the readers of tree entries anything: values, and the keys of chunks and generations.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/oracle.h"
#include "tree/tree_entry.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

void read_hard_link(const TreeEntry& link) {
  constexpr std::string_view kKey = "prefix/of/a/key";
  const auto target = target_of(kKey, kKey.substr(7), link);
  require_readable(target.status());
  if (!target.ok()) return;
  require(target->key.ends_with(link.content));
  require(target->path.empty() || target->key == "prefix/" + target->path);
}

void read_value(std::string_view value) {
  const auto entry = parse_tree_entry(value);
  require_readable(entry.status());
  if (!entry.ok()) return;
  const TreeHeader& header = entry->header;
  const TreeExtras& extras = entry->extras;
  require(encode_tree_entry(header, extras).append(entry->content) == value);
  require(header.chunks() >= 1 && header.mode <= 07777);
  require(extras.extents.size() <= kMaxExtents);
  uint64_t end = 0;
  for (const Extent& extent : extras.extents) {
    require(extent.length > 0 && extent.offset >= end && extent.offset <= header.size);
    require(extent.length <= header.size - extent.offset);
    end = extent.offset + extent.length;
  }
  for (const ExtendedAttribute& attribute : extras.attributes)
    require(!attribute.name.empty() && attribute.name.find('\0') == std::string::npos);
  const bool named = is_named_entry(value.substr(0, kTreeHeadBytes));
  require(named == (header.kind != TreeKind::kChunk && header.kind != TreeKind::kGeneration));
  if (header.kind == TreeKind::kHardLink) read_hard_link(*entry);
  if (header.kind != TreeKind::kChunk) return;
  require(header.chunk < header.chunks());
  if (header.sparse) {
    require(bytes_of(extras.extents) == entry->content.size());
  } else {
    require(header.chunk_size(header.chunk) == entry->content.size());
  }
}

void read_keys(std::string_view key) {
  std::string_view path;
  uint64_t generation = 0;
  uint32_t chunk = 0;
  if (split_chunk_key(key, &path, &generation, &chunk)) {
    require(generation >> kGenerationBits == 0);
    require(tree_chunk_key(path, generation, chunk) == key);
  }
  if (split_generation_key(key, &path, &generation)) {
    require(generation_key("", path, generation) == generation_prefix("").append(key));
  }
}

void read_path(std::string_view path) {
  const absl::Status status = check_tree_path(path);
  require_readable(status);
  if (!status.ok()) return;
  // Nothing leaves the directory.
  require(path.front() != '/' && path.find('\0') == std::string_view::npos);
  require(path != ".." && !path.starts_with("../") && !path.ends_with("/..") &&
          path.find("/../") == std::string_view::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  read_value(input);
  read_keys(input);
  read_path(input);
  return 0;
}

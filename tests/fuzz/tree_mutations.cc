#include "tests/fuzz/mutations.h"
#include "tree/tree_entry.h"

namespace sluice::testing {
namespace {

std::string entry_of(TreeKind kind, uint64_t size, uint64_t generation, uint32_t chunk,
                     const std::string& content) {
  TreeHeader header;
  header.kind = kind;
  header.mode = 0644;
  header.mtime_seconds = 1'700'000'000;
  header.size = size;
  header.chunk_bytes = kind == TreeKind::kDirectory || kind == TreeKind::kLink ? 0 : 100;
  header.generation = generation;
  header.chunk = chunk;
  return encode_tree_entry(header) + content;
}

TreeExtras some_extras() {
  TreeExtras extras;
  extras.user = "alice";
  extras.group = "staff";
  extras.linked = true;
  extras.attributes = {{"system.posix_acl_access", std::string("\2\0\0\0\1\0", 6)},
                       {"user.note", "kept"}};
  return extras;
}

std::string sparse_entry_of(TreeKind kind, uint32_t chunks, const std::vector<Extent>& extents) {
  TreeHeader header;
  header.kind = kind;
  header.mode = 0644;
  header.size = 1ull << 40;
  header.chunk_bytes = 100;
  header.generation = chunks == 0 ? 0 : 7;
  header.sparse = true;
  header.sparse_chunks = chunks;
  TreeExtras extras;
  if (kind == TreeKind::kFile) extras = some_extras();
  extras.extents = extents;
  return encode_tree_entry(header, extras).append(bytes_of(extents), 'd');
}

std::string special_entry_of(TreeKind kind) {
  TreeHeader header;
  header.kind = kind;
  header.mode = 0600;
  TreeExtras extras = some_extras();
  extras.device_major = 259;
  extras.device_minor = 70'000;
  return encode_tree_entry(header, extras);
}

std::string hard_link_of(const std::string& target, uint32_t own_path_bytes) {
  TreeHeader header;
  header.kind = TreeKind::kHardLink;
  header.size = target.size();
  TreeExtras extras;
  extras.own_path_bytes = own_path_bytes;
  return encode_tree_entry(header, extras) + target;
}

TEST(Fuzz, TreeEntryReadersSurviveMutations) {
  const std::vector<std::string> inputs = {
      entry_of(TreeKind::kDirectory, 0, 0, 0, ""),
      entry_of(TreeKind::kFile, 5, 0, 0, "bytes"),
      entry_of(TreeKind::kFile, 250, 7, 0, ""),
      entry_of(TreeKind::kLink, 6, 0, 0, "target"),
      entry_of(TreeKind::kChunk, 250, 7, 2, std::string(50, 'c')),
      entry_of(TreeKind::kGeneration, 250, 7, 0, ""),
      sparse_entry_of(TreeKind::kFile, 0, {}),
      sparse_entry_of(TreeKind::kFile, 0, {{5, 7}, {1ull << 39, 30}}),
      sparse_entry_of(TreeKind::kFile, 3, {}),
      sparse_entry_of(TreeKind::kChunk, 3, {{0, 50}, {4096, 50}}),
      sparse_entry_of(TreeKind::kGeneration, 3, {}),
      special_entry_of(TreeKind::kPipe),
      special_entry_of(TreeKind::kBlockDevice),
      hard_link_of("a/first", 3),
      tree_chunk_key("a/b", 77, 3),
      tree_chunk_key("a/b", 77, 1 << 24),
      generation_key("", "a/b", 77).substr(1),
      "a/b/c.txt",
      "../a/./b"};
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing

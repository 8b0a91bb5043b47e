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
  header.chunk_bytes = kind == TreeKind::kFolder || kind == TreeKind::kLink ? 0 : 100;
  header.generation = generation;
  header.chunk = chunk;
  return header.encode() + content;
}

TEST(Fuzz, TreeEntryReadersSurviveMutations) {
  const std::vector<std::string> inputs = {
      entry_of(TreeKind::kFolder, 0, 0, 0, ""),
      entry_of(TreeKind::kFile, 5, 0, 0, "bytes"),
      entry_of(TreeKind::kFile, 250, 7, 0, ""),
      entry_of(TreeKind::kLink, 6, 0, 0, "target"),
      entry_of(TreeKind::kChunk, 250, 7, 2, std::string(50, 'c')),
      entry_of(TreeKind::kGeneration, 250, 7, 0, ""),
      tree_chunk_key("a/b", 77, 3),
      tree_chunk_key("a/b", 77, 1 << 24),
      generation_key("", "a/b", 77).substr(1),
      "a/b/c.txt",
      "../a/./b"};
  run_mutations(inputs, 200'000);
}

}  // namespace
}  // namespace sluice::testing

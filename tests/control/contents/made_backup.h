// Archives of two parts with given records, for tests of what is seen in them.
#ifndef SLUICE_TESTS_CONTROL_CONTENTS_MADE_BACKUP_H_
#define SLUICE_TESTS_CONTROL_CONTENTS_MADE_BACKUP_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "control/contents/backup_contents.h"
#include "tests/dataplane/archive/small_archive.h"
#include "tree/tree_entry.h"

namespace sluice::testing {

// The value of a tree's entry that has all its content in its record.
inline std::string tree_value(TreeKind kind, std::string_view content = {}, uint16_t mode = 0755) {
  TreeHeader header;
  header.kind = kind;
  header.mode = mode;
  header.mtime_seconds = 1'700'000'000;
  header.mtime_nanoseconds = 5;
  header.size = content.size();
  if (kind == TreeKind::kLink) header.digest = xxh3_128(content);
  if (kind == TreeKind::kFile) {
    header.chunk_bytes = kTreeChunkBytes;
    header.digest = digest_of_chunks({digest_of_content({}, content)});
  }
  return encode_tree_entry(header).append(content);
}

// The value of a further name of a file; both are below one root.
inline std::string hard_link(const std::string& own_path, const std::string& target,
                             const std::string& target_value) {
  TreeHeader header;
  header.kind = TreeKind::kHardLink;
  header.size = target.size();
  header.digest = parse_tree_entry(target_value)->header.digest;
  TreeExtras extras;
  extras.own_path_bytes = static_cast<uint32_t>(own_path.size());
  return encode_tree_entry(header, extras) + target;
}

// Files of this many bytes in chunks of four, so that a few bytes make several.
inline constexpr uint32_t kSmallChunk = 4;

// The records of a file in chunks, with holes where `extents` say so: its own, its chunks, and its
// generation's.
inline void add_chunked(std::map<std::string, std::string>* records, const std::string& key,
                        std::string_view content, uint64_t generation) {
  TreeHeader file;
  file.kind = TreeKind::kFile;
  file.mode = 0644;
  file.size = content.size();
  file.chunk_bytes = kSmallChunk;
  file.generation = generation;
  std::vector<Digest128> digests;
  for (uint32_t number = 0; number < file.chunks(); ++number) {
    const std::string_view part = content.substr(size_t{number} * kSmallChunk, kSmallChunk);
    TreeHeader chunk = file;
    chunk.kind = TreeKind::kChunk;
    chunk.chunk = number;
    chunk.digest = digest_of_content({}, part);
    digests.push_back(chunk.digest);
    (*records)[tree_chunk_key(key, generation, number)] = encode_tree_entry(chunk).append(part);
  }
  TreeHeader of_generation = file;
  of_generation.kind = TreeKind::kGeneration;
  (*records)[generation_key("", key, generation)] = encode_tree_entry(of_generation);
  file.digest = digest_of_chunks(digests);
  (*records)[key] = encode_tree_entry(file);
}

struct MadeBackup {
  ScratchFolder scratch{true};
  std::vector<std::string> folders;

  MadeBackup(const std::map<std::string, std::string>& records,
             const std::vector<std::string>& deleted = {}) {
    Memory memory;
    std::map<uint32_t, TestSlot> slots;
    uint64_t stamp = Version::make_stamp(1'700'000'000'000, 0);
    const auto add = [&](const std::string& key, const std::string& value, bool tombstone) {
      const uint32_t slot = slot_of(key, kTestSlotBits);
      slots[slot].slot = slot;
      slots[slot].records.push_back({key, value, {stamp++, 1}, tombstone});
    };
    for (const auto& [key, value] : records) add(key, value, false);
    for (const std::string& key : deleted) add(key, "", true);
    std::vector<std::unique_ptr<ArchiveWriter>> writers;
    for (const char* node : {"n1", "n2"}) {
      folders.push_back(scratch / node);
      writers.push_back(*ArchiveWriter::open(test_options(folders.back(), node)));
    }
    for (auto& [number, slot] : slots) {
      std::sort(slot.records.begin(), slot.records.end(),
                [](const Record& a, const Record& b) { return a.key < b.key; });
      slot.blocks = pack(slot.records, number, kTestSlotBits, BlockBuilder::kMinMemory);
      EXPECT_TRUE(append_slot(*writers[number % 2], memory, slot).ok());
    }
    std::vector<PartManifest> parts;
    for (auto& writer : writers) parts.push_back(*writer->finish());
    for (auto& writer : writers) EXPECT_TRUE(writer->commit(manifest_of(parts, stamp)).ok());
  }

  std::unique_ptr<BackupContents> open() const {
    auto contents = open_local_contents(folders);
    EXPECT_TRUE(contents.ok()) << contents.status();
    return *std::move(contents);
  }
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_CONTROL_CONTENTS_MADE_BACKUP_H_

// Small archives of several parts, made from a seed, for tests that damage them.
#ifndef SLUICE_TESTS_DATAPLANE_ARCHIVE_SMALL_ARCHIVE_H_
#define SLUICE_TESTS_DATAPLANE_ARCHIVE_SMALL_ARCHIVE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/arena.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/writer.h"
#include "tests/dataplane/block/records.h"

namespace sluice::testing {

// A folder of its own, removed in the end. In memory where the machine has /dev/shm and
// `in_memory`.
class ScratchFolder {
 public:
  explicit ScratchFolder(bool in_memory = false) {
    const bool shm = in_memory && std::filesystem::is_directory("/dev/shm");
    const std::filesystem::path base = shm ? "/dev/shm" : ::testing::TempDir();
    path_ = base / ("sluice-test-" + make_uuid());
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
inline void spit(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Arena and pool of the tests' blocks.
struct Memory {
  explicit Memory(size_t buffers = 16)
      : arena(*Arena::create({.bytes = (buffers + kVerifyBuffers) * kBufferBytes})),
        pool(*arena->make_pool("test", buffers)) {}
  std::unique_ptr<Arena> arena;
  std::unique_ptr<BlockPool> pool;

  BlockBuffer load(const std::string& block) {
    BlockBuffer buffer = pool->take(60'000);
    // What was there before must not reach the disk as padding.
    std::memset(buffer.data() + block.size(), 0xee, padded(block.size()) - block.size());
    std::memcpy(buffer.data(), block.data(), block.size());
    return buffer;
  }
};

struct TestSlot {
  uint32_t slot = 0;
  std::vector<Record> records;
  std::vector<std::string> blocks;
  SlotDigest digest() const { return digest_of(records); }
  uint64_t newest_stamp() const {
    uint64_t newest = 0;
    for (const Record& record : records) newest = std::max(newest, record.version.stamp);
    return newest;
  }
};

inline constexpr uint32_t kTestSlotBits = 3;

inline ArchiveIdentity test_identity() {
  return {"3f0a8c1e-0000-4000-8000-000000000001",
          "3f0a8c1e-0000-4000-8000-000000000002",
          "nightly",
          kTestSlotBits,
          Version::make_stamp(1'700'003'600'000, 0),
          4};
}

inline TestSlot make_slot(uint32_t slot, uint64_t seed, size_t max_value = 1500,
                          size_t count = 12) {
  Random random(seed * 100 + slot);
  TestSlot result;
  result.slot = slot;
  RecordShape shape;
  shape.count = count;
  shape.max_value = max_value;
  result.records = make_records(random, slot, kTestSlotBits, shape);
  result.blocks = pack(result.records, slot, kTestSlotBits, BlockBuilder::kMinMemory);
  return result;
}

inline ArchiveWriter::Options test_options(const std::string& folder, const std::string& node) {
  ArchiveWriter::Options options;
  options.folder = folder;
  options.identity = test_identity();
  options.node = node;
  options.segment_bytes = 24 << 10;
  options.depth = 3;
  return options;
}

inline absl::Status append_slot(ArchiveWriter& writer, Memory& memory, const TestSlot& slot) {
  for (const std::string& block : slot.blocks) {
    SLUICE_RETURN_IF_ERROR(writer.append(memory.load(block), static_cast<uint32_t>(block.size())));
  }
  return writer.finish_slot(slot.slot, slot.digest(), slot.newest_stamp());
}

inline Manifest manifest_of(const std::vector<PartManifest>& parts, uint64_t newest_stamp) {
  Manifest manifest;
  manifest.identity = test_identity();
  manifest.newest_stamp = newest_stamp;
  manifest.parts = parts;
  return manifest;
}

// Parts of nodes n1, n2 ..., in folders p1, p2 ...: slot s is in part s % parts.
struct SmallArchive {
  ScratchFolder scratch;
  std::vector<std::string> folders;
  std::vector<TestSlot> slots;
  Manifest manifest;

  SmallArchive(Memory& memory, size_t parts, uint64_t seed, bool in_memory, size_t count = 12)
      : scratch(in_memory) {
    std::vector<std::unique_ptr<ArchiveWriter>> writers;
    for (size_t i = 0; i < parts; ++i) {
      folders.push_back(scratch / fmt::format("p{}", i + 1));
      auto writer = ArchiveWriter::open(test_options(folders.back(), fmt::format("n{}", i + 1)));
      EXPECT_TRUE(writer.ok()) << writer.status();
      writers.push_back(*std::move(writer));
    }
    uint64_t newest = 0;
    for (uint32_t slot = 0; slot < 1 << kTestSlotBits; ++slot) {
      // One slot holds a value that spans blocks.
      slots.push_back(make_slot(slot, seed, slot == 3 ? 20'000 : 1500, count));
      EXPECT_TRUE(append_slot(*writers[slot % parts], memory, slots.back()).ok());
      newest = std::max(newest, slots.back().newest_stamp());
    }
    std::vector<PartManifest> made;
    for (auto& writer : writers) made.push_back(*writer->finish());
    manifest = manifest_of(made, newest);
    for (auto& writer : writers) EXPECT_TRUE(writer->commit(manifest).ok());
  }

  std::vector<std::string> files() const {
    std::vector<std::string> all;
    for (const std::string& folder : folders) {
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        all.push_back(entry.path().string());
      }
    }
    std::sort(all.begin(), all.end());
    return all;
  }
};

// Everything an archive holds, by slot, as read through ArchiveReader.
inline absl::StatusOr<std::map<uint32_t, std::vector<Record>>> read_everything(
    const std::vector<std::string>& folders, Memory& memory) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<ArchiveReader> reader,
                          ArchiveReader::open(folders));
  std::map<uint32_t, std::vector<std::string>> blocks;
  for (size_t part = 0; part < reader->parts().size(); ++part) {
    for (const BlockLocation& location : reader->parts()[part].blocks) {
      BlockBuffer buffer = memory.pool->take(60'000);
      SLUICE_RETURN_IF_ERROR(reader->read_block(part, location, buffer.span()));
      blocks[location.slot].emplace_back(reinterpret_cast<char*>(buffer.data()), location.bytes);
    }
  }
  std::map<uint32_t, std::vector<Record>> records;
  for (const auto& [slot, slot_blocks] : blocks) {
    SLUICE_ASSIGN_OR_RETURN(records[slot], unpack(slot_blocks));
  }
  return records;
}

inline void expect_holds(const std::vector<std::string>& folders,
                         const std::vector<TestSlot>& slots, Memory& memory) {
  const auto records = read_everything(folders, memory);
  ASSERT_TRUE(records.ok()) << records.status();
  size_t live = 0;
  for (const TestSlot& slot : slots) {
    if (slot.records.empty()) continue;
    ++live;
    ASSERT_TRUE(records->contains(slot.slot));
    EXPECT_EQ(digest_of(records->at(slot.slot)), slot.digest()) << "slot " << slot.slot;
  }
  EXPECT_EQ(records->size(), live);
  const auto report = verify_archive(folders, *memory.arena, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  for (const VerifyProblem& bad : report->bad) ADD_FAILURE() << bad.file << ": " << bad.reason;
}

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_DATAPLANE_ARCHIVE_SMALL_ARCHIVE_H_

#include <gtest/gtest.h>

#include "dataplane/archive/frame.h"
#include "dataplane/archive/reader.h"
#include "tests/dataplane/archive/small_archive.h"

namespace sluice::testing {
namespace {

namespace fs = std::filesystem;

bool names(const VerifyReport& report, const std::string& file, std::string_view reason) {
  return std::any_of(report.bad.begin(), report.bad.end(), [&](const VerifyProblem& bad) {
    return bad.file == file && bad.reason.find(reason) != std::string::npos;
  });
}

std::string text_of(const VerifyReport& report) {
  std::string text;
  for (const VerifyProblem& bad : report.bad) {
    text += fmt::format("{} at {}, slot {}: {}\n", bad.file, bad.offset, bad.slot, bad.reason);
  }
  return text;
}

class VerifyTest : public ::testing::Test {
 protected:
  VerifyReport verify(const std::vector<std::string>& folders) {
    auto report = verify_archive(folders, *memory_.arena, nullptr);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *std::move(report) : VerifyReport{};
  }
  // The index of segment `number` of the first part.
  static SegmentIndex index_of(const SmallArchive& archive, uint32_t number) {
    return *SegmentIndex::decode(slurp(archive.folders[0] + "/" + index_file(number)));
  }
  static std::string segment_of(const SmallArchive& archive, uint32_t number) {
    return archive.folders[0] + "/" + segment_file(number);
  }

  Memory memory_;
};

TEST_F(VerifyTest, EndsAsSoonAsItIsToldTo) {
  const SmallArchive archive(memory_, 2, 1, true);
  int calls = 0;
  const auto report = verify_archive(archive.folders, *memory_.arena, [&](uint64_t, uint64_t) {
    ++calls;
    return false;
  });
  EXPECT_EQ(report.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(calls, 1);
}

TEST_F(VerifyTest, AWholeArchiveHasNothingBad) {
  const SmallArchive archive(memory_, 2, 1, true);
  uint64_t last = 0;
  uint64_t total = 0;
  const auto report =
      verify_archive(archive.folders, *memory_.arena, [&](uint64_t done, uint64_t of) {
        EXPECT_GT(done, last);
        last = done;
        total = of;
        return true;
      });
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->bad.empty()) << text_of(*report);
  EXPECT_EQ(last, total);
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  for (const TestSlot& slot : archive.slots) {
    blocks += slot.blocks.size();
    for (const std::string& block : slot.blocks) bytes += block.size();
  }
  EXPECT_EQ(report->blocks, blocks);
  EXPECT_EQ(report->bytes, bytes);
}

TEST_F(VerifyTest, NamesEveryFlippedByteOfEveryFile) {
  const SmallArchive archive(memory_, 2, 2, true, 3);
  uint64_t seed = 0;
  for (const std::string& file : archive.files()) {
    SCOPED_TRACE(file);
    const std::string good = slurp(file);
    std::fstream out(file, std::ios::binary | std::ios::in | std::ios::out);
    for (size_t at = 0; at < good.size(); ++at) {
      const auto flip = static_cast<char>(1 << (Random::mix(seed++) % 8));
      out.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(good[at] ^ flip)).flush();
      const auto report = verify_archive(archive.folders, *memory_.arena, nullptr);
      ASSERT_TRUE(report.ok()) << "byte " << at << ": " << report.status();
      ASSERT_TRUE(names(*report, file, "")) << "byte " << at << "\n" << text_of(*report);
      // Most bytes of a segment are padding here; a quarter of them is enough for the reader.
      if (file.find("segment-") == std::string::npos || at % 4 == 0) {
        ASSERT_FALSE(read_everything(archive.folders, memory_).ok()) << "byte " << at;
      }
      out.seekp(static_cast<std::streamoff>(at)).put(good[at]).flush();
    }
  }
  EXPECT_TRUE(verify(archive.folders).bad.empty());
}

TEST_F(VerifyTest, NamesEveryFlippedByteOfASinglePartsManifestAndItsBlocks) {
  const SmallArchive archive(memory_, 1, 3, true, 2);
  const std::string file = archive.folders[0] + "/manifest";
  const std::string good = slurp(file);
  const uint64_t blocks = verify(archive.folders).blocks;
  for (size_t at = 0; at < good.size(); ++at) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(~damaged[at]);
    spit(file, damaged);
    const VerifyReport report = verify(archive.folders);
    ASSERT_TRUE(names(report, file, "")) << "byte " << at;
    // The part file says what is there, so the rest is checked all the same.
    ASSERT_EQ(report.blocks, blocks) << "byte " << at;
    ASSERT_FALSE(ArchiveReader::open(archive.folders).ok());
  }
}

TEST_F(VerifyTest, NamesTruncationsOfEveryFile) {
  // On a real disk: reading up to an odd end of a file is different with O_DIRECT.
  const SmallArchive archive(memory_, 2, 4, false, 3);
  for (const std::string& file : archive.files()) {
    const std::string good = slurp(file);
    for (size_t size = 0; size < good.size(); size += 1 + good.size() / 37) {
      spit(file, std::string_view(good).substr(0, size));
      const VerifyReport report = verify(archive.folders);
      ASSERT_TRUE(names(report, file, "")) << file << " at " << size << "\n" << text_of(report);
      ASSERT_FALSE(read_everything(archive.folders, memory_).ok());
    }
    spit(file, good + '\0');
    EXPECT_TRUE(names(verify(archive.folders), file, "")) << file;
    fs::remove(file);
    const VerifyReport report = verify(archive.folders);
    EXPECT_TRUE(names(report, file, "missing")) << file << "\n" << text_of(report);
    EXPECT_FALSE(read_everything(archive.folders, memory_).ok());
    spit(file, good);
  }
  EXPECT_TRUE(verify(archive.folders).bad.empty());
}

TEST_F(VerifyTest, NamesARemovedBlockAndWhereTheOthersWent) {
  const SmallArchive archive(memory_, 1, 5, true);
  const SegmentIndex index = index_of(archive, 0);
  ASSERT_GE(index.blocks.size(), 3u);
  const std::string file = segment_of(archive, 0);
  const std::string good = slurp(file);
  for (size_t i = 0; i < index.blocks.size(); ++i) {
    std::string cut = good;
    cut.erase(index.blocks[i].offset, padded(index.blocks[i].bytes));
    spit(file, cut);
    const VerifyReport report = verify(archive.folders);
    EXPECT_TRUE(names(report, file, "truncated")) << text_of(report);
    const auto bad =
        std::find_if(report.bad.begin(), report.bad.end(), [&](const VerifyProblem& each) {
          return each.file == file && each.slot >= 0 && each.offset == index.blocks[i].offset;
        });
    ASSERT_NE(bad, report.bad.end());
    EXPECT_EQ(bad->slot, index.blocks[i].slot);
    EXPECT_NE(bad->reason.find("the block that belongs here was not found"), std::string::npos)
        << bad->reason;
    if (i + 1 < index.blocks.size()) {
      const BlockLocation& next = index.blocks[i + 1];
      EXPECT_TRUE(
          names(report, file,
                fmt::format("holds the block of slot {} sequence {}", next.slot, next.sequence)))
          << text_of(report);
      EXPECT_TRUE(names(report, file,
                        fmt::format("the block that belongs here is at {} offset {}", file,
                                    index.blocks[i].offset)))
          << text_of(report);
    }
    EXPECT_FALSE(read_everything(archive.folders, memory_).ok());
  }
}

TEST_F(VerifyTest, NamesTwoSwappedBlocks) {
  const SmallArchive archive(memory_, 1, 6, true);
  std::vector<BlockLocation> blocks;
  for (const SegmentSummary& segment : archive.manifest.parts[0].segments) {
    const SegmentIndex index = index_of(archive, segment.number);
    blocks.insert(blocks.end(), index.blocks.begin(), index.blocks.end());
  }
  size_t swaps = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (size_t j = i + 1; j < blocks.size(); ++j) {
      const BlockLocation& a = blocks[i];
      const BlockLocation& b = blocks[j];
      if (padded(a.bytes) != padded(b.bytes)) continue;
      const std::string files[] = {segment_of(archive, a.segment), segment_of(archive, b.segment)};
      std::string good[] = {slurp(files[0]), slurp(files[1])};
      const std::string block_a = good[0].substr(a.offset, padded(a.bytes));
      const std::string block_b = good[1].substr(b.offset, padded(b.bytes));
      if (files[0] == files[1]) {
        std::string both = good[0];
        both.replace(a.offset, block_b.size(), block_b).replace(b.offset, block_a.size(), block_a);
        spit(files[0], both);
      } else {
        spit(files[0], std::string(good[0]).replace(a.offset, block_b.size(), block_b));
        spit(files[1], std::string(good[1]).replace(b.offset, block_a.size(), block_a));
      }
      const VerifyReport report = verify(archive.folders);
      EXPECT_TRUE(names(report, files[0],
                        fmt::format("holds the block of slot {} sequence {}", b.slot, b.sequence)))
          << text_of(report);
      EXPECT_TRUE(names(report, files[1],
                        fmt::format("holds the block of slot {} sequence {}", a.slot, a.sequence)))
          << text_of(report);
      EXPECT_EQ(report.bad.size(), 2u) << text_of(report);
      EXPECT_FALSE(read_everything(archive.folders, memory_).ok());
      spit(files[0], good[0]);
      spit(files[1], good[1]);
      ++swaps;
    }
  }
  EXPECT_GT(swaps, 3u);
  EXPECT_TRUE(verify(archive.folders).bad.empty());
}

TEST_F(VerifyTest, NamesABlockOfAnotherBackup) {
  const SmallArchive archive(memory_, 1, 7, true);
  const BlockLocation location = index_of(archive, 0).blocks[0];
  // Same slot, valid in itself, small enough for the place.
  std::vector<Record> records = make_slot(location.slot, 99).records;
  records.resize(2);
  std::string foreign = pack(records, location.slot, kTestSlotBits).at(0);
  foreign.resize(padded(location.bytes));
  const std::string file = segment_of(archive, 0);
  std::string segment = slurp(file);
  spit(file, segment.replace(0, foreign.size(), foreign));
  const VerifyReport report = verify(archive.folders);
  EXPECT_TRUE(
      names(report, file,
            fmt::format("holds a block of slot {} that is not of this archive", location.slot)))
      << text_of(report);
  EXPECT_FALSE(read_everything(archive.folders, memory_).ok());
}

TEST_F(VerifyTest, NamesAnIndexWithoutOneOfItsEntries) {
  const SmallArchive archive(memory_, 1, 8, true);
  SegmentIndex index = index_of(archive, 0);
  const BlockLocation gone = index.blocks[1];
  index.blocks.erase(index.blocks.begin() + 1);
  const std::string file = archive.folders[0] + "/index-00000";
  spit(file, index.encode());
  const VerifyReport report = verify(archive.folders);
  EXPECT_TRUE(names(report, file, "is not the index that the manifest names")) << text_of(report);
  EXPECT_TRUE(names(report, segment_of(archive, 0), "bytes between blocks are not zero"))
      << text_of(report);
  EXPECT_TRUE(std::any_of(report.bad.begin(), report.bad.end(), [&](const VerifyProblem& bad) {
    return bad.slot == gone.slot;
  })) << text_of(report);
  EXPECT_FALSE(ArchiveReader::open(archive.folders).ok());
}

TEST_F(VerifyTest, NamesStrayFilesAndMissingParts) {
  const SmallArchive archive(memory_, 3, 9, true);
  spit(archive.folders[1] + "/segment-00077", "x");
  spit(archive.folders[1] + "/notes.txt", "x");
  const VerifyReport report = verify({archive.folders[0], archive.folders[1]});
  EXPECT_TRUE(names(report, archive.folders[1] + "/segment-00077", "stray")) << text_of(report);
  EXPECT_TRUE(names(report, archive.folders[1] + "/notes.txt", "stray")) << text_of(report);
  EXPECT_TRUE(names(report, archive.folders[0] + "/manifest", "the part of node n3 is missing"))
      << text_of(report);
  EXPECT_EQ(report.bad.size(), 3u) << text_of(report);
}

TEST_F(VerifyTest, NamesFoldersOfAnotherArchiveOrTheSamePartTwice) {
  const SmallArchive archive(memory_, 2, 10, true);
  const SmallArchive other(memory_, 2, 11, true);
  VerifyReport report = verify({archive.folders[0], other.folders[1]});
  EXPECT_TRUE(names(report, other.folders[1] + "/manifest", "differs")) << text_of(report);
  EXPECT_FALSE(ArchiveReader::open({archive.folders[0], other.folders[1]}).ok());
  report = verify({archive.folders[0], archive.folders[0]});
  EXPECT_TRUE(names(report, archive.folders[0] + "/part", "another directory")) << text_of(report);
  EXPECT_FALSE(ArchiveReader::open({archive.folders[0], archive.folders[0]}).ok());
}

// What the system refuses to read is not known to be damaged; here by links that lead in a circle.
TEST_F(VerifyTest, CallsNothingDamagedThatCannotBeRead) {
  for (const char* name : {"manifest", "part", "index-00000", "segment-00000"}) {
    SCOPED_TRACE(name);
    const SmallArchive archive(memory_, 2, 16, true);
    const std::string file = archive.folders[0] + "/" + name;
    fs::remove(file);
    fs::create_symlink(name, file);
    const VerifyReport report = verify(archive.folders);
    EXPECT_TRUE(report.bad.empty()) << text_of(report);
    ASSERT_EQ(report.unreadable.size(), 1u);
    EXPECT_EQ(report.unreadable[0].file, file);
    EXPECT_NE(report.unreadable[0].reason.find("symbolic links"), std::string::npos)
        << report.unreadable[0].reason;
  }
}

// A part that an older backup of this name left: one problem names it, and the part that should be
// there; its blocks are not held against the other archive's manifest.
TEST_F(VerifyTest, NamesAPartOfAnotherBackup) {
  const SmallArchive archive(memory_, 3, 17, true);
  const SmallArchive older(memory_, 3, 18, true);
  Manifest manifest = older.manifest;
  manifest.identity.backup = "3f0a8c1e-0000-4000-8000-00000000000f";
  spit(older.folders[1] + "/manifest", manifest.encode());
  const VerifyReport report = verify({archive.folders[0], older.folders[1], archive.folders[2]});
  EXPECT_TRUE(names(report, older.folders[1] + "/manifest",
                    "it is of backup nightly (3f0a8c1e-0000-4000-8000-00000000000f)"))
      << text_of(report);
  EXPECT_TRUE(names(report, archive.folders[0] + "/manifest", "the part of node n2 is missing"))
      << text_of(report);
  EXPECT_EQ(report.bad.size(), 2u) << text_of(report);
  // Only the manifest is another one's.
  fs::copy_file(older.folders[1] + "/manifest", archive.folders[1] + "/manifest",
                fs::copy_options::overwrite_existing);
  EXPECT_EQ(verify(archive.folders).bad.size(), 1u);
}

TEST_F(VerifyTest, RefusesFoldersThatCannotBeChecked) {
  ScratchFolder scratch;
  const auto code = [this](const std::string& folder) {
    return verify_archive({folder}, *memory_.arena, nullptr).status().code();
  };
  EXPECT_EQ(code(scratch / "nowhere"), absl::StatusCode::kNotFound);
  fs::create_directories(scratch / "empty");
  EXPECT_EQ(code(scratch / "empty"), absl::StatusCode::kNotFound);
  EXPECT_FALSE(verify_archive({}, *memory_.arena, nullptr).ok());
  ASSERT_TRUE(ArchiveWriter::open(test_options(scratch / "unfinished", "n1")).ok());
  EXPECT_EQ(code(scratch / "unfinished"), absl::StatusCode::kFailedPrecondition);
}

// Writes the right digest at the end of a small file that was tampered with.
void reframe(std::string& bytes) {
  bytes.resize(bytes.size() - 16);
  const Digest128 digest = xxh3_128(bytes);
  ByteWriter out(&bytes);
  put_digest(out, digest);
}

TEST_F(VerifyTest, RefusesFutureFormatVersions) {
  for (const char* name : {"manifest", "part", "index-00000"}) {
    SCOPED_TRACE(name);
    const SmallArchive archive(memory_, 1, 12, true);
    const std::string file = archive.folders[0] + "/" + name;
    std::string bytes = slurp(file);
    bytes[4] = 2;
    reframe(bytes);
    spit(file, bytes);
    const auto report = verify_archive(archive.folders, *memory_.arena, nullptr);
    EXPECT_EQ(report.status().code(), absl::StatusCode::kFailedPrecondition) << report.status();
    EXPECT_NE(message_of(report.status()).find("format version 2"), std::string_view::npos);
    EXPECT_FALSE(ArchiveReader::open(archive.folders).ok());
  }
}

TEST_F(VerifyTest, RefusesUnknownRequiredFeatures) {
  const SmallArchive archive(memory_, 1, 13, true);
  Manifest manifest = archive.manifest;
  manifest.required_features = 4;
  spit(archive.folders[0] + "/manifest", manifest.encode());
  EXPECT_EQ(verify_archive(archive.folders, *memory_.arena, nullptr).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ArchiveReader::open(archive.folders).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// A manifest that is whole and wrong: what is in the blocks decides.
TEST_F(VerifyTest, NamesSlotsThatDoNotMatchTheirDigest) {
  const SmallArchive archive(memory_, 1, 14, true);
  const std::string file = archive.folders[0] + "/manifest";
  const auto store = [&](const Manifest& manifest) {
    spit(file, manifest.encode());
    spit(archive.folders[0] + "/part", manifest.parts[0].encode());
  };
  Manifest manifest = archive.manifest;
  manifest.parts[0].slots[2].digest.sum.low ^= 1;
  store(manifest);
  VerifyReport report = verify(archive.folders);
  EXPECT_TRUE(names(report, file, "slot digest mismatch")) << text_of(report);
  ASSERT_EQ(report.bad.size(), 1u);
  EXPECT_EQ(report.bad[0].slot, manifest.parts[0].slots[2].slot);

  manifest = archive.manifest;
  manifest.newest_stamp = 1;
  store(manifest);
  EXPECT_TRUE(names(verify(archive.folders), segment_of(archive, 0), "newer than the manifest"));

  manifest = archive.manifest;
  const uint32_t gone = manifest.parts[0].slots[1].slot;
  manifest.parts[0].slots.erase(manifest.parts[0].slots.begin() + 1);
  store(manifest);
  report = verify(archive.folders);
  EXPECT_TRUE(names(report, file, "does not name")) << text_of(report);
  EXPECT_EQ(report.bad[0].slot, gone);
  EXPECT_FALSE(ArchiveReader::open(archive.folders).ok());

  // And one slot more than there are blocks of.
  Memory memory;
  ScratchFolder scratch;
  const auto writer = ArchiveWriter::open(test_options(scratch / "a", "n1"));
  ASSERT_TRUE(append_slot(**writer, memory, make_slot(1, 15)).ok());
  PartManifest part = *(*writer)->finish();
  const Manifest honest = manifest_of({part}, (*writer)->newest_stamp());
  ASSERT_TRUE((*writer)->commit(honest).ok());
  part.slots.push_back({5, make_slot(5, 15).digest()});
  spit(scratch / "a/part", part.encode());
  spit(scratch / "a/manifest", manifest_of({part}, honest.newest_stamp).encode());
  report = verify({scratch / "a"});
  EXPECT_TRUE(names(report, scratch / "a/manifest", "missing: no blocks")) << text_of(report);
  EXPECT_FALSE(ArchiveReader::open({scratch / "a"}).ok());
}

}  // namespace
}  // namespace sluice::testing

#include "dataplane/archive/manifest.h"

#include <gtest/gtest.h>

#include "dataplane/archive/frame.h"
#include "dataplane/archive/journal.h"
#include "dataplane/archive/runs.h"
#include "tests/dataplane/archive/small_archive.h"

namespace sluice::testing {
namespace {

PartManifest golden_part(const std::string& node, uint32_t slot) {
  PartManifest part;
  part.node = node;
  part.segments.push_back({0, 8192, 2, 123, {0x1111, 0x2222}});
  part.segments.push_back({2, 4096, 1, 87, {0x3333, 0x4444}});
  part.slots.push_back({slot, {{0x55, 0x66}, 7, 1, 890}});
  part.slots.push_back({slot + 2, {{0x77, 0x88}, 0, 2, 0}});
  return part;
}

Manifest golden_manifest() {
  return manifest_of({golden_part("n1", 0), golden_part("n2", 1)},
                     Version::make_stamp(1'700'000'000'000, 5));
}

SegmentIndex golden_index() {
  SegmentIndex index;
  index.backup = test_identity().backup;
  index.node = "n1";
  index.number = 3;
  index.segment_bytes = 12288;
  index.blocks.push_back({3, 0, 4100, 6, 0, 40, 2, 0x0123456789abcdef});
  index.blocks.push_back({3, 8192, 137, 6, 1, 3, 1, 0xfedcba9876543210});
  return index;
}

void expect_golden(const std::string& name, const std::string& bytes) {
  const std::string path = std::string(SLUICE_GOLDEN) + "/" + name;
  if (!std::filesystem::exists(path)) {
    spit(path, bytes);
    FAIL() << path << " was missing and has been written; look at it before committing it";
  }
  EXPECT_EQ(slurp(path), bytes) << name
                                << ": the format has changed: that needs a new format version";
}

TEST(ArchiveFormat, GoldenFiles) {
  expect_golden("manifest_v1.bin", golden_manifest().encode());
  expect_golden("part_v1.bin", golden_part("n1", 0).encode());
  expect_golden("index_v1.bin", golden_index().encode());

  ScratchFolder scratch;
  const auto plain = [](int fd, const void* data, size_t bytes, off_t at) {
    return pwrite(fd, data, bytes, at);
  };
  const auto journal = Journal::open(scratch / "", test_identity(), "n1", plain);
  ASSERT_TRUE(journal.ok()) << journal.status();
  DurableSlot slot{6, {{0x55, 0x66}, 7, 1, 890}, 99, golden_index().blocks};
  ASSERT_TRUE((*journal)->append({slot}).ok());
  ASSERT_TRUE((*journal)->append_dropped({4, 5}).ok());
  expect_golden("journal_v1.bin", slurp(scratch / "journal"));
}

TEST(ArchiveFormat, GoldenFilesAreStillRead) {
  const std::string golden = SLUICE_GOLDEN;
  const auto manifest = Manifest::decode(slurp(golden + "/manifest_v1.bin"));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->identity, test_identity());
  EXPECT_EQ(manifest->newest_stamp, Version::make_stamp(1'700'000'000'000, 5));
  EXPECT_EQ(manifest->records(), 14u);
  EXPECT_EQ(manifest->bytes(), 1780u);
  ASSERT_EQ(manifest->parts.size(), 2u);
  EXPECT_EQ(manifest->parts[1].encode(), golden_part("n2", 1).encode());
  const auto index = SegmentIndex::decode(slurp(golden + "/index_v1.bin"));
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->blocks, golden_index().blocks);
  EXPECT_EQ(index->number, 3u);
  const auto journal = JournalContent::decode(slurp(golden + "/journal_v1.bin"));
  ASSERT_TRUE(journal.ok()) << journal.status();
  EXPECT_EQ(journal->slots.at(6).blocks, golden_index().blocks);
}

TEST(ArchiveFormat, FileNames) {
  EXPECT_EQ(segment_file(0), "segment-00000");
  EXPECT_EQ(segment_file(123456), "segment-123456");
  EXPECT_EQ(index_file(42), "index-00042");
}

TEST(ArchiveFormat, DamageAndTruncationAreFound) {
  const std::string all[] = {golden_manifest().encode(), golden_part("n1", 0).encode(),
                             golden_index().encode()};
  const auto decode = [](size_t kind, const std::string& bytes) {
    if (kind == 0) return Manifest::decode(bytes).status();
    if (kind == 1) return PartManifest::decode(bytes).status();
    return SegmentIndex::decode(bytes).status();
  };
  for (size_t kind = 0; kind < 3; ++kind) {
    EXPECT_TRUE(decode(kind, all[kind]).ok());
    EXPECT_EQ(decode((kind + 1) % 3, all[kind]).code(), absl::StatusCode::kDataLoss);
    for (size_t at = 0; at < all[kind].size(); ++at) {
      std::string damaged = all[kind];
      damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
      EXPECT_EQ(decode(kind, damaged).code(), absl::StatusCode::kDataLoss);
      EXPECT_EQ(decode(kind, all[kind].substr(0, at)).code(), absl::StatusCode::kDataLoss);
    }
  }
}

absl::StatusCode code_of(const Manifest& manifest) {
  return Manifest::decode(manifest.encode()).status().code();
}

TEST(ArchiveFormat, ImpossibleManifestsAreRefusedThoughTheirDigestHolds) {
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  Manifest manifest = golden_manifest();
  manifest.parts[1].node = "n1";
  EXPECT_EQ(code_of(manifest), kLoss);
  manifest = golden_manifest();
  manifest.parts[1].slots[0].slot = 2;
  manifest.parts[1].slots[1].slot = 3;
  EXPECT_EQ(code_of(manifest), kLoss) << "a slot in two parts";
  manifest = golden_manifest();
  manifest.parts[1].slots[1].slot = 8;
  EXPECT_EQ(code_of(manifest), kLoss) << "a slot beyond the slot bits";
  manifest = golden_manifest();
  std::swap(manifest.parts[0].slots[0], manifest.parts[0].slots[1]);
  EXPECT_EQ(code_of(manifest), kLoss) << "slots out of order";
  manifest = golden_manifest();
  std::swap(manifest.parts[0].segments[0], manifest.parts[0].segments[1]);
  EXPECT_EQ(code_of(manifest), kLoss) << "segments out of order";
  manifest = golden_manifest();
  manifest.parts[0].segments[0].bytes = 8191;
  EXPECT_EQ(code_of(manifest), kLoss) << "a segment of odd length";
  manifest = golden_manifest();
  manifest.parts[0].slots[0].digest = {};
  EXPECT_EQ(code_of(manifest), kLoss) << "a slot without records";
  for (const uint32_t bits : {0u, 21u, ~0u}) {
    manifest = golden_manifest();
    manifest.identity.slot_bits = bits;
    EXPECT_EQ(code_of(manifest), kLoss) << bits;
  }
  manifest = golden_manifest();
  manifest.required_features = 2;
  EXPECT_EQ(code_of(manifest), absl::StatusCode::kFailedPrecondition);
}

TEST(ArchiveFormat, TreesAreNamedBesideTheRecords) {
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  Manifest manifest = golden_manifest();
  const uint64_t records = manifest.records();
  manifest.trees = {{1, "home", "n1"}, {4, "home", "n2"}};
  manifest.parts[1].slots.push_back({tree_slot(4, 7), manifest.parts[1].slots[0].digest});
  const auto read = Manifest::decode(manifest.encode());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->trees, manifest.trees);
  EXPECT_EQ(read->required_features, Manifest::kTrees);
  EXPECT_EQ(read->parts[1].slots.back().slot, tree_slot(4, 7));
  EXPECT_EQ(read->records(), records) << "without those of trees";

  Manifest wrong = manifest;
  wrong.parts[1].slots.back().slot = tree_slot(2, 7);
  EXPECT_EQ(code_of(wrong), kLoss) << "a tree that is not named";
  wrong = manifest;
  wrong.parts[1].slots.back().slot = tree_slot(4, 8);
  EXPECT_EQ(code_of(wrong), kLoss) << "a shard beyond the slot bits";
  wrong = manifest;
  wrong.trees = {{4, "home", "n2"}, {1, "home", "n1"}};
  EXPECT_EQ(code_of(wrong), kLoss) << "trees out of order";
  wrong = manifest;
  wrong.trees = {{0, "home", "n1"}, {4, "home", "n2"}};
  EXPECT_EQ(code_of(wrong), kLoss) << "the number of the records";
  wrong = golden_manifest();
  wrong.required_features = Manifest::kTrees;
  EXPECT_EQ(code_of(wrong), kLoss) << "no trees where there have to be some";
}

TEST(ArchiveFormat, ImpossibleIndexesAreRefusedThoughTheirDigestHolds) {
  const auto refused = [](auto change, const char* why) {
    SegmentIndex index = golden_index();
    change(index);
    EXPECT_EQ(SegmentIndex::decode(index.encode()).status().code(), absl::StatusCode::kDataLoss)
        << why;
  };
  refused([](SegmentIndex& index) { index.blocks[1].offset = 4096; }, "overlap");
  refused([](SegmentIndex& index) { index.blocks[1].offset = 8193; }, "unaligned");
  refused([](SegmentIndex& index) { std::swap(index.blocks[0], index.blocks[1]); }, "order");
  refused([](SegmentIndex& index) { index.blocks[1].bytes = 88; }, "no payload");
  refused([](SegmentIndex& index) { index.blocks[1].bytes = (1 << 20) + 1; }, "too long");
  refused([](SegmentIndex& index) { index.blocks[1].entries = 0; }, "no entries");
  refused([](SegmentIndex& index) { index.segment_bytes = 16384; }, "longer than its blocks");
  refused([](SegmentIndex& index) { index.segment_bytes = 8192; }, "shorter than its blocks");
  refused([](SegmentIndex& index) { index.segment_bytes = ~uint64_t{0} - 4095; }, "overflow");
  refused([](SegmentIndex& index) { index.blocks.clear(); }, "no blocks");
}

TEST(ArchiveFormat, RunsAreOrderedAndBrokenOnesRefused) {
  const auto block = [](uint64_t offset, uint32_t slot, uint32_t sequence, uint32_t flags) {
    return BlockLocation{0, offset, 100, slot, sequence, 1, flags, offset};
  };
  const std::vector<BlockLocation> good{
      block(0, 1, 0, BlockHeader::kContinues), block(4096, 2, 0, 0),
      block(8192, 1, 1, BlockHeader::kContinued), block(12288, 1, 2, 0)};
  const auto ordered = order_runs(good);
  ASSERT_TRUE(ordered.ok());
  EXPECT_EQ(*ordered, (std::vector<BlockLocation>{good[0], good[2], good[1], good[3]}));
  for (size_t i = 0; i < 3; ++i) {
    auto bad = good;
    bad.erase(bad.begin() + static_cast<std::ptrdiff_t>(i));
    // Without the only block of slot 2 the rest is whole; that the slot is missing is not its
    // matter.
    EXPECT_EQ(order_runs(bad).ok(), i == 1) << i;
  }
  auto bad = good;
  bad[2].sequence = 2;
  EXPECT_FALSE(order_runs(bad).ok());
  bad = good;
  bad[3].flags = BlockHeader::kContinues;
  EXPECT_FALSE(order_runs(bad).ok());
  bad = good;
  bad[1].flags = BlockHeader::kContinued;
  EXPECT_FALSE(order_runs(bad).ok());
}

}  // namespace
}  // namespace sluice::testing

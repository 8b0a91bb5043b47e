// Flips single bits of archives at random and asks the readers that ship: damage is named, or what
// is read is right. SLUICE_ROUNDS=N: that many flips; each failure names the seed of its flip.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/random.h"
#include "tests/dataplane/archive/small_archive.h"

namespace sluice::testing {
namespace {

uint64_t rounds(uint64_t usual) {
  const char* set = std::getenv("SLUICE_ROUNDS");
  return set == nullptr ? usual : std::strtoull(set, nullptr, 10);
}

struct Flip {
  std::string file;
  uint64_t at;
  char mask;
};

// Flips the bit, and flips it back at its end.
class Flipped {
 public:
  explicit Flipped(const Flip& flip)
      : flip_(flip), file_(flip.file, std::ios::binary | std::ios::in | std::ios::out) {
    turn();
  }
  ~Flipped() { turn(); }
  Flipped(const Flipped&) = delete;
  Flipped& operator=(const Flipped&) = delete;

 private:
  void turn() {
    char byte = 0;
    file_.seekg(static_cast<std::streamoff>(flip_.at)).get(byte);
    file_.seekp(static_cast<std::streamoff>(flip_.at))
        .put(static_cast<char>(byte ^ flip_.mask))
        .flush();
  }
  const Flip flip_;
  std::fstream file_;
};

// Where each byte of an archive's files is.
class Files {
 public:
  explicit Files(const std::vector<std::string>& files) {
    for (const std::string& file : files) {
      total_ += std::filesystem::file_size(file);
      ends_.emplace(total_, file);
    }
  }
  Flip draw(Random& random) const {
    const uint64_t place = random.below(total_);
    const auto found = ends_.upper_bound(place);
    const uint64_t size = std::filesystem::file_size(found->second);
    return {found->second, place - (found->first - size), static_cast<char>(1 << random.below(8))};
  }

 private:
  uint64_t total_ = 0;
  std::map<uint64_t, std::string> ends_;
};

class FlippedArchive : public ::testing::Test {
 protected:
  // The block, padding included, that has the byte.
  static std::pair<size_t, BlockLocation> block_at(const ArchiveReader& reader, const Flip& flip) {
    for (size_t part = 0; part < reader.parts().size(); ++part) {
      for (const BlockLocation& block : reader.parts()[part].blocks) {
        if (reader.parts()[part].folder + "/" + segment_file(block.segment) == flip.file &&
            flip.at >= block.offset && flip.at < block.offset + padded(block.bytes)) {
          return {part, block};
        }
      }
    }
    ADD_FAILURE() << "byte " << flip.at << " of " << flip.file << " is in no block";
    return {};
  }

  Memory memory_;
  const SmallArchive archive_{memory_, 2, 7, true, 200};
};

TEST_F(FlippedArchive, EachBitIsMissedByReadersOfItsBlockOrFile) {
  const Files files(archive_.files());
  const auto whole = ArchiveReader::open(archive_.folders);
  ASSERT_TRUE(whole.ok()) << whole.status();
  BlockBuffer buffer = memory_.pool->take(1000);
  const uint64_t first = rounds(0) == 0 ? 1 : entropy();
  for (uint64_t seed = first; seed < first + rounds(3000); ++seed) {
    Random random(seed);
    const Flip flip = files.draw(random);
    const Flipped flipped(flip);
    if (flip.file.find("segment-") == std::string::npos) {
      EXPECT_FALSE(ArchiveReader::open(archive_.folders).ok()) << "seed " << seed;
      continue;
    }
    const auto [part, block] = block_at(**whole, flip);
    EXPECT_TRUE(absl::IsDataLoss((*whole)->read_block(part, block, buffer.span())))
        << "seed " << seed << ", byte " << flip.at << " of " << flip.file;
  }
  buffer.reset();
  expect_holds(archive_.folders, archive_.slots, memory_);
}

TEST_F(FlippedArchive, AVerificationNamesTheFileOfEachBit) {
  const Files files(archive_.files());
  const uint64_t first = rounds(0) == 0 ? 1 : entropy();
  for (uint64_t seed = first; seed < first + rounds(3000) / 50; ++seed) {
    Random random(seed);
    const Flip flip = files.draw(random);
    const Flipped flipped(flip);
    const auto report = verify_archive(archive_.folders, *memory_.arena, nullptr);
    ASSERT_TRUE(report.ok()) << report.status() << ", seed " << seed;
    EXPECT_TRUE(std::any_of(report->bad.begin(), report->bad.end(),
                            [&](const VerifyProblem& bad) { return bad.file == flip.file; }))
        << "seed " << seed << ", byte " << flip.at << " of " << flip.file;
  }
}

// A part that is resumed after a flip in its journal holds what the slots' digests say, or is
// refused: entries behind a damaged one are written again.
TEST(FlippedJournal, EachBitIsRefusedOrItsSlotsAreWrittenAgain) {
  Memory memory;
  std::vector<TestSlot> slots;
  for (uint32_t slot = 0; slot < 1 << kTestSlotBits; ++slot) slots.push_back(make_slot(slot, 9));
  const ScratchFolder scratch(true);
  {
    const auto writer = ArchiveWriter::open(test_options(scratch / "begun", "n1"));
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (uint32_t slot = 0; slot < 6; ++slot) {
      ASSERT_TRUE(append_slot(**writer, memory, slots[slot]).ok());
      ASSERT_TRUE((*writer)->sync().ok());
    }
  }
  const std::string journal = slurp(scratch / "begun/journal");
  ASSERT_FALSE(journal.empty());
  size_t refused = 0;
  size_t resumed = 0;
  for (size_t at = 0; at < journal.size(); ++at) {
    const std::string folder = scratch / "resumed";
    std::filesystem::remove_all(folder);
    std::filesystem::copy(scratch / "begun", folder, std::filesystem::copy_options::recursive);
    std::string damaged = journal;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (Random::mix(at) % 8)));
    spit(folder + "/journal", damaged);
    const auto writer = ArchiveWriter::open(test_options(folder, "n1"));
    if (!writer.ok()) {
      ++refused;
      continue;
    }
    ++resumed;
    std::map<uint32_t, SlotDigest> durable = (*writer)->durable_at_open();
    uint64_t newest = 0;
    for (const TestSlot& slot : slots) {
      newest = std::max(newest, slot.newest_stamp());
      if (durable.contains(slot.slot)) {
        ASSERT_EQ(durable[slot.slot], slot.digest()) << "byte " << at;
        continue;
      }
      ASSERT_TRUE(append_slot(**writer, memory, slot).ok()) << "byte " << at;
    }
    const auto part = (*writer)->finish();
    ASSERT_TRUE(part.ok()) << part.status() << ", byte " << at;
    ASSERT_TRUE((*writer)->commit(manifest_of({*part}, newest)).ok()) << "byte " << at;
    expect_holds({folder}, slots, memory);
    if (HasFailure()) FAIL() << "byte " << at << " of the journal";
  }
  RecordProperty("refused", std::to_string(refused));
  EXPECT_GT(refused, 0U);
  EXPECT_GT(resumed, 0U);
}

}  // namespace
}  // namespace sluice::testing

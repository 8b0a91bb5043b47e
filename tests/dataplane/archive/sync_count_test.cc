// What a part costs the disk: exact counts, which do not depend on the machine.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "dataplane/archive/writer.h"
#include "tests/dataplane/archive/small_archive.h"

namespace {
std::atomic<int> syncs{0};
}  // namespace

// In place of the C library's, for all of this program.
extern "C" int fsync(int fd) {
  ++syncs;
  return static_cast<int>(::syscall(SYS_fsync, fd));
}
extern "C" int fdatasync(int fd) {
  ++syncs;
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

namespace sluice::testing {
namespace {

int since_last() { return syncs.exchange(0); }

TEST(ArchiveSyncs, OfAPartAreAFewHoweverManySlotsItHas) {
  for (const uint32_t slots : {1u, 8u}) {
    Memory memory;
    ScratchFolder scratch;
    since_last();
    auto options = test_options(scratch / "a", "n1");
    options.segment_bytes = 1 << 20;
    auto writer = ArchiveWriter::open(options);
    ASSERT_TRUE(writer.ok()) << writer.status();
    // The archive directory's name, which a killed process may have left unsynced; the journal's
    // file and the part's directory's name; the journal's name.
    EXPECT_EQ(since_last(), 4);
    uint64_t newest = 0;
    for (uint32_t slot = 0; slot < slots; ++slot) {
      const TestSlot made = make_slot(slot, 3, 500);
      ASSERT_TRUE(append_slot(**writer, memory, made).ok());
      newest = std::max(newest, made.newest_stamp());
    }
    EXPECT_EQ(since_last(), 0);
    ASSERT_EQ((*writer)->sync()->size(), slots);
    // The segment and its name; the journal's entry.
    EXPECT_EQ(since_last(), 3);
    const auto part = (*writer)->finish();
    ASSERT_TRUE(part.ok()) << part.status();
    // Index and part; their names. The segment is as it was synced.
    EXPECT_EQ(since_last(), 3);
    ASSERT_TRUE((*writer)->commit(manifest_of({*part}, newest)).ok());
    // The manifest, its name.
    EXPECT_EQ(since_last(), 2);
  }
}

// What a dropped slot left has to be cleared, and that to be durable, before the part is.
TEST(ArchiveSyncs, ASegmentThatWasNotWrittenStraightOnIsSyncedOnceMore) {
  Memory memory;
  ScratchFolder scratch;
  auto writer = ArchiveWriter::open(test_options(scratch / "a", "n1"));
  ASSERT_TRUE(writer.ok()) << writer.status();
  const TestSlot given_up = make_slot(1, 3, 500);
  for (const std::string& block : given_up.blocks) {
    ASSERT_TRUE((*writer)->append(memory.load(block), static_cast<uint32_t>(block.size())).ok());
  }
  (*writer)->drop_slot(1);
  ASSERT_TRUE(append_slot(**writer, memory, make_slot(2, 3, 500)).ok());
  ASSERT_TRUE((*writer)->sync().ok());
  since_last();
  ASSERT_TRUE((*writer)->finish().ok());
  EXPECT_EQ(since_last(), 4);
}

}  // namespace
}  // namespace sluice::testing

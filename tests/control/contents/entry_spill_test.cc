#include "control/contents/entry_spill.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

// Runs of a few hundred bytes, so that entries come back in pieces.
TEST(EntrySpill, HandsEntriesBackSortedAndWhole) {
  for (const size_t run_bytes : {size_t{300}, size_t{1} << 26}) {
    Random random(run_bytes);
    EntrySpill spill(run_bytes);
    std::map<std::string, std::vector<BackupEntry>> expected;
    for (uint64_t i = 0; i < 3000; ++i) {
      BackupEntry entry;
      entry.path = std::to_string(random.below(2000)) + std::string(random.below(40), '\n');
      entry.type = static_cast<EntryType>(random.below(kEntryTypes));
      entry.size = i;
      entry.node = "n" + std::to_string(i % 3);
      entry.target = std::string(random.below(30), 't');
      ASSERT_TRUE(spill.add(i % 2, entry).ok());
      expected[entry.path].push_back(entry);
    }
    std::vector<BackupEntry> wanted;
    for (const auto& [path, entries] : expected) {
      wanted.insert(wanted.end(), entries.begin(), entries.end());
    }
    size_t at = 0;
    const absl::Status status = spill.drain([&](uint8_t side, const BackupEntry& entry) {
      if (at == wanted.size()) return internal_error("too many");
      const BackupEntry& each = wanted[at++];
      EXPECT_EQ(side, each.size % 2);
      EXPECT_EQ(entry.path, each.path);
      EXPECT_EQ(entry.type, each.type);
      EXPECT_EQ(entry.size, each.size);
      EXPECT_EQ(entry.node, each.node);
      EXPECT_EQ(entry.target, each.target);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(at, wanted.size());
  }
}

TEST(EntrySpill, EndsWithTheErrorOfItsCaller) {
  EntrySpill spill;
  ASSERT_TRUE(spill.add(0, BackupEntry()).ok());
  const absl::Status status =
      spill.drain([](uint8_t, const BackupEntry&) { return aborted("no more"); });
  EXPECT_EQ(status.message(), "no more");
}

}  // namespace
}  // namespace sluice

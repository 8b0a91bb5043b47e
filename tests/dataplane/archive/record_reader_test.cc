#include "dataplane/archive/record_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/dataplane/archive/small_archive.h"

namespace sluice::testing {
namespace {

using ::testing::HasSubstr;

class RecordReaderTest : public ::testing::Test {
 protected:
  void open(const std::vector<std::string>& folders) {
    auto archive = ArchiveReader::open(folders);
    ASSERT_TRUE(archive.ok()) << archive.status();
    archive_ = *std::move(archive);
    auto reader = RecordReader::open(*archive_);
    ASSERT_TRUE(reader.ok()) << reader.status();
    reader_ = *std::move(reader);
  }
  absl::StatusOr<std::vector<Record>> scan(const RecordScan& scan) {
    std::vector<Record> records;
    SLUICE_RETURN_IF_ERROR(reader_->scan(scan, [&](const ArchivedRecord& record) {
      EXPECT_EQ(archive_->parts()[record.part].node,
                fmt::format("n{}", record.slot % archive_->parts().size() + 1));
      records.push_back({std::string(record.key), std::string(record.value), record.summary.version,
                         record.summary.tombstone});
      if (record.summary.value_bytes <= scan.value_bytes) {
        EXPECT_EQ(record.summary, records.back().view().summary());
      } else {
        EXPECT_EQ(record.value, "");
      }
      return absl::OkStatus();
    }));
    return records;
  }
  absl::StatusOr<std::optional<Record>> read(std::string_view key) {
    Record record;
    SLUICE_ASSIGN_OR_RETURN(const auto found, reader_->read(key, [&](const BlockEntry& entry) {
      EXPECT_EQ(entry.fragment_offset, record.value.size());
      record.key = entry.key;
      record.value.append(entry.fragment);
      record.version = entry.version;
      record.tombstone = entry.tombstone;
      return absl::OkStatus();
    }));
    if (!found.has_value()) return std::nullopt;
    EXPECT_EQ(*found, record.view().summary());
    return record;
  }
  static std::vector<Record> all(const SmallArchive& archive) {
    std::vector<Record> records;
    for (const TestSlot& slot : archive.slots) {
      records.insert(records.end(), slot.records.begin(), slot.records.end());
    }
    return records;
  }
  static std::vector<std::string> keys_of(const std::vector<Record>& records) {
    std::vector<std::string> keys;
    for (const Record& record : records) keys.push_back(record.key);
    return keys;
  }

  Memory memory_;
  std::unique_ptr<ArchiveReader> archive_;
  std::unique_ptr<RecordReader> reader_;
};

void expect_same(const std::vector<Record>& got, const std::vector<Record>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].key, wanted[i].key);
    EXPECT_EQ(got[i].view().summary(), wanted[i].view().summary());
  }
}

TEST_F(RecordReaderTest, ScansEveryRecordOfEveryPart) {
  const SmallArchive archive(memory_, 3, 1, true, 40);
  open(archive.folders);
  const auto records = scan({.value_bytes = kMaxValueBytes});
  ASSERT_TRUE(records.ok()) << records.status();
  expect_same(*records, all(archive));
}

TEST_F(RecordReaderTest, HandsOutNoValueBeyondTheLimit) {
  const SmallArchive archive(memory_, 2, 2, true);
  open(archive.folders);
  const auto records = scan({.value_bytes = 700});
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_EQ(keys_of(*records), keys_of(all(archive)));
}

TEST_F(RecordReaderTest, ScansSomeSlotsAndKeysFromAPlaceOn) {
  const SmallArchive archive(memory_, 2, 3, true, 40);
  open(archive.folders);
  const std::vector<Record>& third = archive.slots[3].records;
  RecordScan scan_some;
  scan_some.first_slot = 3;
  scan_some.after = third[third.size() / 2].key;
  scan_some.has = [](uint32_t slot) { return slot != 5; };
  scan_some.takes = [](std::string_view key) { return key.starts_with("k"); };
  scan_some.value_bytes = kMaxValueBytes;
  std::vector<Record> wanted;
  for (const TestSlot& slot : archive.slots) {
    if (slot.slot < 3 || slot.slot == 5) continue;
    for (const Record& record : slot.records) {
      if (!record.key.starts_with("k")) continue;
      if (slot.slot == 3 && record.key <= scan_some.after) continue;
      wanted.push_back(record);
    }
  }
  const auto records = scan(scan_some);
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_FALSE(wanted.empty());
  expect_same(*records, wanted);
}

TEST_F(RecordReaderTest, ReadsEachKeyAndNoOther) {
  const SmallArchive archive(memory_, 2, 4, true, 40);
  open(archive.folders);
  for (const Record& record : all(archive)) {
    const auto found = read(record.key);
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_TRUE(found->has_value());
    EXPECT_EQ((*found)->key, record.key);
    EXPECT_EQ((*found)->view().summary(), record.view().summary());
    for (const std::string& other : {record.key + "x", record.key.substr(1) + "y"}) {
      const auto none = read(other);
      ASSERT_TRUE(none.ok()) << none.status();
      EXPECT_FALSE(none->has_value());
    }
  }
}

TEST_F(RecordReaderTest, HasNothingOfAPartThatIsNotThere) {
  const SmallArchive archive(memory_, 2, 5, true);
  open({archive.folders[0]});
  const auto other = read(archive.slots[1].records[0].key);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_FALSE(other->has_value());
  const auto own = read(archive.slots[2].records[0].key);
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_TRUE(own->has_value());
}

TEST_F(RecordReaderTest, EndsWithTheErrorOfItsCaller) {
  const SmallArchive archive(memory_, 1, 6, true);
  open(archive.folders);
  const auto refuse = [](const auto&) { return aborted("no more"); };
  EXPECT_EQ(reader_->scan({}, refuse).message(), "no more");
  EXPECT_EQ(reader_->read(archive.slots[0].records[0].key, refuse).status().message(), "no more");
  RecordScan stopped;
  stopped.before_block = [](uint32_t) { return cancelled("stop"); };
  EXPECT_EQ(scan(stopped).status().message(), "stop");
}

TEST_F(RecordReaderTest, NamesTheDamagedBlock) {
  const SmallArchive archive(memory_, 1, 7, true);
  open(archive.folders);
  const BlockLocation location = archive_->parts()[0].blocks[2];
  const std::string path = archive.folders[0] + "/" + segment_file(location.segment);
  std::string bytes = slurp(path);
  bytes[location.offset + location.bytes / 2] ^= 1;
  spit(path, bytes);
  const std::string place = fmt::format("{} at {}, slot {}", path, location.offset, location.slot);
  const absl::Status scanned = scan({}).status();
  EXPECT_EQ(scanned.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(scanned.message()), HasSubstr(place));
  size_t failed = 0;
  for (const Record& record : archive.slots[location.slot].records) {
    const auto found = read(record.key);
    if (found.ok()) continue;
    ++failed;
    EXPECT_EQ(found.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(found.status().message()), HasSubstr(place));
  }
  EXPECT_GT(failed, 0U);
  for (const TestSlot& slot : archive.slots) {
    if (slot.slot == location.slot) continue;
    EXPECT_TRUE(read(slot.records[0].key).ok());
  }
}

TEST_F(RecordReaderTest, SkipsDamageWhereThatIsAskedFor) {
  const SmallArchive archive(memory_, 1, 7, true);
  open(archive.folders);
  const BlockLocation location = archive_->parts()[0].blocks[2];
  const std::string path = archive.folders[0] + "/" + segment_file(location.segment);
  std::string bytes = slurp(path);
  bytes[location.offset + location.bytes / 2] ^= 1;
  spit(path, bytes);
  std::vector<std::string> wanted;
  for (const std::string& key : keys_of(all(archive))) {
    if (read(key).ok()) wanted.push_back(key);
  }
  std::vector<std::string> damage;
  RecordScan skipping;
  skipping.value_bytes = kMaxValueBytes;
  skipping.skip_damage = [&](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    damage.emplace_back(message_of(status));
  };
  const auto scanned = scan(skipping);
  ASSERT_TRUE(scanned.ok()) << scanned.status();
  EXPECT_EQ(keys_of(*scanned), wanted);
  ASSERT_EQ(damage.size(), 1U);
  EXPECT_THAT(damage[0],
              HasSubstr(fmt::format("{} at {}, slot {}", path, location.offset, location.slot)));
}

// One part with one slot, made of the given blocks.
struct OneSlot {
  ScratchFolder scratch{true};
  std::string folder = scratch / "p1";
  OneSlot(Memory& memory, const TestSlot& slot, const SlotDigest& digest) {
    auto writer = *ArchiveWriter::open(test_options(folder, "n1"));
    for (const std::string& block : slot.blocks) {
      EXPECT_TRUE(writer->append(memory.load(block), static_cast<uint32_t>(block.size())).ok());
    }
    EXPECT_TRUE(writer->finish_slot(slot.slot, digest, slot.newest_stamp()).ok());
    const PartManifest part = *writer->finish();
    EXPECT_TRUE(writer->commit(manifest_of({part}, slot.newest_stamp())).ok());
  }
};

TEST_F(RecordReaderTest, RefusesASlotThatIsNotTheManifests) {
  const TestSlot slot = make_slot(2, 8);
  SlotDigest digest = slot.digest();
  ++digest.records;
  const OneSlot one(memory_, slot, digest);
  open({one.folder});
  const absl::Status scanned = scan({}).status();
  EXPECT_EQ(scanned.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(scanned.message()),
              HasSubstr("slot 2: the slot does not have the digest"));
}

TEST_F(RecordReaderTest, RefusesBlocksThatAreNotInOrder) {
  TestSlot slot = make_slot(2, 9, 1500, 40);
  ASSERT_GT(slot.blocks.size(), 2U);
  std::reverse(slot.blocks.begin(), slot.blocks.end());
  const OneSlot one(memory_, slot, slot.digest());
  auto archive = ArchiveReader::open({one.folder});
  ASSERT_TRUE(archive.ok()) << archive.status();
  archive_ = *std::move(archive);
  reader_ = *RecordReader::open(*archive_);
  const absl::Status scanned = scan({}).status();
  EXPECT_EQ(scanned.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(scanned.message()), HasSubstr("slot 2: keys are not in order"));
}

}  // namespace
}  // namespace sluice::testing

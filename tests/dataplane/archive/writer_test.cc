#include "dataplane/archive/writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "dataplane/archive/journal.h"
#include "dataplane/archive/part_identity.h"
#include "tests/dataplane/archive/small_archive.h"

namespace sluice::testing {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<ArchiveWriter> open_writer(const ArchiveWriter::Options& options) {
  auto writer = ArchiveWriter::open(options);
  EXPECT_TRUE(writer.ok()) << writer.status();
  return writer.ok() ? *std::move(writer) : nullptr;
}

// Writes what is not durable yet, and commits.
void complete(const ArchiveWriter::Options& options, const std::vector<TestSlot>& slots,
              Memory& memory) {
  const auto writer = open_writer(options);
  ASSERT_NE(writer, nullptr);
  uint64_t newest = 0;
  for (const TestSlot& slot : slots) {
    newest = std::max(newest, slot.newest_stamp());
    const auto durable = writer->durable_at_open().find(slot.slot);
    if (durable != writer->durable_at_open().end()) {
      ASSERT_EQ(durable->second, slot.digest());
      continue;
    }
    ASSERT_TRUE(append_slot(*writer, memory, slot).ok());
  }
  const auto part = writer->finish();
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(writer->newest_stamp(), newest);
  const absl::Status committed = writer->commit(manifest_of({*part}, newest));
  ASSERT_TRUE(committed.ok()) << committed;
}

std::vector<TestSlot> some_slots(uint64_t seed, size_t count = 6) {
  std::vector<TestSlot> slots;
  for (uint32_t slot = 0; slot < count; ++slot) {
    slots.push_back(make_slot(slot, seed, slot == 2 ? 20'000 : 1500));
  }
  return slots;
}

TEST(ArchiveWriter, WritesWhatTheReaderReads) {
  Memory memory;
  const SmallArchive archive(memory, 3, 1, false);
  expect_holds(archive.folders, archive.slots, memory);
  const auto reader = ArchiveReader::open(archive.folders);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE((*reader)->missing_parts().empty());
  uint64_t records = 0;
  for (const TestSlot& slot : archive.slots) records += slot.digest().records;
  EXPECT_EQ((*reader)->manifest().records(), records);
  EXPECT_FALSE(fs::exists(archive.folders[0] + "/journal"));
  const auto one = ArchiveReader::open({archive.folders[1]});
  ASSERT_TRUE(one.ok());
  EXPECT_EQ((*one)->missing_parts(), (std::vector<std::string>{"n1", "n3"}));
}

TEST(ArchiveWriter, RunsAreContiguousThoughSlotsInterleave) {
  Memory memory;
  ScratchFolder scratch;
  auto options = test_options(scratch / "a", "n1");
  const std::vector<TestSlot> slots{make_slot(0, 5, 40'000), make_slot(1, 5, 40'000)};
  const auto writer = open_writer(options);
  for (size_t i = 0; i < std::max(slots[0].blocks.size(), slots[1].blocks.size()); ++i) {
    for (const TestSlot& slot : slots) {
      if (i >= slot.blocks.size()) continue;
      const std::string& block = slot.blocks[i];
      ASSERT_TRUE(writer->append(memory.load(block), static_cast<uint32_t>(block.size())).ok());
    }
  }
  uint64_t newest = 0;
  for (const TestSlot& slot : slots) {
    ASSERT_TRUE(writer->finish_slot(slot.slot, slot.digest(), slot.newest_stamp()).ok());
    newest = std::max(newest, slot.newest_stamp());
  }
  const auto part = writer->finish();
  ASSERT_TRUE(part.ok());
  ASSERT_TRUE(writer->commit(manifest_of({*part}, newest)).ok());
  expect_holds({options.folder}, slots, memory);
  const auto reader = ArchiveReader::open({options.folder});
  ASSERT_TRUE(reader.ok());
  bool continues = false;
  uint32_t slot = 0;
  size_t runs = 0;
  for (const BlockLocation& block : (*reader)->parts()[0].blocks) {
    ASSERT_EQ((block.flags & BlockHeader::kContinued) != 0, continues);
    if (continues) {
      ASSERT_EQ(block.slot, slot);
    }
    continues = (block.flags & BlockHeader::kContinues) != 0;
    slot = block.slot;
    runs += continues ? 1 : 0;
  }
  EXPECT_GT(runs, 2u);
}

TEST(ArchiveWriter, ManyThreadsAppendWhileOneSyncs) {
  Memory memory;
  ScratchFolder scratch;
  auto options = test_options(scratch / "a", "n1");
  std::vector<TestSlot> slots;
  for (uint32_t slot = 0; slot < 8; ++slot) slots.push_back(make_slot(slot, 9, 20'000, 40));
  const auto writer = open_writer(options);
  std::atomic<size_t> appended{0};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (size_t slot = i; slot < slots.size(); slot += 4) {
        EXPECT_TRUE(append_slot(*writer, memory, slots[slot]).ok());
        ++appended;
      }
    });
  }
  std::vector<uint32_t> durable;
  while (durable.size() < slots.size()) {
    const bool all = appended == slots.size();
    const auto more = writer->sync();
    ASSERT_TRUE(more.ok()) << more.status();
    durable.insert(durable.end(), more->begin(), more->end());
    if (all) break;
    std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  std::sort(durable.begin(), durable.end());
  EXPECT_EQ(durable, (std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_TRUE(writer->sync()->empty());
  const auto part = writer->finish();
  ASSERT_TRUE(part.ok());
  ASSERT_TRUE(writer->commit(manifest_of({*part}, writer->newest_stamp())).ok());
  expect_holds({options.folder}, slots, memory);
}

// Copies the folder after each step, as a crash would leave it, and goes on from each copy.
TEST(ArchiveWriter, ResumesFromACrashAfterAnyStep) {
  Memory memory;
  ScratchFolder scratch(true);
  const auto slots = some_slots(3);
  const auto options = test_options(scratch / "a", "n1");
  std::vector<std::pair<std::string, size_t>> copies;  // and how many slots must be durable there
  size_t durable = 0;
  const auto snapshot = [&] {
    const std::string copy = scratch / fmt::format("copy{}", copies.size());
    fs::copy(options.folder, copy);
    copies.emplace_back(copy, durable);
  };
  {
    const auto writer = open_writer(options);
    snapshot();
    for (size_t i = 0; i < slots.size(); ++i) {
      for (const std::string& block : slots[i].blocks) {
        ASSERT_TRUE(writer->append(memory.load(block), static_cast<uint32_t>(block.size())).ok());
        snapshot();
      }
      ASSERT_TRUE(
          writer->finish_slot(slots[i].slot, slots[i].digest(), slots[i].newest_stamp()).ok());
      snapshot();
      if (i % 2 == 1) {
        ASSERT_EQ(writer->sync()->size(), 2u);
        durable = i + 1;
        snapshot();
      }
    }
    const auto part = writer->finish();
    ASSERT_TRUE(part.ok());
    snapshot();
  }
  for (const auto& [copy, expected] : copies) {
    SCOPED_TRACE(copy);
    auto resumed = test_options(copy, "n1");
    ASSERT_EQ(open_writer(resumed)->durable_at_open().size(), expected);
    complete(resumed, slots, memory);
    expect_holds({copy}, slots, memory);
  }
}

TEST(ArchiveWriter, ResumesFromATornJournalOfAnyLength) {
  Memory memory;
  ScratchFolder scratch(true);
  const auto slots = some_slots(4, 3);
  const auto options = test_options(scratch / "a", "n1");
  size_t header = 0;
  {
    const auto writer = open_writer(options);
    header = fs::file_size(options.folder + "/journal");
    for (const TestSlot& slot : slots) {
      ASSERT_TRUE(append_slot(*writer, memory, slot).ok());
      ASSERT_TRUE(writer->sync().ok());
    }
  }
  const std::string journal = slurp(options.folder + "/journal");
  size_t most = 0;
  for (size_t size = header; size < journal.size(); size += 7) {
    SCOPED_TRACE(size);
    const std::string copy = scratch / fmt::format("copy{}", size);
    fs::copy(options.folder, copy);
    // Torn in two ways: cut, and with garbage where the rest should be.
    std::string torn = journal.substr(0, size);
    if (size % 2 == 0) torn += std::string(journal.size() - size, '\x5a');
    spit(copy + "/journal", torn);
    const auto resumed = test_options(copy, "n1");
    const size_t durable = open_writer(resumed)->durable_at_open().size();
    EXPECT_GE(durable, most);
    EXPECT_LT(durable, slots.size());
    most = std::max(most, durable);
    complete(resumed, slots, memory);
    expect_holds({copy}, slots, memory);
    fs::remove_all(copy);
  }
  EXPECT_EQ(most, slots.size() - 1);
}

// Otherwise the entries behind it were taken for a part of it when the journal is read once more:
// what is durable would be lost, and slots that were dropped would come back with others' blocks.
TEST(ArchiveWriter, EntriesBehindATornOneCount) {
  Memory memory;
  ScratchFolder scratch;
  const auto slots = some_slots(14);
  const auto options = test_options(scratch / "a", "n1");
  {
    const auto writer = open_writer(options);
    for (size_t i = 0; i < 3; ++i) {
      ASSERT_TRUE(append_slot(*writer, memory, slots[i]).ok());
      ASSERT_TRUE(writer->sync().ok());
    }
  }
  const std::string journal = options.folder + "/journal";
  fs::resize_file(journal, fs::file_size(journal) - 5);
  {
    const auto writer = open_writer(options);
    ASSERT_EQ(writer->durable_at_open().size(), 2u);
    ASSERT_TRUE(append_slot(*writer, memory, slots[3]).ok());
    ASSERT_TRUE(writer->sync().ok());
  }
  {
    auto without_first = options;
    without_first.planned.emplace();
    for (size_t i = 1; i < slots.size(); ++i) without_first.planned->insert(slots[i].slot);
    EXPECT_EQ(open_writer(without_first)->durable_at_open().size(), 2u);
  }
  const auto durable = open_writer(options)->durable_at_open();
  EXPECT_EQ(durable.size(), 2u);
  EXPECT_TRUE(durable.contains(slots[1].slot));
  EXPECT_TRUE(durable.contains(slots[3].slot));
  complete(options, slots, memory);
  expect_holds({options.folder}, slots, memory);
}

TEST(ArchiveWriter, SlotsWhoseBlocksAreGoneAreWrittenAgain) {
  Memory memory;
  ScratchFolder scratch;
  const auto slots = some_slots(5);
  const auto options = test_options(scratch / "a", "n1");
  {
    const auto writer = open_writer(options);
    for (const TestSlot& slot : slots) ASSERT_TRUE(append_slot(*writer, memory, slot).ok());
    ASSERT_EQ(writer->sync()->size(), slots.size());
  }
  const std::string segment = options.folder + "/segment-00001";
  fs::resize_file(segment, fs::file_size(segment) - 5000);
  const size_t left = open_writer(options)->durable_at_open().size();
  EXPECT_LT(left, slots.size());
  EXPECT_GT(left, 0u);
  // Recorded: space used again is not taken for the lost slots' any more.
  EXPECT_EQ(open_writer(options)->durable_at_open().size(), left);
  complete(options, slots, memory);
  expect_holds({options.folder}, slots, memory);
}

TEST(ArchiveWriter, AFullDiskIsNamedAndTheArchiveStaysResumable) {
  const auto slots = some_slots(6);
  Memory memory;
  size_t failures = 0;
  for (uint64_t room = 0; room < 120'000; room += 9'001) {
    SCOPED_TRACE(room);
    ScratchFolder scratch(true);
    auto options = test_options(scratch / "a", "n1");
    uint64_t left = room;
    options.write = [&left](int fd, const void* data, size_t bytes, off_t offset) -> ssize_t {
      if (left == 0) {
        errno = ENOSPC;
        return -1;
      }
      const size_t some = std::min<size_t>(bytes, left);
      left -= some;
      return pwrite(fd, data, some, offset);
    };
    {
      const auto writer = open_writer(options);
      absl::Status status;
      for (const TestSlot& slot : slots) {
        if (status.ok()) status = append_slot(*writer, memory, slot);
        if (status.ok()) status = writer->sync().status();
      }
      if (!status.ok()) {
        ++failures;
        EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
        EXPECT_NE(message_of(status).find(options.folder), std::string_view::npos) << status;
        EXPECT_EQ(writer->sync().status(), status);
        EXPECT_EQ(writer->finish().status(), status);
      }
    }
    options.write = nullptr;
    complete(options, slots, memory);
    expect_holds({options.folder}, slots, memory);
  }
  EXPECT_GT(failures, 5u);
}

TEST(ArchiveWriter, ShortAndInterruptedWritesAreContinued) {
  Memory memory;
  ScratchFolder scratch(true);
  const auto slots = some_slots(7);
  auto options = test_options(scratch / "a", "n1");
  Random random(7);
  options.write = [&random](int fd, const void* data, size_t bytes, off_t offset) -> ssize_t {
    if (random.chance(0.3)) {
      errno = EINTR;
      return -1;
    }
    return pwrite(fd, data, 1 + random.below(bytes), offset);
  };
  complete(options, slots, memory);
  expect_holds({options.folder}, slots, memory);
}

TEST(ArchiveWriter, DroppedSlotsLeaveNothing) {
  Memory memory;
  ScratchFolder scratch;
  const auto slots = some_slots(8);
  const auto options = test_options(scratch / "a", "n1");
  const auto writer = open_writer(options);
  for (const TestSlot& slot : slots) {
    // Once in vain, a little of it, and once more after it had been finished.
    const std::string& block = slot.blocks[0];
    ASSERT_TRUE(writer->append(memory.load(block), static_cast<uint32_t>(block.size())).ok());
    writer->drop_slot(slot.slot);
    ASSERT_TRUE(append_slot(*writer, memory, slot).ok());
    if (slot.slot == 1) {
      writer->drop_slot(slot.slot);
      ASSERT_TRUE(append_slot(*writer, memory, slot).ok());
    }
  }
  // A slot that is never finished is in no archive.
  const TestSlot open = make_slot(7, 8);
  ASSERT_TRUE(
      writer->append(memory.load(open.blocks[0]), static_cast<uint32_t>(open.blocks[0].size()))
          .ok());
  const auto part = writer->finish();
  ASSERT_TRUE(part.ok()) << part.status();
  ASSERT_TRUE(writer->commit(manifest_of({*part}, writer->newest_stamp())).ok());
  expect_holds({options.folder}, slots, memory);
}

TEST(ArchiveWriter, FinishingAgainAfterARestartGivesTheSamePart) {
  Memory memory;
  ScratchFolder scratch;
  const auto slots = some_slots(9);
  const auto options = test_options(scratch / "a", "n1");
  std::string first;
  {
    const auto writer = open_writer(options);
    for (const TestSlot& slot : slots) ASSERT_TRUE(append_slot(*writer, memory, slot).ok());
    // No records at all: durable, but not in the part.
    ASSERT_TRUE(writer->finish_slot(7, {}, 0).ok());
    first = writer->finish()->encode();
    EXPECT_EQ(writer->finish()->encode(), first);
  }
  const auto writer = open_writer(options);
  EXPECT_EQ(writer->durable_at_open().size(), slots.size() + 1);
  EXPECT_EQ(writer->finish()->encode(), first);
  EXPECT_EQ(PartManifest::decode(first)->slots.size(), slots.size());
}

TEST(ArchiveWriter, ACommittedPartIsOpenedAgainAsFinished) {
  Memory memory;
  ScratchFolder scratch;
  const auto slots = some_slots(11);
  auto options = test_options(scratch / "a", "n1");
  complete(options, slots, memory);
  const std::string manifest = slurp(options.folder + "/manifest");
  options.planned.emplace();
  for (const TestSlot& slot : slots) options.planned->insert(slot.slot);
  const auto writer = open_writer(options);
  ASSERT_NE(writer, nullptr);
  EXPECT_EQ(slurp(options.folder + "/manifest"), manifest);
  ASSERT_EQ(writer->durable_at_open().size(), slots.size());
  for (const TestSlot& slot : slots) {
    EXPECT_EQ(writer->durable_at_open().at(slot.slot), slot.digest());
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(append_slot(*writer, memory, make_slot(7, 11))));
  const auto part = writer->finish();
  ASSERT_TRUE(part.ok()) << part.status();
  ASSERT_TRUE(writer->commit(manifest_of({*part}, writer->newest_stamp())).ok());
  EXPECT_EQ(slurp(options.folder + "/manifest"), manifest);
  expect_holds({options.folder}, slots, memory);
}

// The plan took a slot from it and gave it another one.
TEST(ArchiveWriter, ACommittedPartIsTakenBackForAnotherPlan) {
  Memory memory;
  ScratchFolder scratch;
  auto slots = some_slots(12);
  auto options = test_options(scratch / "a", "n1");
  complete(options, slots, memory);
  slots.erase(slots.begin() + 1);
  slots.push_back(make_slot(7, 12));
  options.planned = {0, 2, 3, 4, 5, 7};
  // A crash in the middle leaves the manifest or a whole journal.
  spit(options.folder + "/journal", slurp(options.folder + "/part"));
  {
    const auto writer = open_writer(options);
    ASSERT_NE(writer, nullptr);
    EXPECT_FALSE(fs::exists(options.folder + "/manifest"));
    EXPECT_EQ(writer->durable_at_open().size(), 5u);
  }
  const auto writer = open_writer(options);
  ASSERT_NE(writer, nullptr);
  EXPECT_EQ(writer->durable_at_open().size(), 5u);
  ASSERT_TRUE(append_slot(*writer, memory, slots.back()).ok());
  const auto part = writer->finish();
  ASSERT_TRUE(part.ok()) << part.status();
  ASSERT_TRUE(writer->commit(manifest_of({*part}, writer->newest_stamp())).ok());
  expect_holds({options.folder}, slots, memory);
}

// Begun anew, with a later cut, while this target did not hear of it.
TEST(ArchiveWriter, APartOfAnEarlierCutIsRemoved) {
  Memory memory;
  ScratchFolder scratch;
  for (const bool committed : {false, true}) {
    auto options = test_options(scratch / fmt::format("a{}", committed), "n1");
    if (committed) {
      complete(options, some_slots(13), memory);
    } else {
      const auto writer = open_writer(options);
      ASSERT_TRUE(append_slot(*writer, memory, make_slot(1, 13)).ok());
      ASSERT_TRUE(writer->sync().ok());
    }
    EXPECT_EQ(unfinished_part(options.folder).ok(), !committed);
    options.identity.cut += 1 << 20;
    const auto writer = open_writer(options);
    ASSERT_NE(writer, nullptr);
    EXPECT_TRUE(writer->durable_at_open().empty());
    EXPECT_FALSE(fs::exists(options.folder + "/manifest"));
    EXPECT_EQ(unfinished_part(options.folder)->identity, options.identity);
    EXPECT_EQ(unfinished_part(options.folder)->node, "n1");
  }
}

TEST(ArchiveWriter, RefusesWhatIsNotItsOwn) {
  Memory memory;
  ScratchFolder scratch;
  const auto options = test_options(scratch / "a", "n1");
  const auto code = [](const ArchiveWriter::Options& wanted) {
    return ArchiveWriter::open(wanted).status().code();
  };
  {
    const auto writer = open_writer(options);
    EXPECT_EQ(code(options), absl::StatusCode::kFailedPrecondition);
  }
  auto other = options;
  other.identity.backup = "3f0a8c1e-0000-4000-8000-00000000ffff";
  EXPECT_EQ(code(other), absl::StatusCode::kAlreadyExists);
  other = options;
  other.node = "n2";
  EXPECT_EQ(code(other), absl::StatusCode::kAlreadyExists);

  complete(options, some_slots(10), memory);
  EXPECT_EQ(code(other), absl::StatusCode::kAlreadyExists);
  other = options;
  other.identity.backup = "3f0a8c1e-0000-4000-8000-00000000ffff";
  other.identity.cut += 1 << 20;
  EXPECT_EQ(code(other), absl::StatusCode::kAlreadyExists);
  other = options;
  other.identity.cut -= 1 << 20;
  EXPECT_EQ(code(other), absl::StatusCode::kAlreadyExists);
  // A crash right after the manifest was stored leaves the journal.
  spit(options.folder + "/journal", "left over");
  EXPECT_EQ(code(options), absl::StatusCode::kOk);
  EXPECT_FALSE(fs::exists(options.folder + "/journal"));
  // An archive whose manifest was lost is not written over.
  fs::remove(options.folder + "/manifest");
  EXPECT_EQ(code(options), absl::StatusCode::kAlreadyExists);
}

TEST(ArchiveWriter, RefusesMisuse) {
  Memory memory;
  ScratchFolder scratch;
  const auto writer = open_writer(test_options(scratch / "a", "n1"));
  const TestSlot slot = make_slot(1, 11);
  const auto size = static_cast<uint32_t>(slot.blocks[0].size());
  EXPECT_EQ(writer->append(memory.load(slot.blocks[0]), size - 1).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(writer->append(memory.load(std::string(200, 'x')), 200).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(writer->finish_slot(1, slot.digest(), 1).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(append_slot(*writer, memory, slot).ok());
  EXPECT_EQ(writer->append(memory.load(slot.blocks[0]), size).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer->finish_slot(1, slot.digest(), 1).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer->commit({}).code(), absl::StatusCode::kFailedPrecondition);
  const auto part = writer->finish();
  ASSERT_TRUE(part.ok());
  const TestSlot late = make_slot(2, 11);
  EXPECT_EQ(append_slot(*writer, memory, late).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer->commit(manifest_of({}, ~uint64_t{0})).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(writer->commit(manifest_of({*part}, 0)).code(), absl::StatusCode::kInvalidArgument);
  Manifest foreign = manifest_of({*part}, ~uint64_t{0});
  foreign.identity.backup = "another";
  EXPECT_EQ(writer->commit(foreign).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(writer->commit(manifest_of({*part}, ~uint64_t{0})).ok());
  EXPECT_TRUE(writer->commit(manifest_of({*part}, ~uint64_t{0})).ok()) << "a repeat";
  EXPECT_EQ(writer->commit(manifest_of({*part}, ~uint64_t{0} - 1)).code(),
            absl::StatusCode::kAlreadyExists)
      << "another manifest than the one stored";
}

TEST(ArchiveWriter, DeletesOnlyWhatAnArchiveHas) {
  Memory memory;
  SmallArchive archive(memory, 2, 12, true);
  spit(archive.folders[0] + "/notes.txt", "mine");
  EXPECT_TRUE(delete_archive(archive.folders[0]).ok());
  EXPECT_EQ(archive.files().size() > 1, true);
  EXPECT_TRUE(fs::exists(archive.folders[0] + "/notes.txt"));
  EXPECT_EQ(std::distance(fs::directory_iterator(archive.folders[0]), {}), 1);
  EXPECT_EQ(delete_archive(archive.folders[0]).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(delete_archive(archive.folders[1]).ok());
  EXPECT_FALSE(fs::exists(archive.folders[1]));
  EXPECT_EQ(delete_archive(archive.folders[1]).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sluice::testing

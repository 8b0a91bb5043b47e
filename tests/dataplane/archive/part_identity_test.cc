#include "dataplane/archive/part_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "dataplane/archive/journal.h"
#include "tests/dataplane/archive/small_archive.h"

namespace sluice::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

ArchivePartId id_of(const SmallArchive& archive, const std::string& node) {
  return {archive.manifest.identity.cluster, archive.manifest.identity.backup, node,
          xxh3_128(archive.manifest.encode())};
}

size_t files_in(const std::string& directory) {
  std::error_code error;
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory, error), {}));
}

// As it stands in the directory, but as the part of another backup.
void store_as_other_backup(const SmallArchive& archive, const std::string& directory) {
  Manifest manifest = archive.manifest;
  manifest.identity.backup = "another";
  manifest.identity.name = "other";
  spit(directory + "/manifest", manifest.encode());
}

class PartIdentityTest : public ::testing::Test {
 protected:
  Memory memory_;
};

TEST_F(PartIdentityTest, IsToldByThePartsOwnFiles) {
  const SmallArchive archive(memory_, 2, 1, true);
  for (const char* node : {"n1", "n2"}) {
    const auto found = identify_part(archive.folders[node[1] - '1']);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->state, FoundPart::State::kFinished);
    EXPECT_EQ(found->id, id_of(archive, node));
    EXPECT_TRUE(check_identity("d", *found, id_of(archive, node)).ok());
    EXPECT_TRUE(check_identity("d", *found, id_of(archive, "")).ok());
  }
  ScratchFolder scratch;
  EXPECT_EQ(identify_part(scratch / "nowhere").status().code(), absl::StatusCode::kNotFound);
  fs::create_directories(scratch / "empty");
  EXPECT_EQ(identify_part(scratch / "empty").status().code(), absl::StatusCode::kNotFound);
  const auto writer = ArchiveWriter::open(test_options(scratch / "begun", "n7"));
  ASSERT_TRUE(writer.ok());
  const auto begun = identify_part(scratch / "begun");
  ASSERT_TRUE(begun.ok()) << begun.status();
  EXPECT_EQ(begun->state, FoundPart::State::kUnfinished);
  EXPECT_EQ(begun->id.node, "n7");
  EXPECT_EQ(begun->id.backup, test_identity().backup);
}

TEST_F(PartIdentityTest, EachOfTheFourIsCompared) {
  const SmallArchive archive(memory_, 2, 2, true);
  const auto found = identify_part(archive.folders[0]);
  ASSERT_TRUE(found.ok());
  const auto refused = [&](const ArchivePartId& other) {
    return std::string(message_of(check_identity("/d", *found, other)));
  };
  ArchivePartId other = id_of(archive, "n1");
  other.cluster = "another";
  EXPECT_THAT(refused(other), HasSubstr("expected cluster another"));
  other = id_of(archive, "n1");
  other.backup = "another";
  EXPECT_THAT(refused(other), HasSubstr("/d holds the part of node n1 of backup nightly ("));
  EXPECT_THAT(refused(id_of(archive, "n2")), HasSubstr("expected the part of node n2"));
  other = id_of(archive, "n1");
  other.manifest_digest.low ^= 1;
  EXPECT_THAT(refused(other), HasSubstr("expected manifest"));
}

TEST_F(PartIdentityTest, IsToldByTheIndexesWhereTheManifestIsDamaged) {
  const SmallArchive archive(memory_, 2, 3, true);
  const std::string file = archive.folders[0] + "/manifest";
  const std::string good = slurp(file);
  for (const size_t size : {size_t{0}, good.size() / 2, good.size() - 1}) {
    spit(file, good.substr(0, size));
    const auto found = identify_part(archive.folders[0]);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->state, FoundPart::State::kManifestDamaged);
    EXPECT_EQ(found->id.backup, archive.manifest.identity.backup);
    EXPECT_EQ(found->id.node, "n1");
  }
  ArchivePartId other = id_of(archive, "n1");
  other.backup = "another";
  EXPECT_EQ(remove_part(archive.folders[0], other, Removable::kAny).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_TRUE(remove_part(archive.folders[0], id_of(archive, "n1"), Removable::kAny).ok());
  EXPECT_FALSE(fs::exists(archive.folders[0]));
}

TEST_F(PartIdentityTest, FilesThatContradictEachOtherAreNobodys) {
  const SmallArchive archive(memory_, 2, 4, true);
  const size_t files = files_in(archive.folders[0]);
  store_as_other_backup(archive, archive.folders[0]);
  ArchivePartId other = id_of(archive, "n1");
  other.backup = "another";
  other.manifest_digest = {};
  for (const ArchivePartId& id : {id_of(archive, "n1"), other}) {
    const absl::Status status = remove_part(archive.folders[0], id, Removable::kAny);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  }
  EXPECT_EQ(files_in(archive.folders[0]), files);
}

TEST_F(PartIdentityTest, NothingButTheExpectedPartIsRemoved) {
  const SmallArchive archive(memory_, 2, 5, true);
  const std::string& directory = archive.folders[0];
  const size_t files = files_in(directory);
  ArchivePartId stale = id_of(archive, "n1");
  stale.manifest_digest.high ^= 1;
  for (const ArchivePartId& id : {id_of(archive, "n2"), stale}) {
    EXPECT_EQ(remove_part(directory, id, Removable::kAny).code(), absl::StatusCode::kDataLoss);
  }
  // A finished one is not tidied, whoever it is of.
  ArchivePartId unfinished = id_of(archive, "n1");
  unfinished.manifest_digest = {};
  EXPECT_EQ(remove_part(directory, unfinished, Removable::kUnfinished).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(files_in(directory), files);
  EXPECT_TRUE(remove_part(directory, id_of(archive, "n1"), Removable::kAny).ok());
  EXPECT_FALSE(fs::exists(directory));
  EXPECT_EQ(remove_part(directory, id_of(archive, "n1"), Removable::kAny).code(),
            absl::StatusCode::kNotFound);
}

// Wherever a crash stops it, what is left still tells whose it is.
TEST_F(PartIdentityTest, ARemovalThatWasCutShortIsContinued) {
  const SmallArchive archive(memory_, 2, 6, true);
  const std::string& directory = archive.folders[1];
  fs::rename(directory + "/manifest", directory + "/removed");
  const ScratchFolder scratch;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());  // index, part, removed, segment: not the removal's order
  for (size_t gone = 0; gone < names.size(); ++gone) {
    const std::string copy = scratch / fmt::format("c{}", gone);
    fs::copy(directory, copy);
    for (const std::string& name : names) {
      const bool left = name == "removed" || (name == "part" && gone < names.size() - 1) ||
                        (name.starts_with("segment") && gone < 2) ||
                        (name.starts_with("index") && gone < 1);
      if (!left) fs::remove(copy + "/" + name);
    }
    const auto found = identify_part(copy);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->state, FoundPart::State::kRemoving);
    ArchivePartId other = id_of(archive, "n2");
    other.backup = "another";
    EXPECT_EQ(remove_part(copy, other, Removable::kAny).code(), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(remove_part(copy, id_of(archive, "n2"), Removable::kAny).ok());
    EXPECT_FALSE(fs::exists(copy));
  }
  // No writer takes it for its own, and no reader for an archive.
  auto options = test_options(directory, "n2");
  EXPECT_EQ(ArchiveWriter::open(options).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_FALSE(ArchiveReader::open({directory}).ok());
}

TEST_F(PartIdentityTest, ASymbolicLinkGoesWithWhatItLeadsTo) {
  const SmallArchive archive(memory_, 1, 7, true);
  const ScratchFolder scratch;
  fs::create_directory_symlink(archive.folders[0], scratch / "link");
  ASSERT_TRUE(remove_part(scratch / "link", id_of(archive, "n1"), Removable::kAny).ok());
  EXPECT_FALSE(fs::exists(archive.folders[0]));
  EXPECT_FALSE(fs::is_symlink(scratch / "link"));
}

TEST_F(PartIdentityTest, AReaderOpensNothingElse) {
  const SmallArchive archive(memory_, 2, 8, true);
  const ArchivePartId mine = id_of(archive, "n1");
  EXPECT_TRUE(ArchiveReader::open({archive.folders[0]}, &mine).ok());
  const ArchivePartId all = id_of(archive, "");
  EXPECT_TRUE(ArchiveReader::open(archive.folders, &all).ok());
  EXPECT_EQ(ArchiveReader::open({archive.folders[1]}, &mine).status().code(),
            absl::StatusCode::kDataLoss);
  ArchivePartId other = mine;
  other.backup = "another";
  const absl::Status refused = ArchiveReader::open({archive.folders[0]}, &other).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(message_of(refused)), HasSubstr("expected a part of backup another"));
}

TEST_F(PartIdentityTest, AVerificationNamesWhatElseIsThere) {
  const SmallArchive archive(memory_, 2, 9, true);
  const auto reasons = [&](const std::string& directory, const ArchivePartId& id) {
    const auto report = verify_archive({directory}, *memory_.arena, nullptr, &id);
    EXPECT_TRUE(report.ok()) << report.status();
    std::string all;
    for (const VerifyProblem& problem : report->bad) all += problem.reason + "\n";
    EXPECT_TRUE(report->unreadable.empty());
    return all;
  };
  EXPECT_EQ(reasons(archive.folders[0], id_of(archive, "n1")), "");
  EXPECT_THAT(reasons(archive.folders[0], id_of(archive, "n2")), HasSubstr("part of node n1"));
  ArchivePartId other = id_of(archive, "n1");
  other.backup = "another";
  EXPECT_THAT(reasons(archive.folders[0], other), HasSubstr("expected a part of backup another"));
  fs::remove(archive.folders[0] + "/manifest");
  EXPECT_THAT(reasons(archive.folders[0], id_of(archive, "n1")), HasSubstr("missing"));
}

// Two nodes with one archive directory: the second one is refused, whoever comes first.
TEST_F(PartIdentityTest, ADirectoryIsOfOneNode) {
  const ScratchFolder scratch;
  const auto first = ArchiveWriter::open(test_options(scratch / "shared", "n1"));
  ASSERT_TRUE(first.ok());
  const auto second = ArchiveWriter::open(test_options(scratch / "shared", "n2"));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists) << second.status();
  EXPECT_THAT(std::string(message_of(second.status())), HasSubstr("node n1"));
}

TEST_F(PartIdentityTest, OfManyNodesThatBeginAtOnceOneGetsTheDirectory) {
  const ScratchFolder scratch(true);
  for (int round = 0; round < 30; ++round) {
    const std::string directory = scratch / fmt::format("d{}", round);
    std::atomic<int> ready{0};
    std::vector<absl::StatusOr<std::unique_ptr<ArchiveWriter>>> writers(4);
    std::vector<std::thread> nodes;
    for (size_t i = 0; i < writers.size(); ++i) {
      nodes.emplace_back([&, i] {
        ++ready;
        while (ready < 4) std::this_thread::yield();
        writers[i] = ArchiveWriter::open(test_options(directory, fmt::format("n{}", i)));
      });
    }
    for (std::thread& node : nodes) node.join();
    int opened = 0;
    for (const auto& writer : writers) {
      opened += writer.ok() ? 1 : 0;
      EXPECT_TRUE(writer.ok() || absl::IsAlreadyExists(writer.status())) << writer.status();
    }
    ASSERT_EQ(opened, 1) << "round " << round;
  }
}

// A copy of another node's committed part, in a directory where this node resumes with a later cut.
TEST_F(PartIdentityTest, AWriterReplacesNothingOfAnotherNode) {
  const SmallArchive archive(memory_, 2, 10, true);
  auto options = test_options(archive.folders[0], "n2");
  options.identity.cut += 1 << 20;
  EXPECT_EQ(ArchiveWriter::open(options).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(fs::exists(archive.folders[0] + "/manifest"));
}

}  // namespace
}  // namespace sluice::testing

#include "control/contents/listing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/control/contents/made_backup.h"

namespace sluice::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

using Place = ListedPath::Place;

TEST(ListedPath, SaysWhereAPathLies) {
  const ListedPath path("a/b");
  EXPECT_EQ(path.place_of("a/b"), Place::kItself);
  EXPECT_EQ(path.place_of("a/b/c"), Place::kChild);
  EXPECT_EQ(path.place_of("a/b/c/d"), Place::kDeeper);
  EXPECT_EQ(path.child_of("a/b/c/d"), "a/b/c");
  EXPECT_EQ(path.place_of("a/bc"), Place::kOutside);
  EXPECT_EQ(path.place_of("a"), Place::kOutside);
  EXPECT_EQ(ListedPath("a/b/").place_of("a/b"), Place::kItself);
  EXPECT_EQ(ListedPath("").place_of("a"), Place::kChild);
  EXPECT_EQ(ListedPath("").place_of("a/b"), Place::kDeeper);
  EXPECT_EQ(ListedPath("/").place_of("/a"), Place::kChild);
}

TEST(PrefixMemory, KnowsWhatItSawLately) {
  PrefixMemory memory;
  EXPECT_TRUE(memory.is_new("a"));
  EXPECT_FALSE(memory.is_new("a"));
  for (size_t i = 0; i < PrefixMemory::kRemembered; ++i) memory.is_new(fmt::format("b{}", i));
  EXPECT_TRUE(memory.is_new("a"));
}

class ListingTest : public ::testing::Test {
 protected:
  ListingTest() {
    records_["plain"] = "value";
    records_["dir/plain"] = "other value";
    records_["docs/."] = tree_value(TreeKind::kDirectory);
    records_["docs/a"] = tree_value(TreeKind::kFile, "content", 04755);
    records_["docs/link"] = tree_value(TreeKind::kLink, "a");
    records_["docs/pipe"] = tree_value(TreeKind::kPipe);
    records_["docs/sub"] = tree_value(TreeKind::kDirectory);
    records_["docs/sub/deep/file"] = tree_value(TreeKind::kFile, "x");
    records_["docs2/a"] = "not below docs";
    add_chunked(&records_, "docs/large", "0123456789", 77);
  }
  // By path.
  static std::map<std::string, BackupEntry> list(const MadeBackup& backup,
                                                 const ContentsListing& listing) {
    std::map<std::string, BackupEntry> entries;
    const absl::Status status = backup.open()->list(listing, [&](const BackupEntry& entry) {
      const auto [there, added] = entries.try_emplace(entry.path, entry);
      if (!added && entry.type != EntryType::kPrefix) there->second = entry;
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return entries;
  }
  static std::vector<std::string> shown(const std::map<std::string, BackupEntry>& entries) {
    std::vector<std::string> lines;
    for (const auto& [path, entry] : entries) {
      lines.push_back(fmt::format("{}{} {}", entry.itself ? "*" : "", path, name_of(entry.type)));
    }
    return lines;
  }
  std::map<std::string, std::string> records_;
};

TEST_F(ListingTest, ShowsTheDirectChildrenOfTheRoot) {
  const MadeBackup backup(records_, {"deleted", "docs3/deleted"});
  ContentsListing listing;
  listing.children = true;
  EXPECT_THAT(shown(list(backup, listing)),
              ElementsAre("dir prefix", "docs directory", "docs2 prefix", "plain record"));
}

TEST_F(ListingTest, ShowsTheDirectChildrenOfADirectory) {
  const MadeBackup backup(records_, {"docs/deleted", "docs/gone/deleted"});
  ContentsListing listing;
  listing.children = true;
  listing.path = "docs";
  const auto entries = list(backup, listing);
  EXPECT_THAT(shown(entries),
              ElementsAre("*docs directory", "docs/a file", "docs/large file", "docs/link symlink",
                          "docs/pipe pipe", "docs/sub directory"));
  const BackupEntry& file = entries.at("docs/a");
  EXPECT_EQ(file.mode, 04755U);
  EXPECT_EQ(file.size, 7U);
  EXPECT_EQ(file.mtime_ns, 1'700'000'000'000'000'005);
  EXPECT_EQ(file.node, fmt::format("n{}", slot_of("docs/a", kTestSlotBits) % 2 + 1));
  EXPECT_EQ(entries.at("docs/large").size, 10U);
  EXPECT_EQ(entries.at("docs/link").target, "a");
}

TEST_F(ListingTest, ShowsEverythingAtAndBelowAPath) {
  const MadeBackup backup(records_);
  ContentsListing listing;
  listing.path = "docs/sub";
  EXPECT_THAT(shown(list(backup, listing)),
              ElementsAre("*docs/sub directory", "docs/sub/deep/file file"));
  listing.path = "docs/nothing";
  EXPECT_THAT(shown(list(backup, listing)), IsEmpty());
  listing.path = "";
  EXPECT_EQ(list(backup, listing).size(), 10U);
}

TEST_F(ListingTest, GoesOnFromEachPlaceWithoutLossOrRepetition) {
  const MadeBackup backup(records_);
  const auto archive = *ArchiveReader::open(backup.folders);
  const auto reader = *RecordReader::open(*archive);
  const ContentsListing listing;
  std::vector<std::string> all;
  std::vector<ListingPlace> places;
  ListingVisitor visitor;
  visitor.entry = [&](const BackupEntry& entry, const ListingPlace& place) {
    all.push_back(entry.path);
    places.push_back(place);
    return absl::OkStatus();
  };
  ASSERT_TRUE(list_archive(*archive, *reader, listing, {}, visitor).ok());
  ASSERT_EQ(all.size(), 10U);
  for (size_t i = 0; i < places.size(); ++i) {
    std::vector<std::string> rest;
    ListingVisitor again;
    again.entry = [&](const BackupEntry& entry, const ListingPlace&) {
      rest.push_back(entry.path);
      return absl::OkStatus();
    };
    ASSERT_TRUE(list_archive(*archive, *reader, listing, places[i], again).ok());
    EXPECT_EQ(rest, std::vector<std::string>(all.begin() + i + 1, all.end()));
  }
}

TEST_F(ListingTest, ReadsOnlyTheSlotsThatAreAskedFor) {
  const MadeBackup backup(records_);
  ContentsListing listing;
  listing.slots = {slot_of("docs/a", kTestSlotBits)};
  const auto entries = list(backup, listing);
  EXPECT_TRUE(entries.contains("docs/a"));
  for (const auto& [path, entry] : entries) {
    const std::string key = path == "docs" ? "docs/." : path;
    EXPECT_TRUE(listing.slots.contains(slot_of(key, kTestSlotBits))) << path;
  }
}

TEST_F(ListingTest, TwoImportsOfOneFileHaveTheSameDigest) {
  std::map<std::string, std::string> again = records_;
  again.erase("docs/large");
  add_chunked(&again, "docs/large", "0123456789", 78);
  std::map<std::string, std::string> changed = records_;
  add_chunked(&changed, "docs/large", "0123456780", 79);
  ContentsListing listing;
  listing.path = "docs/large";
  listing.digests = true;
  const auto digest = [&](const std::map<std::string, std::string>& records) {
    return list(MadeBackup(records), listing).at("docs/large").digest;
  };
  EXPECT_EQ(digest(records_), digest(again));
  EXPECT_NE(digest(records_), digest(changed));
}

TEST_F(ListingTest, TakesWhatOnlyBeginsLikeATreeEntryForARecord) {
  records_["docs/a"].resize(60);
  ContentsListing listing;
  listing.path = "docs/a";
  EXPECT_THAT(shown(list(MadeBackup(records_), listing)), ElementsAre("*docs/a record"));
}

TEST_F(ListingTest, HardLinksNameTheirFileAndAreNotResolved) {
  TreeHeader header;
  header.kind = TreeKind::kFile;
  header.chunk_bytes = kTreeChunkBytes;
  header.digest = digest_of_chunks({digest_of_content({}, "")});
  TreeExtras extras;
  extras.linked = true;
  records_["docs/first"] = encode_tree_entry(header, extras);
  header.kind = TreeKind::kHardLink;
  header.chunk_bytes = 0;
  header.size = 5;
  extras.linked = false;
  extras.own_path_bytes = 9;
  records_["docs/sub/other"] = encode_tree_entry(header, extras) + "first";
  const MadeBackup backup(records_);
  ContentsListing listing;
  listing.path = "docs/sub/other";
  const auto links = list(backup, listing);
  ASSERT_THAT(shown(links), ElementsAre("*docs/sub/other hardlink"));
  EXPECT_EQ(links.at("docs/sub/other").target, "docs/first");
  EXPECT_TRUE(links.at("docs/sub/other").unresolved);
  EXPECT_FALSE(links.at("docs/sub/other").has_metadata());
  listing.path = "";
  listing.linked = true;
  EXPECT_THAT(shown(list(backup, listing)), ElementsAre("docs/first file"));
}

TEST(LocalContents, NamesMissingParts) {
  const std::map<std::string, std::string> records = {{"a", "b"}};
  const MadeBackup backup(records);
  const auto contents = open_local_contents({backup.folders[0]});
  EXPECT_EQ(contents.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(contents.status().message()), HasSubstr("n2"));
}

TEST(BackupEntryOnTheWire, ComesBackAsItWasAndIsRefusedOtherwise) {
  BackupEntry entry;
  entry.path = "a\xff";
  entry.type = EntryType::kHardLink;
  entry.size = 7;
  entry.mode = 0640;
  entry.mtime_ns = -5;
  entry.target = "b";
  entry.digest = {1, 2};
  entry.itself = true;
  entry.unresolved = true;
  entry.value = "its value";
  entry.whole = true;
  v1::ContentsEntry message;
  put(entry, &message);
  v1::ContentsEntry copy = message;
  const auto back = decode_entry(copy);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->path, entry.path);
  EXPECT_EQ(back->type, entry.type);
  EXPECT_EQ(back->size, entry.size);
  EXPECT_EQ(back->mode, entry.mode);
  EXPECT_EQ(back->mtime_ns, entry.mtime_ns);
  EXPECT_EQ(back->target, entry.target);
  EXPECT_EQ(back->digest, entry.digest);
  EXPECT_TRUE(back->itself);
  EXPECT_TRUE(back->unresolved);
  EXPECT_EQ(back->value, entry.value);
  EXPECT_TRUE(back->whole);
  copy = message;
  copy.set_value(std::string(kMaxTreeEntryBytes + 1, 'v'));
  EXPECT_TRUE(absl::IsDataLoss(decode_entry(copy).status()));
  copy = message;
  copy.set_type(kEntryTypes);
  EXPECT_EQ(decode_entry(copy).status().code(), absl::StatusCode::kDataLoss);
  copy = message;
  copy.set_digest("short");
  EXPECT_EQ(decode_entry(copy).status().code(), absl::StatusCode::kDataLoss);
  copy = message;
  copy.set_path(std::string(kMaxKeyBytes + 1, 'x'));
  EXPECT_EQ(decode_entry(copy).status().code(), absl::StatusCode::kDataLoss);
}

TEST(WalkKey, SortsADirectoryRightBeforeWhatIsBelowIt) {
  const std::vector<std::string> paths = {".", "a", "a/b", "a/b/c", "a/b.c", "a\x01", "a-b", "aa"};
  for (size_t i = 1; i < paths.size(); ++i) EXPECT_LT(walk_key(paths[i - 1]), walk_key(paths[i]));
}

}  // namespace
}  // namespace sluice::testing

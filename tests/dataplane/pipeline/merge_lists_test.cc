// Summaries and lists of runs: what comes back is what was put in, and anything else is refused.
#include "dataplane/pipeline/merge_lists.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr uint32_t kSlotBits = 2;
constexpr uint32_t kSlot = 1;

std::map<std::string, RecordSummary> make_summaries(uint64_t seed, size_t count) {
  Random random(seed);
  std::map<std::string, RecordSummary> made;
  while (made.size() < count) {
    std::string key = random.chance(0.05) ? std::string(1 + random.below(kMaxKeyBytes), '\xff')
                                          : fmt::format("k{:x}", random.below(1 << 24));
    key.back() = static_cast<char>(random.next());
    if (slot_of(key, kSlotBits) != kSlot) continue;
    RecordSummary summary;
    summary.version = {random.next(), static_cast<uint32_t>(random.next())};
    summary.tombstone = random.chance(0.2);
    summary.value_bytes = summary.tombstone ? 0 : random.below(kMaxValueBytes + 1);
    summary.value_digest =
        summary.tombstone ? xxh3_128(std::string_view()) : Digest128{random.next(), random.next()};
    made.emplace(std::move(key), summary);
  }
  return made;
}

std::span<const uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string pack(const std::map<std::string, RecordSummary>& summaries) {
  std::string page(kMaxBlockBytes, '\0');
  SummaryPageBuilder builder;
  builder.begin({reinterpret_cast<uint8_t*>(page.data()), page.size()});
  for (const auto& [key, summary] : summaries) EXPECT_TRUE(builder.add(key, summary));
  page.resize(builder.bytes());
  return page;
}

// All entries, or the error.
absl::StatusOr<std::map<std::string, RecordSummary>> read(const std::string& page) {
  std::map<std::string, RecordSummary> found;
  SummaryPageReader reader(page, kSlot, kSlotBits);
  std::string last;
  for (;;) {
    const absl::StatusOr<bool> more = reader.next();
    if (!more.ok()) return more.status();
    if (!*more) return found;
    EXPECT_TRUE(last.empty() || last < reader.key());
    last = reader.key();
    found.emplace(last, reader.summary());
  }
}

TEST(SummaryPage, RoundTrips) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto summaries = make_summaries(seed, seed * 7);
    const auto found = read(pack(summaries));
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found, summaries);
  }
}

TEST(SummaryPage, WhatDoesNotFitIsLeftForTheNext) {
  const auto summaries = make_summaries(1, 400);
  std::string page(SummaryPageBuilder::kMaxEntryBytes, '\0');
  std::map<std::string, RecordSummary> found;
  SummaryPageBuilder builder;
  size_t pages = 0;
  for (auto at = summaries.begin(); at != summaries.end(); ++pages) {
    builder.begin({reinterpret_cast<uint8_t*>(page.data()), page.size()});
    while (at != summaries.end() && builder.add(at->first, at->second)) ++at;
    const auto part = read(page.substr(0, builder.bytes()));
    ASSERT_TRUE(part.ok()) << part.status();
    ASSERT_FALSE(part->empty());
    found.insert(part->begin(), part->end());
  }
  EXPECT_GT(pages, 1u);
  EXPECT_EQ(found, summaries);
}

TEST(SummaryPage, TruncationIsFoundOrLeavesWholeEntries) {
  const auto summaries = make_summaries(3, 12);
  const std::string page = pack(summaries);
  size_t accepted = 0;
  for (size_t size = 0; size < page.size(); ++size) {
    const auto found = read(page.substr(0, size));
    if (!found.ok()) {
      EXPECT_EQ(found.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    ++accepted;
    for (const auto& [key, summary] : *found) EXPECT_EQ(summaries.at(key), summary);
  }
  // The counts and the digest of a slot find what ends between two entries.
  EXPECT_EQ(accepted, summaries.size());
}

TEST(SummaryPage, FlippedBitsAreFoundOrChangeWhatIsRead) {
  const auto summaries = make_summaries(4, 6);
  const std::string page = pack(summaries);
  for (size_t bit = 0; bit < page.size() * 8; ++bit) {
    std::string flipped = page;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const auto found = read(flipped);
    if (found.ok()) {
      EXPECT_NE(*found, summaries) << bit;
    } else {
      EXPECT_EQ(found.status().code(), absl::StatusCode::kDataLoss) << bit;
    }
  }
}

TEST(SummaryPage, ForeignKeysAndOrderAreRefused) {
  auto summaries = make_summaries(5, 2);
  const std::string page = pack(summaries);
  SummaryPageReader other_slot(page, kSlot + 1, kSlotBits);
  EXPECT_EQ(other_slot.next().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(read(page + page).status().code(), absl::StatusCode::kDataLoss);
}

TEST(MergeSection, RoundTripsAndIsFoundWhereItIsCutOff) {
  const std::vector<MergeSection> sections = {{7, false, "abc"}, {9, true, ""}, {9, true, "d"}};
  std::string message;
  std::vector<size_t> ends = {0};
  for (const MergeSection& section : sections) {
    uint8_t header[MergeSection::kHeaderBytes];
    MergeSection::write_header(header, section.slot, section.last,
                               static_cast<uint32_t>(section.bytes.size()));
    message += as_string_view(header);
    message += section.bytes;
    ends.push_back(message.size());
  }
  for (size_t size = 0; size <= message.size(); ++size) {
    const std::string part = message.substr(0, size);
    MergeSectionReader reader(bytes_of(part));
    MergeSection found;
    size_t read = 0;
    for (;; ++read) {
      const absl::StatusOr<bool> more = reader.next(&found);
      if (!more.ok()) {
        EXPECT_EQ(more.status().code(), absl::StatusCode::kDataLoss);
        EXPECT_EQ(std::count(ends.begin(), ends.end(), size), 0);
      }
      if (!more.ok() || !*more) break;
      EXPECT_EQ(found.slot, sections[read].slot);
      EXPECT_EQ(found.last, sections[read].last);
      EXPECT_EQ(found.bytes, sections[read].bytes);
    }
    EXPECT_EQ(ends[read] == size, std::count(ends.begin(), ends.end(), size) == 1) << size;
  }
}

TEST(SummaryRequest, RoundTripsAndNothingElseIsTaken) {
  using namespace std::string_literals;
  for (const SummaryRequest& request :
       {SummaryRequest{0, {5}}, SummaryRequest{70'000, {5}}, SummaryRequest{0, {5, 3, 1 << 19}}}) {
    const auto decoded = SummaryRequest::decode(request.encode());
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->passed, request.passed);
    EXPECT_EQ(decoded->slots, request.slots);
  }
  const std::string one = "\1\0\0\0"s;
  SummaryRequest many;
  for (uint32_t slot = 0; slot <= kMaxMergeSlots; ++slot) many.slots.push_back(slot);
  for (const std::string& bytes : {""s, "\0"s, "\0\1"s, "\0"s + one + one, "\0"s + one + "\2"s,
                                   "\1"s + one + "\2\0\0\0"s, "\x80\0"s + one, many.encode()}) {
    EXPECT_EQ(SummaryRequest::decode(bytes).status().code(), absl::StatusCode::kDataLoss)
        << testing::PrintToString(bytes);
  }
}

std::string encode(const std::vector<bool>& wanted, uint64_t passed) {
  RunListBuilder builder;
  builder.begin(passed);
  for (const bool want : wanted) builder.add(want);
  const size_t bound = builder.bytes();
  std::string bytes = builder.encode();
  EXPECT_LE(bytes.size(), bound);
  return bytes;
}

TEST(RunList, RoundTrips) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    const uint64_t passed = random.below(2) * random.below(1000);
    std::vector<bool> wanted(1 + random.below(300));
    for (size_t i = 0; i < wanted.size(); ++i) wanted[i] = random.chance(0.1 + 0.2 * (seed % 5));
    wanted[random.below(wanted.size())] = true;
    absl::StatusOr<RunList> list = RunList::decode(encode(wanted, passed));
    ASSERT_TRUE(list.ok()) << list.status();
    for (uint64_t i = 0; i < passed; ++i) EXPECT_FALSE(list->next());
    size_t at = 0;
    for (; !list->done(); ++at) {
      ASSERT_LT(at, wanted.size());
      EXPECT_EQ(list->next(), wanted[at]);
    }
    for (; at < wanted.size(); ++at) EXPECT_FALSE(wanted[at]);
  }
}

TEST(RunList, OneRunTakesTwoNumbers) {
  EXPECT_EQ(encode(std::vector<bool>(100'000, true), 0).size(), 4u);
}

TEST(RunList, OnlyItsOwnEncodingIsTaken) {
  using namespace std::string_literals;
  for (const std::string& bytes :
       {""s, "\0"s, "\0\0"s, "\1\0"s, "\1\1\0\1"s, "\1\1\1"s, "\x80\0\1"s,
        std::string(kMaxBlockBytes + 2, '\1'), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\1"s}) {
    EXPECT_EQ(RunList::decode(bytes).status().code(), absl::StatusCode::kDataLoss)
        << testing::PrintToString(bytes.substr(0, 20));
  }
  EXPECT_TRUE(RunList::decode("\0\1"s).ok());
  EXPECT_TRUE(RunList::decode("\0\1\1\1"s).ok());
}

}  // namespace
}  // namespace sluice

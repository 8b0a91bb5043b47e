#include "control/cli/jsonl.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "base/file.h"
#include "base/random.h"
#include "base/status.h"
#include "dataplane/block/record.h"
#include "tests/tree/memory_records.h"

namespace sluice {
namespace {

UniqueFd file_of(std::string_view text) {
  UniqueFd fd(memfd_create("lines", MFD_CLOEXEC));
  EXPECT_EQ(write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(lseek(fd.get(), 0, SEEK_SET), 0);
  return fd;
}

absl::Status import_text(std::string_view text, MemoryRecords& records, SinkTotals* totals) {
  StreamProgress progress;
  return import_jsonl(file_of(text).get(), records, progress, totals);
}

std::string exported(MemoryRecords& records, std::string_view prefix = "") {
  StreamProgress progress;
  std::string text;
  EXPECT_TRUE(
      export_jsonl(records, prefix, testing::TempDir(), progress, [&](std::string_view piece) {
        text += piece;
        return absl::OkStatus();
      }).ok());
  return text;
}

TEST(Jsonl, FormatsEqualRecordsEquallyAndEscapes) {
  EXPECT_EQ(format_json_record("k", "v"), "{\"key\":\"k\",\"value\":\"v\"}\n");
  EXPECT_EQ(format_json_record("a\"\\\n\x01", "\xc3\xa4"),
            "{\"key\":\"a\\\"\\\\\\n\\u0001\",\"value\":\"\xc3\xa4\"}\n");
  EXPECT_EQ(format_json_record("\xff", std::string_view("\0\x80", 2)),
            "{\"key_b64\":\"/w==\",\"value_b64\":\"AIA=\"}\n");
}

TEST(Jsonl, RoundTripsHostileBytesInSortedOrder) {
  Random random(3);
  MemoryRecords from;
  for (int i = 0; i < 2000; ++i) {
    std::string key(1 + random.below(20), '\0');
    std::string value(random.below(200), '\0');
    const uint64_t range = random.chance(0.5) ? 128 : 256;
    for (char& c : key) c = static_cast<char>(random.below(range));
    for (char& c : value) c = static_cast<char>(random.below(range));
    from.records()[key] = value;
  }
  const std::string text = exported(from);
  MemoryRecords into;
  SinkTotals totals;
  ASSERT_TRUE(import_text(text, into, &totals).ok());
  EXPECT_EQ(into.records(), from.records());
  EXPECT_EQ(totals.records, from.records().size());
  from.shuffle(99);
  EXPECT_TRUE(exported(from) == text) << "the order of the scan shows";
}

TEST(Jsonl, EveryRecordsLineIsShortEnoughToBeRead) {
  for (const char c : {'\0', '"', '\x01', 'a', '\xff'}) {
    const std::string value(kMaxValueBytes, c);
    const std::string line = format_json_record(std::string(kMaxKeyBytes, c), value);
    EXPECT_LE(line.size(), kMaxJsonLineBytes) << static_cast<int>(c);
    const auto record = parse_json_record(line);
    ASSERT_TRUE(record.ok()) << record.status();
    EXPECT_TRUE(record->value == value) << static_cast<int>(c);
  }
}

TEST(Jsonl, ExportTakesThePrefixOnly) {
  MemoryRecords records;
  records.records() = {{"a1", "x"}, {"a2", "y"}, {"b", "z"}};
  EXPECT_EQ(exported(records, "a"),
            "{\"key\":\"a1\",\"value\":\"x\"}\n{\"key\":\"a2\",\"value\":\"y\"}\n");
}

TEST(Jsonl, AcceptsMissingLastNewlineEmptyLinesAndOtherFields) {
  MemoryRecords records;
  SinkTotals totals;
  ASSERT_TRUE(import_text("\n{\"key\":\"a\",\"value\":\"\"}\r\n\n{\"value_b64\":\"eA==\",\"key\":"
                          "\"b\",\"n\":[{\"key\":1},{\"key\":1}]}",
                          records, &totals)
                  .ok());
  EXPECT_EQ(records.records(), (std::map<std::string, std::string>{{"a", ""}, {"b", "x"}}));
}

TEST(Jsonl, StopsAtTheFirstMalformedLineAndNamesIt) {
  const std::string good = "{\"key\":\"a\",\"value\":\"1\"}\n";
  for (const char* bad :
       {"{", "[]", "1", "{\"key\":\"b\"}", "{\"value\":\"b\"}", "{\"key\":1,\"value\":\"x\"}",
        "{\"key\":\"b\",\"key_b64\":\"Yg==\",\"value\":\"\"}", "{\"key_b64\":\"?\",\"value\":\"\"}",
        "{\"key\":\"\",\"value\":\"\"}", "{\"key\":\"\\ud800\",\"value\":\"\"}",
        "{\"key\":\"b\",\"value\":\"\xff\"}", "{\"key\":\"b\",\"key\":\"b\",\"value\":\"\"}",
        "{\"key\":\"b\",\"value\":\"\",\"n\":1,\"n\":2}", "[[{\"key\":\"b\",\"value\":\"\"}]]",
        "{\"key\":{\"key\":\"b\"},\"value\":\"\"}", "{\"key\":[\"b\"],\"value\":\"\"}",
        "{\"n\":{\"key\":\"b\",\"value\":\"\"}}", "{\"key\":\"b\",\"value\":\"\"}{}"}) {
    MemoryRecords records;
    SinkTotals totals;
    const absl::Status status =
        import_text(good + bad + "\n{\"key\":\"c\",\"value\":\"\"}\n", records, &totals);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad;
    EXPECT_EQ(message_of(status).substr(0, 7), "line 2:") << status;
    EXPECT_EQ(totals.records, 1u) << bad;
    EXPECT_EQ(records.records().size(), 1u) << bad;
  }
}

TEST(Jsonl, ANulByteIsNotTheEndOfALine) {
  MemoryRecords records;
  SinkTotals totals;
  const std::string line = "{\"key\":\"a\",\"value\":\"1\"}";
  const absl::Status status = import_text(line + std::string(1, '\0') + "{}\n", records, &totals);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_TRUE(records.records().empty());
}

TEST(Jsonl, FieldsThatNoRecordHasTakeNoMemory) {
  constexpr size_t kDepth = size_t{4} << 20;
  MemoryRecords records;
  SinkTotals totals;
  const std::string text = "{\"n\":" + std::string(kDepth, '[') + std::string(kDepth, ']') +
                           ",\"key\":\"a\",\"value\":\"1\"}\n";
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  ASSERT_TRUE(import_text(text, records, &totals).ok());
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(totals.records, 1u);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 128 << 10) << "KiB for a line of 8 MiB";
}

TEST(Jsonl, RefusesKeysAndLinesThatAreTooLong) {
  MemoryRecords records;
  SinkTotals totals;
  const std::string key(4097, 'k');
  EXPECT_TRUE(absl::IsInvalidArgument(
      import_text("{\"key\":\"" + key + "\",\"value\":\"\"}\n", records, &totals)));
  const std::string endless(kMaxJsonLineBytes + 2, ' ');
  const absl::Status status = import_text(endless, records, &totals);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
}

TEST(Jsonl, ReportsTheSinksErrorWithItsLine) {
  MemoryRecords records;
  records.fail_after(1);
  SinkTotals totals;
  const absl::Status status = import_text(
      "{\"key\":\"a\",\"value\":\"\"}\n{\"key\":\"b\",\"value\":\"\"}\n", records, &totals);
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_EQ(message_of(status).substr(0, 7), "line 2:");
}

// Lines of two plain fields are read on a way of their own. A third field, which is ignored, sends
// the same line to the parser.
TEST(JsonRecordTest, UsualLinesMeanWhatTheParserReads) {
  const std::vector<std::string> fields = {
      R"("key":"a","value":"b")",
      R"( "value" : "b" , "key" : "a" )",
      R"("key_b64":"AAH/","value_b64":"")",
      R"("key":"","value":"b")",
      R"("key":"a","value_b64":"YQ==")",
      R"("key":"a","value_b64":"YR==")",
      R"("key":"a","value_b64":"YQ=")",
      R"("key":"a","value_b64":"Y-==")",
      R"("key":"a","value_b64":"====")",
      R"("key":"a\n","value":"\u00e4")",
      "\"key\":\"\xc3\xa4\",\"value\":\"\xc3\xa4\"",
      "\"key\":\"\xff\",\"value\":\"b\"",
      "\"key\":\"a\tb\",\"value\":\"b\"",
      "\"key\":\"a\x7f\",\"value\":\"b\"",
      R"("key":"a","key":"b")",
      R"("key":"a","key_b64":"YQ==")",
      R"("key":"a","keys":"b")",
      R"("key":"a","value":1)",
      R"("key":"a" "value":"b")",
      R"("key":"a","value":"b",)",
      R"("key":"a","value":"b"}{)",
      R"("key":"a","value":"b)",
  };
  for (const std::string& text : fields) {
    const auto usual = parse_json_record("{" + text + "}");
    const auto parsed = parse_json_record("{" + text + ",\"other\":1}");
    ASSERT_EQ(usual.ok(), parsed.ok()) << text << ": " << usual.status() << parsed.status();
    if (!usual.ok()) continue;
    EXPECT_EQ(usual->key, parsed->key) << text;
    EXPECT_EQ(usual->value, parsed->value) << text;
  }
  EXPECT_TRUE(parse_json_record("{" + fields[1] + "}\r").ok());
}

}  // namespace
}  // namespace sluice

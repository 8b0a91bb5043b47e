#include "control/records/slot_cursor.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "control/peers/rpc.h"
#include "tests/control/peers/scripted_link.h"

namespace sluice {
namespace {

v1::ScanItem item_of(const std::string& key, const std::string& value, bool tombstone = false) {
  v1::ScanItem item;
  fill(key, RecordView{key, value, {77, 1}, tombstone}.summary(), &item);
  item.set_value(value);
  return item;
}

// A replica that answers a scan with these items, each in a page of its own.
class SlotCursorTest : public ::testing::Test {
 protected:
  std::vector<std::string> keys_of(const std::vector<v1::ScanItem>& items, const SlotRange& range) {
    Script script;
    for (const v1::ScanItem& item : items) {
      v1::ScanPage page;
      *page.add_items() = item;
      if (!values_) page.mutable_items(0)->clear_value();
      script.pages.push_back(page.SerializeAsString());
    }
    const auto cursor = open_remote_cursor(scripted_node(script), range, values_, {});
    std::vector<std::string> keys;
    for (;;) {
      const auto more = cursor->next();
      status_ = more.status();
      if (!more.ok() || !*more) return keys;
      keys.emplace_back(cursor->key());
    }
  }
  void expect_refused(const v1::ScanItem& item, const SlotRange& range = {}) {
    EXPECT_EQ(keys_of({item_of("a", "first"), item}, range),
              range.has("a") ? std::vector<std::string>{"a"} : std::vector<std::string>());
    EXPECT_EQ(status_.code(), absl::StatusCode::kDataLoss) << status_;
    EXPECT_NE(status_.message().find("n2"), absl::string_view::npos) << status_;
  }

  bool values_ = true;  // are sent along
  absl::Status status_;
};

TEST_F(SlotCursorTest, HasTheRecordsOfTheRange) {
  const auto keys = keys_of({item_of("ab", "v"), item_of("ac", "", true)}, {3, "a", "aa"});
  EXPECT_EQ(keys, (std::vector<std::string>{"ab", "ac"}));
  EXPECT_TRUE(status_.ok()) << status_;
}

TEST_F(SlotCursorTest, RefusesSizesThatNoRecordHas) {
  v1::ScanItem large = item_of("b", "v");
  large.set_value_bytes(kMaxValueBytes + 1);
  v1::ScanItem deletion = item_of("b", "", true);
  deletion.set_value_bytes(1);
  for (const bool values : {false, true}) {
    values_ = values;
    expect_refused(large);
    expect_refused(deletion);
    expect_refused(item_of("", "v"));
    expect_refused(item_of(std::string(kMaxKeyBytes + 1, 'k'), "v"));
  }
}

TEST_F(SlotCursorTest, RefusesADeletionWithAValue) {
  v1::ScanItem item = item_of("b", "", true);
  item.set_value("v");
  expect_refused(item);
}

TEST_F(SlotCursorTest, RefusesAnotherValueThanThatOfItsDigest) {
  v1::ScanItem item = item_of("b", "value");
  item.set_value("valve");
  expect_refused(item);
}

TEST_F(SlotCursorTest, RefusesKeysOutsideTheRangeAndOutOfOrder) {
  expect_refused(item_of("a", "again"));
  expect_refused(item_of("b", "v"), {0, "a", ""});
  expect_refused(item_of("a", "v"), {0, "a", "a"});
}

class ReadAnswerTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::optional<Record>> answer(const std::string& key, const RecordView& record) {
    v1::ReadReply reply;
    reply.add_results()->set_found(true);
    fill(record, reply.mutable_results(0)->mutable_record());
    return record_of("n2", key, reply);
  }
};

TEST_F(ReadAnswerTest, IsTheRecordThatWasAskedFor) {
  const auto record = answer("k", {"k", "v", {77, 1}, false});
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ((*record)->value, "v");
}

TEST_F(ReadAnswerTest, OfAnotherKeyIsRefused) {
  const auto record = answer("k", {"l", "v", {77, 1}, false});
  EXPECT_EQ(record.status().code(), absl::StatusCode::kDataLoss) << record.status();
}

TEST_F(ReadAnswerTest, OfADeletionWithAValueIsRefused) {
  const auto record = answer("k", {"k", "v", {77, 1}, true});
  EXPECT_EQ(record.status().code(), absl::StatusCode::kDataLoss) << record.status();
}

}  // namespace
}  // namespace sluice

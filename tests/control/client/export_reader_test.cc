#include "control/client/export_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dataplane/block/record.h"
#include "tests/control/peers/scripted_link.h"

namespace sluice {
namespace {

constexpr uint32_t kSlotBits = 1;

// The first keys "a0", "a1", ... of a slot.
std::vector<std::string> keys_of_slot(uint32_t slot, size_t count) {
  std::vector<std::string> keys;
  for (int i = 10; keys.size() < count; ++i) {
    std::string key = "a" + std::to_string(i);
    if (slot_of(key, kSlotBits) == slot) keys.push_back(std::move(key));
  }
  return keys;
}

class ExportReaderTest : public ::testing::Test {
 protected:
  void add_page(uint32_t slot, const std::vector<std::string>& keys, bool done) {
    v1::ExportPage page;
    page.set_slot(slot);
    page.set_slot_done(done);
    for (const std::string& key : keys) page.add_items()->set_key(key);
    script_.pages.push_back(page.SerializeAsString());
  }
  grpc::Status read() { return reader_.read_from(*node_, 1'000, 1'000, &progress_); }
  void expect_refused(size_t exported) {
    read();
    EXPECT_EQ(reader_.failed().code(), absl::StatusCode::kDataLoss) << reader_.failed();
    EXPECT_NE(reader_.failed().message().find("n2"), absl::string_view::npos) << reader_.failed();
    EXPECT_EQ(exported_.size(), exported);
  }

  const std::vector<std::string> first_ = keys_of_slot(0, 3);
  const std::vector<std::string> second_ = keys_of_slot(1, 2);
  Script script_;
  std::shared_ptr<PeerNode> node_ = scripted_node(script_);
  std::vector<std::string> exported_;
  bool progress_ = false;
  ClusterClient::RecordCallback callback_ = [this](std::string_view key, std::string_view) {
    exported_.emplace_back(key);
    return absl::OkStatus();
  };
  ExportReader reader_{kSlotBits, "a", callback_};
};

TEST_F(ExportReaderTest, ReadsOnWhereAStreamBrokeOff) {
  add_page(0, {first_[0], first_[1]}, false);
  script_.end = {grpc::StatusCode::UNAVAILABLE, "went away"};
  EXPECT_FALSE(read().ok());
  EXPECT_TRUE(progress_ && reader_.failed().ok() && !reader_.done());
  script_.end = grpc::Status::OK;
  add_page(0, {first_[2]}, true);
  add_page(1, second_, true);
  EXPECT_TRUE(read().ok());
  EXPECT_TRUE(reader_.done()) << reader_.failed();
  EXPECT_EQ(exported_.size(), 5u);
}

TEST_F(ExportReaderTest, RefusesASlotThatIsPassedOver) {
  add_page(1, second_, true);
  expect_refused(0);
}

// Its number and one more is 0: the export would begin again.
TEST_F(ExportReaderTest, RefusesTheLargestSlotOfAll) {
  add_page(0, first_, true);
  add_page(UINT32_MAX, {}, true);
  expect_refused(3);
}

TEST_F(ExportReaderTest, RefusesRecordsThatWereHandedOut) {
  add_page(0, first_, false);
  add_page(0, {first_[2]}, true);
  expect_refused(3);
}

TEST_F(ExportReaderTest, RefusesRecordsThatWereNotAskedFor) {
  add_page(0, {"b"}, false);
  expect_refused(0);
}

TEST_F(ExportReaderTest, RefusesRecordsOfAnotherSlot) {
  add_page(0, second_, true);
  expect_refused(0);
}

// A node that ends its streams so would be asked for ever.
TEST_F(ExportReaderTest, RefusesAnEndBeforeTheLastSlot) {
  add_page(0, first_, true);
  expect_refused(3);
}

TEST_F(ExportReaderTest, EmptyPagesAreNoProgress) {
  add_page(0, {}, false);
  script_.end = {grpc::StatusCode::UNAVAILABLE, "went away"};
  EXPECT_FALSE(read().ok());
  EXPECT_FALSE(progress_);
}

}  // namespace
}  // namespace sluice

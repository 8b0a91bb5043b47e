#include "control/cluster_block/etcd_answers.h"

#include <gtest/gtest.h>

#include "control/cluster_block/cluster_block.h"

namespace sluice::cluster_block {
namespace {

class EtcdAnswersTest : public ::testing::Test {
 protected:
  EtcdAnswersTest() {
    request_.set_key("p/a");
    request_.set_range_end("p/b");
    request_.set_limit(2);
    response_.mutable_header()->set_revision(9);
    add("p/a1", 5);
    add("p/a2", 9);
    response_.set_more(true);
  }
  etcdserverpb::KeyValue* add(const std::string& key, int64_t revision) {
    auto* pair = response_.add_kvs();
    pair->set_key(key);
    pair->set_mod_revision(revision);
    return pair;
  }
  void expect_refused() {
    const absl::Status checked = check_answer(request_, response_);
    EXPECT_EQ(checked.code(), absl::StatusCode::kDataLoss) << checked;
  }

  etcdserverpb::RangeRequest request_;
  etcdserverpb::RangeResponse response_;
};

TEST_F(EtcdAnswersTest, APageIsTaken) {
  EXPECT_TRUE(check_answer(request_, response_).ok());
  response_.clear_kvs();
  response_.set_more(false);
  EXPECT_TRUE(check_answer(request_, response_).ok());
}

// A listing that goes on behind the last key would never end.
TEST_F(EtcdAnswersTest, FurtherKeysNeedAKeyToGoOnBehind) {
  response_.clear_kvs();
  expect_refused();
  add("p/a2", 5);
  add("p/a1", 5);
  expect_refused();
  response_.clear_kvs();
  add("p/a", 5);
  request_.set_key(std::string("p/a\0", 4));
  expect_refused();
}

TEST_F(EtcdAnswersTest, KeysAreThoseThatWereAskedFor) {
  response_.mutable_kvs(1)->set_key("p/b");
  expect_refused();
  request_.clear_range_end();
  response_.clear_kvs();
  add("p/a1", 5);
  expect_refused();
}

TEST_F(EtcdAnswersTest, NoMoreKeysThanWereAskedFor) {
  add("p/a3", 5);
  expect_refused();
}

// As unsigned numbers they would be later than everything.
TEST_F(EtcdAnswersTest, RevisionsAreOfThePast) {
  for (const int64_t revision : {int64_t{0}, int64_t{-1}, int64_t{10}}) {
    response_.mutable_kvs(0)->set_mod_revision(revision);
    expect_refused();
  }
  response_.mutable_kvs(0)->set_mod_revision(5);
  response_.mutable_header()->set_revision(-1);
  expect_refused();
}

TEST_F(EtcdAnswersTest, ValuesAreThoseOfABlock) {
  response_.mutable_kvs(0)->set_value(std::string(ClusterBlock::kMaxValueBytes + 1, 'v'));
  expect_refused();
  response_.mutable_kvs(0)->set_value("v");
  request_.set_keys_only(true);
  expect_refused();
}

TEST(EtcdTransactionAnswersTest, EachOperationIsAnswered) {
  etcdserverpb::TxnRequest request;
  request.add_success()->mutable_request_put()->set_key("k");
  request.add_failure()->mutable_request_range()->set_key("k");
  etcdserverpb::TxnResponse response;
  response.mutable_header()->set_revision(9);
  response.set_succeeded(true);
  EXPECT_EQ(check_answer(request, response).code(), absl::StatusCode::kDataLoss);
  auto* range = response.add_responses()->mutable_response_range();
  EXPECT_EQ(check_answer(request, response).code(), absl::StatusCode::kDataLoss);
  response.set_succeeded(false);
  EXPECT_TRUE(check_answer(request, response).ok());
  range->add_kvs()->set_key("another");
  range->mutable_kvs(0)->set_mod_revision(3);
  EXPECT_EQ(check_answer(request, response).code(), absl::StatusCode::kDataLoss);
}

// What is put without a lease stays for ever.
TEST(EtcdLeaseAnswersTest, ALeaseHasANumber) {
  etcdserverpb::LeaseGrantResponse response;
  EXPECT_EQ(check_answer(response).code(), absl::StatusCode::kDataLoss);
  response.set_id(-1);
  EXPECT_EQ(check_answer(response).code(), absl::StatusCode::kDataLoss);
  response.set_id(7);
  EXPECT_TRUE(check_answer(response).ok());
}

// A watch that took such a revision for its position would report nothing any more.
TEST(EtcdWatchAnswersTest, RevisionsAscend) {
  etcdserverpb::WatchResponse response;
  response.mutable_header()->set_revision(9);
  EXPECT_TRUE(check_answer(response).ok());
  response.add_events()->mutable_kv()->set_mod_revision(5);
  response.add_events()->mutable_kv()->set_mod_revision(5);
  EXPECT_TRUE(check_answer(response).ok());
  for (const int64_t revision : {int64_t{-1}, int64_t{0}, int64_t{4}}) {
    response.mutable_events(1)->mutable_kv()->set_mod_revision(revision);
    EXPECT_EQ(check_answer(response).code(), absl::StatusCode::kDataLoss) << revision;
  }
  response.clear_events();
  response.mutable_header()->set_revision(-1);
  EXPECT_EQ(check_answer(response).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace sluice::cluster_block

#include "control/proto/etcd.pb.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

enum Asked : char { kRange, kOneKey, kTransaction, kLease, kWatch };

std::string input(Asked asked, const google::protobuf::MessageLite& answer) {
  return std::string(1, asked) + answer.SerializeAsString();
}

void add_pair(etcdserverpb::RangeResponse* response, const std::string& key, int64_t revision,
              const std::string& value) {
  auto* pair = response->add_kvs();
  pair->set_key(key);
  pair->set_mod_revision(revision);
  pair->set_value(value);
}

void add_ranges(std::vector<std::string>* inputs) {
  etcdserverpb::RangeResponse none;
  none.mutable_header()->set_revision(9);
  inputs->push_back(input(kRange, none));
  inputs->push_back(input(kOneKey, none));
  etcdserverpb::RangeResponse page = none;
  add_pair(&page, "c/doc/a", 3, "value");
  add_pair(&page, "c/doc/ab", 9, "");
  add_pair(&page, "c/doc/ac", 5, std::string(200, 'v'));
  page.set_more(true);
  inputs->push_back(input(kRange, page));
  etcdserverpb::RangeResponse one = none;
  add_pair(&one, "c/doc/a", 3, "");
  inputs->push_back(input(kOneKey, one));
}

void add_transactions(std::vector<std::string>* inputs) {
  etcdserverpb::TxnResponse made;
  made.mutable_header()->set_revision(9);
  made.set_succeeded(true);
  made.add_responses()->mutable_response_put();
  made.add_responses()->mutable_response_delete_range()->set_deleted(1);
  inputs->push_back(input(kTransaction, made));
  etcdserverpb::TxnResponse refused;
  refused.mutable_header()->set_revision(9);
  add_pair(refused.add_responses()->mutable_response_range(), "c/doc/a", 8, "");
  refused.add_responses()->mutable_response_range();
  inputs->push_back(input(kTransaction, refused));
}

void add_others(std::vector<std::string>* inputs) {
  etcdserverpb::LeaseGrantResponse lease;
  lease.set_id(0x1234567890);
  lease.set_ttl(5);
  inputs->push_back(input(kLease, lease));
  etcdserverpb::WatchResponse watch;
  watch.mutable_header()->set_revision(9);
  watch.set_watch_id(1);
  for (const int64_t revision : {7, 7, 9}) {
    auto* event = watch.add_events();
    event->mutable_kv()->set_key("c/doc/a");
    event->mutable_kv()->set_mod_revision(revision);
  }
  inputs->push_back(input(kWatch, watch));
}

TEST(Fuzz, AnswersOfEtcdSurviveMutations) {
  std::vector<std::string> inputs;
  add_ranges(&inputs);
  add_transactions(&inputs);
  add_others(&inputs);
  run_mutations(inputs, 50'000);
}

}  // namespace
}  // namespace sluice::testing

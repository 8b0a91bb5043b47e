// Feeds the checks of etcd's answers anything. The first byte chooses what was asked.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <google/protobuf/stubs/logging.h>

#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/etcd_answers.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using cluster_block::check_answer;
using sluice::testing::require;
using sluice::testing::require_readable;

constexpr char kFirst[] = "c/doc/a";
constexpr char kEnd[] = "c/doc/b";
constexpr int64_t kLimit = 3;

template <typename Message>
bool parse(std::string_view bytes, Message* message) {
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

// A revision is handed on as an unsigned number, and compared as one.
void require_revision(int64_t revision) { require(revision > 0); }

void require_pair(const etcdserverpb::KeyValue& pair) {
  require_revision(pair.mod_revision());
  require(pair.value().size() <= ClusterBlock::kMaxValueBytes);
}

// A listing ends: each page has something that the one before had not, or is the last.
void read_range(std::string_view bytes, bool of_one_key) {
  etcdserverpb::RangeRequest request;
  request.set_key(kFirst);
  request.set_keys_only(of_one_key);
  if (!of_one_key) {
    request.set_range_end(kEnd);
    request.set_limit(kLimit);
  }
  etcdserverpb::RangeResponse response;
  if (!parse(bytes, &response)) return;
  const absl::Status checked = check_answer(request, response);
  require_readable(checked);
  if (!checked.ok()) return;
  require_revision(response.header().revision());
  require(!response.more() || response.kvs_size() > 0);
  require(response.kvs_size() <= (of_one_key ? 1 : kLimit));
  std::string next = kFirst;
  for (const auto& pair : response.kvs()) {
    require_pair(pair);
    require(pair.key() >= next && pair.key() < kEnd);
    require(!of_one_key || (pair.key() == kFirst && pair.value().empty()));
    next = pair.key() + '\0';
  }
}

etcdserverpb::TxnRequest some_transaction() {
  etcdserverpb::TxnRequest request;
  request.add_success()->mutable_request_put()->set_key(kFirst);
  request.add_success()->mutable_request_delete_range()->set_key(kEnd);
  for (const char* key : {kFirst, kEnd}) {
    auto* range = request.add_failure()->mutable_request_range();
    range->set_key(key);
    range->set_keys_only(true);
  }
  return request;
}

void read_transaction(std::string_view bytes) {
  const etcdserverpb::TxnRequest request = some_transaction();
  etcdserverpb::TxnResponse response;
  if (!parse(bytes, &response)) return;
  const absl::Status checked = check_answer(request, response);
  require_readable(checked);
  if (!checked.ok()) return;
  require_revision(response.header().revision());
  require(response.responses_size() == 2);
  if (response.succeeded()) return;
  for (int i = 0; i < 2; ++i) {
    const auto& kvs = response.responses(i).response_range().kvs();
    require(kvs.size() <= 1);
    if (kvs.empty()) continue;
    require(kvs.at(0).key() == request.failure(i).request_range().key());
    require_pair(kvs.at(0));
    require(kvs.at(0).mod_revision() <= response.header().revision());
  }
}

void read_lease(std::string_view bytes) {
  etcdserverpb::LeaseGrantResponse response;
  if (!parse(bytes, &response)) return;
  const absl::Status checked = check_answer(response);
  require_readable(checked);
  require(!checked.ok() || response.id() > 0);
}

void read_watch(std::string_view bytes) {
  etcdserverpb::WatchResponse response;
  if (!parse(bytes, &response)) return;
  const absl::Status checked = check_answer(response);
  require_readable(checked);
  if (!checked.ok()) return;
  require_revision(response.header().revision());
  int64_t last = 0;
  for (const auto& event : response.events()) {
    require_pair(event.kv());
    require(event.kv().mod_revision() >= last);
    last = event.kv().mod_revision();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // It reports each text that is not UTF-8.
  [[maybe_unused]] static auto* const reported = google::protobuf::SetLogHandler(nullptr);
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
    case 1:
      read_range(bytes, data[0] % 5 == 1);
      break;
    case 2:
      read_transaction(bytes);
      break;
    case 3:
      read_lease(bytes);
      break;
    default:
      read_watch(bytes);
      break;
  }
  return 0;
}

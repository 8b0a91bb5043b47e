#include "control/cluster_block/etcd_answers.h"

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice::cluster_block {
namespace {

using etcdserverpb::KeyValue;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::RequestOp;
using etcdserverpb::ResponseOp;

absl::Status check_header(const etcdserverpb::ResponseHeader& header) {
  if (header.revision() > 0) return absl::OkStatus();
  return data_loss("its own revision is {}", header.revision());
}

absl::Status check_pair(const KeyValue& pair) {
  if (pair.mod_revision() <= 0) {
    return data_loss("a key has revision {}", pair.mod_revision());
  }
  if (pair.value().size() > ClusterBlock::kMaxValueBytes) {
    return data_loss("a key has a value of {} bytes: at most {}", pair.value().size(),
                     ClusterBlock::kMaxValueBytes);
  }
  return absl::OkStatus();
}

bool is_asked_for(const RangeRequest& request, std::string_view key) {
  if (request.range_end().empty()) return key == request.key();
  return key >= request.key() && key < request.range_end();
}

// `head`: no revision is larger.
absl::Status check_range(const RangeRequest& request, const RangeResponse& response, int64_t head) {
  if (request.limit() > 0 && response.kvs_size() > request.limit()) {
    return data_loss("{} keys were asked for, and {} are answered", request.limit(),
                     response.kvs_size());
  }
  if (response.more() && response.kvs().empty()) {
    return data_loss("an answer without keys says that there are more");
  }
  std::string_view last;
  for (const KeyValue& pair : response.kvs()) {
    SLUICE_RETURN_IF_ERROR(check_pair(pair));
    if (!is_asked_for(request, pair.key())) return data_loss("a key was not asked for");
    if (&pair != &response.kvs(0) && pair.key() <= last) {
      return data_loss("the keys do not ascend");
    }
    if (pair.mod_revision() > head) {
      return data_loss("a key has revision {}, and the newest is {}", pair.mod_revision(), head);
    }
    if (request.keys_only() && !pair.value().empty()) {
      return data_loss("a key has a value, and only keys were asked for");
    }
    last = pair.key();
  }
  return absl::OkStatus();
}

absl::Status check_operation(const RequestOp& request, const ResponseOp& response, int64_t head) {
  const auto is_a = [&](ResponseOp::ResponseCase expected) {
    return response.response_case() == expected
               ? absl::OkStatus()
               : data_loss("an operation of a transaction is answered as another kind of one");
  };
  switch (request.request_case()) {
    case RequestOp::kRequestRange:
      SLUICE_RETURN_IF_ERROR(is_a(ResponseOp::kResponseRange));
      return check_range(request.request_range(), response.response_range(), head);
    case RequestOp::kRequestPut:
      return is_a(ResponseOp::kResponsePut);
    case RequestOp::kRequestDeleteRange:
      return is_a(ResponseOp::kResponseDeleteRange);
    case RequestOp::REQUEST_NOT_SET:
      break;
  }
  return is_a(ResponseOp::RESPONSE_NOT_SET);
}

}  // namespace

absl::Status check_answer(const RangeRequest& request, const RangeResponse& response) {
  SLUICE_RETURN_IF_ERROR(check_header(response.header()));
  return check_range(request, response, response.header().revision());
}

absl::Status check_answer(const etcdserverpb::TxnRequest& request,
                          const etcdserverpb::TxnResponse& response) {
  SLUICE_RETURN_IF_ERROR(check_header(response.header()));
  const auto& asked = response.succeeded() ? request.success() : request.failure();
  if (response.responses_size() != asked.size()) {
    return data_loss("{} operations of a transaction have {} answers", asked.size(),
                     response.responses_size());
  }
  for (int i = 0; i < asked.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(
        check_operation(asked.at(i), response.responses(i), response.header().revision()));
  }
  return absl::OkStatus();
}

absl::Status check_answer(const etcdserverpb::LeaseGrantResponse& response) {
  if (response.id() > 0) return absl::OkStatus();
  return data_loss("a lease that was granted has number {}", response.id());
}

absl::Status check_answer(const etcdserverpb::WatchResponse& response) {
  SLUICE_RETURN_IF_ERROR(check_header(response.header()));
  int64_t last = 0;
  for (const etcdserverpb::Event& event : response.events()) {
    SLUICE_RETURN_IF_ERROR(check_pair(event.kv()));
    if (event.kv().mod_revision() < last) return data_loss("the events do not ascend");
    last = event.kv().mod_revision();
  }
  return absl::OkStatus();
}

}  // namespace sluice::cluster_block

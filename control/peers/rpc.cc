#include "control/peers/rpc.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <utility>

#include "base/status.h"

namespace sluice {
namespace {

absl::Status check_sizes(size_t key_bytes, uint64_t value_bytes, bool tombstone) {
  if (key_bytes == 0 || key_bytes > kMaxKeyBytes) {
    return invalid_argument("key of {} bytes: 1 to {}", key_bytes, kMaxKeyBytes);
  }
  if (value_bytes > kMaxValueBytes) {
    return invalid_argument("value of {} bytes: at most {}", value_bytes, kMaxValueBytes);
  }
  if (tombstone && value_bytes != 0) {
    return invalid_argument("a tombstone with a value of {} bytes", value_bytes);
  }
  return absl::OkStatus();
}

// A status travels in HTTP/2 headers, which peers limit to 8 KiB.
constexpr size_t kMaxReason = 3000;

// gRPC tells of a lost connection in words of its own.
std::string plain_reason(const grpc::Status& status) {
  const std::string& text = status.error_message();
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED && text == "Deadline Exceeded") {
    return "did not answer in time";
  }
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return text;
  if (text.starts_with("failed to connect")) {
    const size_t refused = text.find("Connection refused");
    return refused == std::string::npos ? "cannot be reached"
                                        : "is not running (connection refused)";
  }
  if (text == "keepalive watchdog timeout") return "stands still, or is cut off";
  const bool broken = text == "Socket closed" || text.starts_with("recvmsg:") ||
                      text.starts_with("Connection reset") || text.starts_with("GOAWAY");
  return broken ? "broke off the connection" : text;
}
}  // namespace

grpc::Status to_grpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()),
          std::string(message_of(status).substr(0, kMaxReason))};
}

absl::Status from_grpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), plain_reason(status));
}

absl::Status from_peer(const grpc::Status& status, std::string_view node) {
  return with_context(from_grpc(status), node);
}

bool is_away(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded;
}

bool is_unreached(const grpc::Status& status) {
  return plain_reason(status) != status.error_message();
}

std::shared_ptr<grpc::Channel> make_channel(const std::string& address, const Callee& callee) {
  keep_grpc();
  grpc::ChannelArguments arguments = channel_arguments();
  arguments.SetMaxReceiveMessageSize(kMaxRpcBytes);
  arguments.SetMaxSendMessageSize(kMaxRpcBytes);
  // A node that comes back is found within a second.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  return grpc::experimental::CreateCustomChannelWithInterceptors(
      address, grpc::InsecureChannelCredentials(), arguments, naming(callee));
}

void fill(const RecordView& record, v1::Record* out) {
  out->set_key(record.key.data(), record.key.size());
  out->set_value(record.value.data(), record.value.size());
  out->set_stamp(record.version.stamp);
  out->set_node(record.version.node);
  out->set_tombstone(record.tombstone);
}

void fill(std::string_view key, const RecordSummary& summary, v1::ScanItem* out) {
  out->set_key(key.data(), key.size());
  out->set_stamp(summary.version.stamp);
  out->set_node(summary.version.node);
  out->set_tombstone(summary.tombstone);
  out->set_value_bytes(summary.value_bytes);
  out->set_digest_low(summary.value_digest.low);
  out->set_digest_high(summary.value_digest.high);
}

absl::StatusOr<RecordView> view_of(const v1::Record& record) {
  SLUICE_RETURN_IF_ERROR(
      check_sizes(record.key().size(), record.value().size(), record.tombstone()));
  return RecordView{
      record.key(), record.value(), {record.stamp(), record.node()}, record.tombstone()};
}

absl::StatusOr<RecordSummary> summary_of(const v1::ScanItem& item) {
  SLUICE_RETURN_IF_ERROR(check_sizes(item.key().size(), item.value_bytes(), item.tombstone()));
  return RecordSummary{{item.stamp(), item.node()},
                       item.tombstone(),
                       item.value_bytes(),
                       {item.digest_low(), item.digest_high()}};
}

absl::StatusOr<std::optional<Record>> record_of(std::string_view node, std::string_view key,
                                                v1::ReadReply& reply) {
  if (reply.results_size() != 1) {
    return data_loss("{}: answered a read of one record with {}", node, reply.results_size());
  }
  if (!reply.results(0).found()) return std::optional<Record>();
  v1::Record& record = *reply.mutable_results(0)->mutable_record();
  if (const auto view = view_of(record); !view.ok()) {
    return data_loss("{}: answered a read with no record: {}", node, message_of(view.status()));
  }
  if (record.key() != key) {
    return data_loss("{}: answered a read of one key with the record of another", node);
  }
  return Record{std::move(*record.mutable_key()),
                std::move(*record.mutable_value()),
                {record.stamp(), record.node()},
                record.tombstone()};
}

std::string encode_digests(const std::vector<SlotDigest>& digests) {
  std::string out;
  out.reserve(digests.size() * SlotDigest::kEncodedBytes);
  ByteWriter writer(&out);
  for (const SlotDigest& digest : digests) digest.encode(writer);
  return out;
}

absl::StatusOr<std::vector<SlotDigest>> decode_digests(std::string_view bytes, uint32_t slots) {
  if (bytes.size() != size_t{slots} * SlotDigest::kEncodedBytes) {
    return data_loss("{} bytes of slot digests, {} expected", bytes.size(),
                     size_t{slots} * SlotDigest::kEncodedBytes);
  }
  std::vector<SlotDigest> digests(slots);
  ByteReader reader(bytes);
  for (SlotDigest& digest : digests) {
    if (!SlotDigest::decode(reader, &digest)) return data_loss("a slot digest does not decode");
  }
  return digests;
}

}  // namespace sluice

// What every gRPC call of the project shares: statuses, deadlines, limits, records on the wire.
#ifndef SLUICE_CONTROL_PEERS_RPC_H_
#define SLUICE_CONTROL_PEERS_RPC_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/peers/callee.h"
#include "control/proto/channels.h"
#include "control/proto/common.pb.h"
#include "control/proto/peer.pb.h"
#include "dataplane/block/record.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

// A record of the largest key and value, with room for what surrounds it.
inline constexpr int kMaxRpcBytes = 80 << 20;
// How many bytes of records are put together into one message, where a single record is not larger.
inline constexpr size_t kBatchBytes = size_t{1} << 20;
inline constexpr size_t kBatchRecords = 1024;

grpc::Status to_grpc(const absl::Status& status);
absl::Status from_grpc(const grpc::Status& status);
// from_grpc() with "NODE: " before the message.
absl::Status from_peer(const grpc::Status& status, std::string_view node);

// Whether a call failed for want of an answer: the node is down, cut off, or too slow.
bool is_away(const absl::Status& status);

// Of a failed call: no node has answered it.
bool is_unreached(const grpc::Status& status);

// Plain text to an address of the form HOST:PORT. Connects when first used. Its calls say whom they
// are meant for.
std::shared_ptr<grpc::Channel> make_channel(const std::string& address, const Callee& callee = {});

void fill(const RecordView& record, v1::Record* out);
// Without the value.
void fill(std::string_view key, const RecordSummary& summary, v1::ScanItem* out);
// Views into the message. INVALID_ARGUMENT for sizes that no record has.
absl::StatusOr<RecordView> view_of(const v1::Record& record);
// Likewise. Its value, where one came along, is the caller's to compare.
absl::StatusOr<RecordSummary> summary_of(const v1::ScanItem& item);
// What the node answered when it was asked for this one record: nullopt when it has none.
// DATA_LOSS, naming the node, for any other record. Moves out of the reply.
absl::StatusOr<std::optional<Record>> record_of(std::string_view node, std::string_view key,
                                                v1::ReadReply& reply);

std::string encode_digests(const std::vector<SlotDigest>& digests);
// DATA_LOSS unless it holds exactly `slots` digests.
absl::StatusOr<std::vector<SlotDigest>> decode_digests(std::string_view bytes, uint32_t slots);

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_RPC_H_

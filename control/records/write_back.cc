#include "control/records/write_back.h"

#include "base/status.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.pb.h"

namespace sluice {

size_t write_back(const NodeContext& context, const RecordView& record,
                  std::span<const std::string> replicas, size_t needed, const ReplicaTimes& times,
                  std::string* reasons) {
  ReplicaQuestion<v1::ApplyRequest, v1::ApplyReply> question;
  const uint64_t epoch = context.directory->snapshot()->epoch();
  question.request.set_epoch(epoch);
  fill(record, question.request.add_records());
  question.begin = [](PeerNode& node, grpc::ClientContext* call, const v1::ApplyRequest* request,
                      v1::ApplyReply* reply, auto done) {
    node.peer().async()->Apply(call, request, reply, std::move(done));
  };
  question.here = [&]() -> absl::Status {
    const std::span<const RecordView> records(&record, 1);
    SLUICE_ASSIGN_OR_RETURN(const auto results, context.store->apply(records));
    return clash_among(records, results);
  };
  question.take = [epoch](PeerNode& node, const v1::ApplyReply& reply) -> absl::Status {
    if (reply.epoch() != epoch) return unavailable("has another distribution table");
    node.remember(reply.token(), reply.sequence());
    return absl::OkStatus();
  };
  return ask_replicas(context, replicas, needed, times, question, reasons);
}

}  // namespace sluice

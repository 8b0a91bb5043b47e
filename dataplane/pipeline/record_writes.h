// Records of imports on their way to their replicas: the node's side of kRecordWrite requests.
//
// The first replica applies the batch and forwards the same arena buffer, untouched, to the other
// replicas of its records' slots, which are the same for all of them. It answers as soon as what
// the replicas said decides the batch: it is durable on a write quorum, or it is undecided, and the
// client sends it again as it is (docs/architecture.md, writing).
#ifndef SLUICE_DATAPLANE_PIPELINE_RECORD_WRITES_H_
#define SLUICE_DATAPLANE_PIPELINE_RECORD_WRITES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataplane/block/record.h"
#include "dataplane/pipeline/request_client.h"
#include "dataplane/pipeline/slot_router.h"
#include "dataplane/store/store.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

// Records of one request, at most.
inline constexpr size_t kMaxBatchRecords = 8192;

// What a replica answers to its coordinator.
struct ApplyAnswer {
  absl::Status refused;  // not OK: nothing was applied
  absl::Status failed;   // not OK: it may have been applied
  std::string token;     // of the store's join, and how far its log is durable
  uint64_t sequence = 0;
  uint64_t missed_cut = 0;  // the cut that some records came too late for; 0: none

  std::string encode() const;
  static absl::StatusOr<ApplyAnswer> decode(std::string_view payload);
  static absl::StatusOr<ApplyAnswer> of(const RequestClient::Outcome& outcome) {
    return outcome.reply.ok() ? decode(*outcome.reply) : outcome.reply.status();
  }
};

// What a coordinator answers to the client.
struct RecordWriteReply {
  absl::Status refused;  // not OK: nothing was applied anywhere
  // The stamp that all of them are acknowledged as of (WriteTally::as_of); 0: they are undecided.
  uint64_t as_of = 0;
  std::string reason;  // where undecided

  std::string encode() const;
  static absl::StatusOr<RecordWriteReply> decode(std::string_view payload);
  static absl::StatusOr<RecordWriteReply> of(const RequestClient::Outcome& outcome) {
    return outcome.reply.ok() ? decode(*outcome.reply) : outcome.reply.status();
  }
};

// Thread-safe. All references outlive it.
class RecordWrites {
 public:
  struct Options {
    std::string node;  // this node's name, as the router names it
    size_t quorum = 1;
    int64_t send_timeout_ms = 3'000;  // a replica that takes nothing for so long is passed over
    int64_t timeout_ms = 10'000;      // for all replicas' answers
    // Told of each answer of another node.
    std::function<void(const std::string& node, const std::string& token, uint64_t sequence)>
        on_answer;
  };
  RecordWrites(Store& store, SlotRouter& router, RequestClient& peers, const Options& options)
      : store_(store), router_(router), peers_(peers), options_(options) {}

  // The reply to a client's request. Waits for the replicas; forwards the message's buffer.
  std::string coordinate(Message& message);
  // The reply to a coordinator's.
  std::string apply(const Message& message);

 private:
  class Round;
  struct Batch {
    std::vector<RecordView> records;
    std::vector<SlotRoute::Replica> replicas;
  };
  // What cannot be applied is refused before anything is applied anywhere.
  absl::StatusOr<Batch> check(const Message& message);
  void forward(const Batch& batch, Message& message, const std::shared_ptr<Round>& round);
  ApplyAnswer apply_records(const std::vector<RecordView>& records);

  Store& store_;
  SlotRouter& router_;
  RequestClient& peers_;
  const Options options_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RECORD_WRITES_H_

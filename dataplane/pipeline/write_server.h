// The serving node's side of a restore: applies data writing requests and forwards them to the
// slot's other replicas. Takes the records of imports as well (record_writes.h).
//
// A request of a kWrite stream is applied here and forwarded, the same arena buffer, untouched,
// over kForward streams to the other replicas of its slots, which all have the same ones; the reply
// goes back when all have answered. A request of a kForward stream is only applied. One that says
// kKeep need not be durable before the end of its lot (write_lots.h): it is kept in memory, and the
// reply says so. A request whose epoch is not this node's, or with a slot that this node does not
// hold, is refused before anything is applied anywhere. One that fails may have been carried out in
// part.
#ifndef SLUICE_DATAPLANE_PIPELINE_WRITE_SERVER_H_
#define SLUICE_DATAPLANE_PIPELINE_WRITE_SERVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/stage.h"
#include "dataplane/pipeline/slot_router.h"
#include "dataplane/pipeline/write_lots.h"
#include "dataplane/store/store.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

// The payload of a kWriteReply.
struct WriteReply {
  struct Failure {
    std::string node;
    absl::Status status;
  };
  // Of the coordinator's own store; the other replicas' are the same unless they differed before.
  uint64_t changed = 0;
  uint64_t kept_newer = 0;  // records that were there already, newer or equal
  uint64_t kept_equal = 0;  // of these: with the same value
  // Empty: durable on every replica.
  std::vector<Failure> failures;
  static constexpr size_t kMaxFailures = 64;
  // Who has it, and in which store: a node may come back with another one.
  struct Holder {
    std::string node;
    std::string store;     // Store::store_id()
    uint64_t keeping = 0;  // 0: durably; else the token by which the end of the lot is asked for
    friend auto operator<=>(const Holder&, const Holder&) = default;
  };
  std::vector<Holder> holders;
  static constexpr size_t kMaxHolders = 64;
  // By slot, where a replica had records that are newer than the request's and have other values:
  // the largest numbers over the replicas.
  std::map<uint32_t, KeptRecords> kept;
  static constexpr size_t kMaxKept = 64 << 10;

  std::string encode() const;
  static absl::StatusOr<WriteReply> decode(std::string_view payload);
  // Of what RequestClient::finish() returns.
  static absl::StatusOr<WriteReply> of(const absl::StatusOr<std::string>& payload) {
    if (!payload.ok()) return payload.status();
    return decode(*payload);
  }
};

class WriteServer {
 public:
  struct Options {
    std::string node;            // this node's name, as the router names it
    size_t write_workers = 4;    // requests of clients in work at a time
    size_t forward_workers = 4;  // requests of other replicas; a pool of their own, so that no two
                                 // nodes wait for each other
    size_t write_receive_blocks = 3;      // of each client's stream
    size_t forward_receive_blocks = 1;    // of each peer's
    int64_t forward_timeout_ms = 20'000;  // for sending to each peer, and for all their replies
    int64_t tick_ms = 200;  // how often time limits of lots and requests are looked at
    WriteLots::Options lots;
    Stage* keep = nullptr;  // at work while blocks are checked and kept; outlives the server
    // Asked before each answer leaves; where it is not OK, the stream is closed with it instead.
    std::function<absl::Status()> gate;
    size_t write_quorum = 1;  // replicas on which a record of an import has to be durable
    // Told of each answer of another node to such a record: RecordWrites::Options.
    std::function<void(const std::string& node, const std::string& token, uint64_t sequence)>
        on_answer;
  };
  struct Counters {
    uint64_t requests = 0;
    uint64_t forwarded = 0;  // requests of other replicas applied here
    uint64_t refused = 0;    // stale epoch, foreign slot, damaged block
    uint64_t records_changed = 0;
    uint64_t kept = 0;  // requests that wait, or waited, for the end of their lot
  };
  // Serves kWrite and kForward streams from now on. All references outlive it.
  static absl::StatusOr<std::unique_ptr<WriteServer>> start(Exchange& exchange, Store& store,
                                                            SlotRouter& router,
                                                            const Options& options);
  // Closes its streams and waits for what is in work.
  virtual ~WriteServer() = default;
  virtual Counters counters() const = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_WRITE_SERVER_H_

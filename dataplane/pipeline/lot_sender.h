// Sends the units of a restore's lots: their blocks go out in full requests, without waiting for
// replies, and the replicas retain them in memory until the lot's end makes them durable
// (write_lots.h). Internal to dataplane/pipeline.
//
// A unit of a lot is accounted for in one of two places: where a reply says that it failed (or
// needs no lot), and where its lot ends. It is sent again as a unit of its own (unit_sender.h).
#ifndef SLUICE_DATAPLANE_PIPELINE_LOT_SENDER_H_
#define SLUICE_DATAPLANE_PIPELINE_LOT_SENDER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "dataplane/pipeline/restore_context.h"

namespace sluice {

// Thread-safe. The buffers bound what is in flight. The context's client is gone before it.
class LotSender {
 public:
  explicit LotSender(RestoreContext& context) : context_(context) {}

  // Units of one lot, of slots with the same replicas: as many in one request as it holds.
  void send(const std::vector<RestorePlan::Unit>& units);
  // All units of the lot were sent and answered. Asks all nodes at once what became of the blocks
  // that they retain, and accounts for the units by what they answer.
  void end(int lot);

 private:
  struct Flight;
  struct Request;
  // A unit whose blocks all replicas retain.
  struct RetainedUnit {
    RestorePlan::Unit unit;
    UnitTry result;
  };
  using Answers = std::map<LotReplica, absl::StatusOr<WriteReply>>;

  absl::Status add_block(const std::shared_ptr<Flight>& flight, const BlockLocation& location,
                         Request* request);
  void send_request(Request request);
  void land(const std::shared_ptr<Flight>& flight);

  Answers ask(int lot, const std::set<LotReplica>& questions);
  absl::StatusOr<RequestClient::CallPtr> send_end(int lot, const LotReplica& question);
  // The lot's number among those of all restores.
  uint64_t lot_id(int lot) const;

  RestoreContext& context_;
  Mutex mutex_;
  std::map<int, std::vector<RetainedUnit>> retained_ SLUICE_GUARDED_BY(mutex_);  // by lot
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_LOT_SENDER_H_

// Takes writes for the whole cluster: sends them, with the version that they have, to the replicas
// of their slots, and acknowledges each when W replicas have it durably.
//
// Rules it keeps (docs/architecture.md, writing and the cut):
//  1. A write is acknowledged only after W durable answers. A replica where something newer stands
//  counts: the version is above all that was acknowledged before the write began
//  (StampCoordinator), so what beats it is a concurrent write that it is ordered before.
//  2. A write has one version, however often and through whichever nodes it is sent. A repeat
//  changes nothing, and a request that is carried out late comes above nothing that was
//  acknowledged before its version was asked for.
//  3. A write that too few replicas took before their cuts counts as written after the cut, and its
//  acknowledgement says so: as_of.
//  4. Acknowledged writes do not wait for the other replicas; what is still under way to a slow one
//  is bounded (PeerNode::kMaxBytesInFlight). Beyond that new writes wait for it, so that replicas
//  of different speeds stay equal; one that makes no room at all for kRoomWaitMs is passed over. A
//  write that is not acknowledged may or may not have happened.
// Thread-safe.
#ifndef SLUICE_CONTROL_RECORDS_WRITE_COORDINATOR_H_
#define SLUICE_CONTROL_RECORDS_WRITE_COORDINATOR_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "control/peers/node_context.h"
#include "control/proto/peer.pb.h"
#include "dataplane/block/record.h"

namespace sluice {

struct WriteItem {
  std::string_view key;
  std::string_view value;
  bool tombstone = false;
};

struct WriteResult {
  // UNAVAILABLE names the slot, the nodes that did not answer and why.
  absl::Status status;
  // Of an acknowledged one: the stamp that it counts as written at, its version's or one above a
  // cut.
  uint64_t as_of = 0;
};

class WriteCoordinator {
 public:
  struct Options {
    int64_t timeout_ms = 10'000;  // of one write, retries included
    int64_t call_ms =
        30'000;      // of one call of a replica, which may go on after the write was acknowledged
    int rounds = 8;  // stale tables and failed quorums together
  };
  explicit WriteCoordinator(const NodeContext& context) : WriteCoordinator(context, Options()) {}
  WriteCoordinator(const NodeContext& context, const Options& options);

  // Parallel to the items, whose keys are distinct. `version` is of all of them.
  std::vector<WriteResult> write(std::span<const WriteItem> items, const Version& version);

 private:
  struct Pending;
  struct Round;
  struct Call;
  std::shared_ptr<Round> send_round(std::vector<Pending>& items, const Version& version,
                                    bool everyone, int64_t timeout_ms);
  // Takes the answers: acknowledges, or leaves in `pending` what is to be sent again.
  void take_round(Round& round, const Version& version, std::vector<Pending>& pending,
                  std::vector<WriteResult>& results);
  void apply_here(const std::shared_ptr<Round>& round, const std::vector<Pending>& items,
                  const Version& version, std::span<const size_t> indexes);
  void apply_there(const std::shared_ptr<Round>& round, const std::string& node, uint64_t epoch,
                   const std::vector<Pending>& items, const Version& version,
                   std::span<const size_t> indexes, bool everyone, int64_t timeout_ms);

  const NodeContext& context_;
  const Options options_;
  const size_t quorum_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_WRITE_COORDINATOR_H_

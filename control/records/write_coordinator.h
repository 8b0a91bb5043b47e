// Takes writes for the whole cluster: sends them, with the version that the client gave them, to
// the replicas of their slots, and acknowledges each when W replicas have it durably.
//
// Rules it keeps (docs/architecture.md, writing and the cut):
//  1. A write is acknowledged only after W durable answers, none of which said after_cut. Only a
//  replica where this write is the newest counts (applied or equal), or one that had answered it
//  before: what stands above it there came afterwards, so it is a concurrent write that this one is
//  ordered before.
//  2. A write has one version, whatever becomes of it here: a request that is carried out late (its
//  node was stopped meanwhile), after its client has repeated it elsewhere, must not come above
//  what has been written since. One that meets a newer record, or is short of W because of
//  after_cut answers, is not acknowledged; its client, which alone knows whether it still waits, is
//  told above what it may give it another version.
//  3. A write that is not acknowledged may or may not have happened. The leave for another version
//  is given only in the first sending of a version, or while W replicas hold it as their newest:
//  then no acknowledged write can be above it that the new version would undo. Otherwise it fails
//  (ABORTED where another write overtook it).
//  4. Acknowledged writes do not wait for the other replicas; what is still under way to a slow one
//  is bounded
//     (PeerNode::kMaxBytesInFlight). Beyond that new writes wait for it, so that replicas of
//     different speeds stay equal; one that makes no room at all for kRoomWaitMs is passed over.
// Thread-safe.
#ifndef SLUICE_CONTROL_RECORDS_WRITE_COORDINATOR_H_
#define SLUICE_CONTROL_RECORDS_WRITE_COORDINATOR_H_

#include <memory>
#include <optional>
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
  // Replicas that have answered it with an earlier version, and held nothing above this one then.
  std::vector<std::string> answered;
};

// The version of a request's writes.
struct WriteOrigin {
  Version version;        // of all of them, whose keys are distinct
  bool in_doubt = false;  // they were sent with it before, and may have been applied
};

// What a replica answers of one record. nullopt for an outcome that is none of ours: it must not
// count as applied.
std::optional<ApplyResult> apply_result_of(const v1::ApplyReply::Result& from);

struct WriteResult {
  // UNAVAILABLE names the slot, the nodes that did not answer and why.
  absl::Status status;
  // Where it may be given another version: what that must be above, and the replicas that have
  // answered it. 0: it may not.
  uint64_t restamp_above = 0;
  std::vector<std::string> answered;
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

  // Parallel to the items.
  std::vector<WriteResult> write(std::span<const WriteItem> items, const WriteOrigin& origin);

 private:
  struct Pending;
  struct Round;
  struct Call;
  std::shared_ptr<Round> send_round(std::vector<Pending>& items, const Version& version,
                                    bool everyone, int64_t timeout_ms);
  // Takes the answers: acknowledges, fails, or leaves in `pending` what is to be sent again. True
  // when a quorum failed, so that sending again at once is of no use.
  bool take_round(Round& round, std::vector<Pending>& pending, std::vector<WriteResult>& results);
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

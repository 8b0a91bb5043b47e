// What stands between gRPC and the handlers: nobody is served before the node has joined, or who
// meant another node, how many calls of each kind may be in work at once, and the end of every
// exception. Thread-safe.
//
// A call occupies a thread of its node until it ends, and a stream does so for as long as its
// reader likes. The bounds below leave threads for what nodes ask of each other (kCluster), which
// gets the most: a node's threads are the sum of all.
#ifndef SLUICE_CONTROL_SERVICE_GUARDED_SERVICES_H_
#define SLUICE_CONTROL_SERVICE_GUARDED_SERVICES_H_

#include <array>
#include <atomic>
#include <string_view>

#include "base/guard.h"
#include "base/status.h"
#include "control/peers/rpc.h"
#include "control/service/peer_service.h"
#include "control/service/serving_service.h"

namespace sluice {

// The calls that are in work.
class Admission {
 public:
  enum class Kind {
    kCluster,  // short calls of other nodes
    kWrite,
    kGet,
    kCount,
    kExport,
    kScan,     // of one slot, for another node's export or count
    kBackup,   // followed by a client, cancelled, deleted
    kVerify,   // of a backup, or of one part of one
    kRestore,  // sending of one part, or listing of its failed units
    kKinds,
  };
  static constexpr std::array<int, static_cast<size_t>(Kind::kKinds)> kMost = {256, 128, 64, 24, 24,
                                                                               48,  24,  16, 16};

  // One call; counted for as long as it lives.
  class Call {
   public:
    Call(Admission& admission, Kind kind)
        : counter_(admission.in_work_[static_cast<size_t>(kind)]),
          most_(kMost[static_cast<size_t>(kind)]),
          number_(++counter_) {}
    ~Call() { --counter_; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    // RESOURCE_EXHAUSTED when there are too many.
    absl::Status check(std::string_view what) const {
      if (number_ <= most_) return absl::OkStatus();
      return resource_exhausted(
          "{} calls like {} are in work on this node, the most there may be; try again later, or "
          "on another node",
          most_, what);
    }

   private:
    std::atomic<int>& counter_;
    const int most_;
    const int number_;
  };

 private:
  std::array<std::atomic<int>, static_cast<size_t>(Kind::kKinds)> in_work_{};
};

constexpr int max_rpc_threads() {
  int sum = 0;
  for (const int most : Admission::kMost) sum += most;
  return sum;
}

template <typename Method>
struct HandlerTypes;
template <typename Service, typename Asked, typename Answered>
struct HandlerTypes<grpc::Status (Service::*)(grpc::ServerContext*, const Asked*, Answered*)> {
  using Request = Asked;
  using Reply = Answered;  // or the writer of a stream
};

// One method: types as the generated service declares them.
#define SLUICE_GUARDED_(method, kind)                                                    \
  grpc::Status method(grpc::ServerContext* call,                                         \
                      const HandlerTypes<decltype(&Service::method)>::Request* request,  \
                      HandlerTypes<decltype(&Service::method)>::Reply* reply) override { \
    return to_grpc(guarded(#method, [&]() -> absl::Status {                              \
      SLUICE_RETURN_IF_ERROR(Unguarded::check_ready(*call));                             \
      const Admission::Call admitted(admission_, Admission::Kind::kind);                 \
      SLUICE_RETURN_IF_ERROR(admitted.check(#method));                                   \
      return from_handler(Unguarded::method(call, request, reply));                      \
    }));                                                                                 \
  }

// A handler's status as it is: from_grpc() would put a client's words on it.
inline absl::Status from_handler(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

class GuardedPeerService final : public PeerService {
 public:
  using PeerService::PeerService;

  SLUICE_GUARDED_(Apply, kCluster)
  SLUICE_GUARDED_(Read, kCluster)
  SLUICE_GUARDED_(ScanSlot, kScan)
  SLUICE_GUARDED_(Digests, kCluster)
  SLUICE_GUARDED_(FindMissing, kCluster)
  SLUICE_GUARDED_(Stages, kCluster)
  SLUICE_GUARDED_(ReadClock, kCluster)
  SLUICE_GUARDED_(RecallStore, kCluster)
  SLUICE_GUARDED_(ObserveStamp, kCluster)
  SLUICE_GUARDED_(ArmCut, kCluster)
  SLUICE_GUARDED_(CutDigests, kCluster)
  SLUICE_GUARDED_(DropCut, kCluster)
  SLUICE_GUARDED_(DropBackup, kCluster)
  SLUICE_GUARDED_(DurableSlots, kCluster)
  SLUICE_GUARDED_(FetchPart, kCluster)
  SLUICE_GUARDED_(FetchPlan, kCluster)
  SLUICE_GUARDED_(ReportProgress, kCluster)
  SLUICE_GUARDED_(CommitArchive, kCluster)
  SLUICE_GUARDED_(VerifyArchive, kVerify)
  SLUICE_GUARDED_(CheckArchive, kCluster)
  SLUICE_GUARDED_(DeleteArchive, kCluster)

 private:
  using Unguarded = PeerService;
  Admission admission_;
};

class GuardedServingService final : public ServingService {
 public:
  using ServingService::ServingService;

  SLUICE_GUARDED_(Stamp, kGet)
  SLUICE_GUARDED_(Write, kWrite)
  SLUICE_GUARDED_(Get, kGet)
  SLUICE_GUARDED_(Count, kCount)
  SLUICE_GUARDED_(Export, kExport)
  SLUICE_GUARDED_(Status, kGet)
  SLUICE_GUARDED_(CreateBackup, kBackup)
  SLUICE_GUARDED_(ResumeBackup, kBackup)
  SLUICE_GUARDED_(CancelBackup, kBackup)
  SLUICE_GUARDED_(VerifyBackup, kVerify)
  SLUICE_GUARDED_(DeleteBackup, kBackup)
  SLUICE_GUARDED_(RestorePart, kRestore)
  SLUICE_GUARDED_(ReadUnits, kRestore)

 private:
  using Unguarded = ServingService;
  Admission admission_;
};

#undef SLUICE_GUARDED_

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_GUARDED_SERVICES_H_

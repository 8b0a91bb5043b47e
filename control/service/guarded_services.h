// What stands between whatever carries calls and the services that answer them: nobody is served
// before the node has joined, or who meant another node, how many calls of each kind may be in work
// at once, and the end of every exception. Thread-safe.
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
#include "base/text.h"
#include "control/peers/node_context.h"
#include "control/service/incoming_call.h"
#include "control/service/peer_service.h"
#include "control/service/serving_service.h"

namespace sluice {

// The calls that are in work.
class Admission {
 public:
  enum class Kind {
    kCluster,  // short calls of other nodes
    kWrite,
    kStamp,
    kGet,
    kCount,
    kExport,
    kScan,      // of one slot, for another node's export or count
    kBackup,    // followed by a client, cancelled, deleted
    kVerify,    // of a backup, or of one part of one
    kRestore,   // sending of one part, or listing of its failed units
    kContents,  // of one part: what is in it, for a client that looks into a backup
    kKinds,
  };
  static constexpr std::array<int, static_cast<size_t>(Kind::kKinds)> kMost = {
      256, 128, 64, 64, 24, 24, 48, 24, 16, 16, 12};

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

// Too long to be done again for a moment without the cluster block: steps have fences of their own,
// and an archive has no other version.
constexpr bool is_job(Admission::Kind kind) {
  return kind == Admission::Kind::kBackup || kind == Admission::Kind::kVerify ||
         kind == Admission::Kind::kRestore || kind == Admission::Kind::kContents;
}

constexpr int max_rpc_threads() {
  int sum = 0;
  for (const int most : Admission::kMost) sum += most;
  return sum;
}

// The types of a service's function, for what is made from the list of calls.
template <typename Handler>
struct HandlerTypes;
template <typename Of, typename Asked, typename Answered>
struct HandlerTypes<absl::Status (Of::*)(IncomingCall&, const Asked&, Answered*)> {
  using Service = Of;
  using Request = Asked;
  using Reply = Answered;  // or the sink of a stream's pages
};

// A service whose calls are guarded. The context outlives it.
template <typename Service>
class Guarded {
 public:
  // With what the service is made of beside the context.
  template <typename... Parts>
  explicit Guarded(const NodeContext& context, Parts&... parts)
      : context_(context), service_(context, parts...) {}

  Service& service() { return service_; }

  // `handler` is one of the service's; `reply` is what it fills, or the sink of its pages.
  // UNAVAILABLE before the node has joined, once it stops or may no longer serve (asked again
  // before a success is answered), and where the call is meant for another node.
  template <typename Request, typename Reply>
  absl::Status answer(std::string_view method, Admission::Kind kind,
                      absl::Status (Service::*handler)(IncomingCall&, const Request&, Reply*),
                      IncomingCall& call, const Request& request, Reply* reply) {
    const absl::Status status = guarded(method, [&]() -> absl::Status {
      SLUICE_RETURN_IF_ERROR(context_.check_ready());
      SLUICE_RETURN_IF_ERROR(check_callee(call.callee(), context_.cluster().uuid, context_.name));
      const Admission::Call admitted(admission_, kind);
      SLUICE_RETURN_IF_ERROR(admitted.check(method));
      SLUICE_RETURN_IF_ERROR((service_.*handler)(call, request, reply));
      return is_job(kind) ? absl::OkStatus() : context_.check_ready();
    });
    // What it repeats of a request goes to logs and terminals.
    if (status.ok()) return status;
    return {status.code(), printable(message_of(status), kMaxErrorBytes)};
  }

 private:
  static constexpr size_t kMaxErrorBytes = 1000;

  const NodeContext& context_;
  Service service_;
  Admission admission_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_GUARDED_SERVICES_H_

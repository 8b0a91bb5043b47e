// Calls between the nodes and clients of this process without gRPC: from a stub's interface
// straight to the guarded service of the node at an address, on a thread of that node. They end as
// gRPC's do: with the answer, at their deadline, when they are cancelled or the node stops.
//
// A simulated cluster overrides carry(), by which each message goes: to delay it, to lose it, or to
// keep it from one side of a partition.
#ifndef SLUICE_TESTS_CONTROL_CALLS_DIRECT_CALLS_H_
#define SLUICE_TESTS_CONTROL_CALLS_DIRECT_CALLS_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "control/node/call_server.h"
#include "control/peers/peer_link.h"

namespace sluice {

class DirectCall;
class DirectServer;

// On its way between a caller and a node.
struct DirectMessage {
  enum class Kind { kRequest, kAnswer, kPage };
  const std::string& from;  // what make_dialer() was told of a caller, a node's address
  const std::string& to;
  Kind kind;
  const char* method;  // the call's
  const std::shared_ptr<DirectCall>& call;
  const google::protobuf::Message* request = nullptr;  // the call's; not of a page
  const grpc::Status* status = nullptr;                // of an answer
  const google::protobuf::Message* reply = nullptr;    // likewise; not of a stream
};

// Thread-safe. Outlives its servers and dialers.
class DirectNetwork {
 public:
  explicit DirectNetwork(Clock& clock = system_clock()) : clock_(clock) {}
  virtual ~DirectNetwork() = default;
  DirectNetwork(const DirectNetwork&) = delete;
  DirectNetwork& operator=(const DirectNetwork&) = delete;

  // For NodeOptions and clients. `from` is what carry() calls the caller; callbacks of its
  // asynchronous calls run on one thread, which is started here.
  CallServerFactory server_factory();
  std::unique_ptr<PeerDialer> make_dialer(const std::string& from);

  // Whoever listens there is gone without having stopped: callers are refused from now on.
  void crash(const std::string& address);
  // Who listens at `by` is reached at this address too, while nobody listens there.
  void take_over(const std::string& address, const std::string& by);

  // The default delivers it at once. May be called from any thread; messages of one call are to be
  // delivered in their order. One that is not delivered is lost, and so must be all that follow it:
  // the call then ends at its deadline.
  virtual void carry(const DirectMessage& message, std::function<void()> deliver);

  Clock& clock() { return clock_; }
  // Has a thread of the node that listens there answer the call; false where nobody does.
  using Work = std::function<void(const NodeServices& services)>;
  bool post(const std::string& address, std::shared_ptr<DirectCall> call, Work work);
  // Waits until somebody listens there.
  bool wait_for(const std::string& address, int64_t timeout_ms);

 private:
  friend class DirectServer;
  // The address, with a port in place of 0. ALREADY_EXISTS, INVALID_ARGUMENT.
  absl::StatusOr<std::string> listen(const std::string& listen, DirectServer* server);
  void leave(const DirectServer* server);

  Clock& clock_;
  std::mutex mutex_;  // before a server's
  std::condition_variable changed_;
  std::map<std::string, DirectServer*> servers_;
  std::map<std::string, DirectServer*> taken_over_;  // the same servers, by other addresses
  int last_port_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CALLS_DIRECT_CALLS_H_

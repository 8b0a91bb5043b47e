// Listens for calls to one node, and has the node's services answer them: over gRPC, or over
// whatever a simulated cluster has in its place.
#ifndef SLUICE_CONTROL_NODE_CALL_SERVER_H_
#define SLUICE_CONTROL_NODE_CALL_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace sluice {

class PeerService;
class ServingService;
template <typename Service>
class Guarded;

// Thread-safe.
class CallServer {
 public:
  virtual ~CallServer() = default;
  // HOST:PORT, with a port that was given as 0 resolved.
  virtual const std::string& address() const = 0;
  // What is told to who asks for the node's health; at first that it does not serve.
  virtual void set_serving() = 0;
  // Takes no further calls, leaves those in work a moment to end, cancels what is left and returns
  // once none is in work.
  virtual void stop() = 0;
};

// They outlive the server.
struct NodeServices {
  Guarded<PeerService>& peer;
  Guarded<ServingService>& serving;
};

// Begins to listen. ALREADY_EXISTS when the address is in use, or not of this machine;
// INVALID_ARGUMENT for what is no address.
using CallServerFactory = std::function<absl::StatusOr<std::unique_ptr<CallServer>>(
    const std::string& listen, const NodeServices& services)>;

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_CALL_SERVER_H_

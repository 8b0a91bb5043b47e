// A call that a node serves, without what carried it: gRPC, or whatever a simulated cluster has in
// its place. Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_INCOMING_CALL_H_
#define SLUICE_CONTROL_SERVICE_INCOMING_CALL_H_

#include "control/peers/callee.h"

namespace sluice {

class IncomingCall {
 public:
  virtual ~IncomingCall() = default;
  // Whom its caller meant.
  virtual const Callee& callee() const = 0;
  // Nobody waits for the answer any more.
  virtual bool cancelled() const = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_INCOMING_CALL_H_

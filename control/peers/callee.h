// Whom a call is meant for: every call to a node says so, and a node refuses what is meant for
// another.
//
// An address is not an identity. A node that restarts may get the port that another one, of this
// cluster or of another, had before; without a name, one node's answer would count as that of two.
#ifndef SLUICE_CONTROL_PEERS_CALLEE_H_
#define SLUICE_CONTROL_PEERS_CALLEE_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/client_interceptor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace sluice {

struct Callee {
  std::string cluster;  // UUID
  std::string node;     // empty: whoever has the address, as no peer and no client asks
};

// What makes each call of a channel say whom it is meant for.
std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> naming(
    const Callee& callee);

// Whom a call says that it is meant for.
Callee callee_of(const grpc::ServerContext& call);

// UNAVAILABLE where a call is meant for another node than `self`, or for one of another cluster.
absl::Status check_callee(const Callee& meant, std::string_view cluster, std::string_view self);

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_CALLEE_H_

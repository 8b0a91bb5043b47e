// The server of a node's calls over gRPC, plain text over TCP, with the health service that gRPC
// defines.
#ifndef SLUICE_CONTROL_NODE_GRPC_SERVER_H_
#define SLUICE_CONTROL_NODE_GRPC_SERVER_H_

#include "control/node/call_server.h"

namespace sluice {

// A CallServerFactory.
absl::StatusOr<std::unique_ptr<CallServer>> start_grpc_server(const std::string& listen,
                                                              const NodeServices& services);

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_GRPC_SERVER_H_

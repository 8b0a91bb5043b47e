// Verifies archive folders and reports to a gRPC stream as it goes.
#ifndef SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_
#define SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "control/proto/common.pb.h"

namespace sluice {

// `node` is whose part the folder holds: that other nodes' parts are elsewhere is no problem.
absl::Status stream_verification(const std::string& folder, const std::string& node,
                                 grpc::ServerContext& call,
                                 grpc::ServerWriter<v1::VerifyUpdate>& writer);

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_

// Verifies one archive part and reports to a gRPC stream as it goes.
#ifndef SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_
#define SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <string>

#include "absl/status/status.h"
#include "base/clock.h"
#include "control/proto/common.pb.h"
#include "dataplane/archive/part_identity.h"

namespace sluice {

// That the directory does not hold the expected part is a problem like any other damage.
absl::Status stream_verification(const std::string& directory, const ArchivePartId& expected,
                                 Clock& clock, grpc::ServerContext& call,
                                 grpc::ServerWriter<v1::VerifyUpdate>& writer);

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_

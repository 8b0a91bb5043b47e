// Verifies one archive part and reports to its reader as it goes.
#ifndef SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_
#define SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_

#include <string>

#include "absl/status/status.h"
#include "base/clock.h"
#include "control/proto/common.pb.h"
#include "control/service/incoming_call.h"
#include "control/service/page_sink.h"
#include "dataplane/archive/part_identity.h"

namespace sluice {

// That the directory does not hold the expected part is a problem like any other damage.
absl::Status stream_verification(const std::string& directory, const ArchivePartId& expected,
                                 Clock& clock, const IncomingCall& call,
                                 PageSink<v1::VerifyUpdate>& pages);

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_VERIFY_STREAM_H_

// The fencing of a backup's streams, the same at a target and at a source that serves merges.
#ifndef SLUICE_DATAPLANE_PIPELINE_JOB_ATTEMPT_H_
#define SLUICE_DATAPLANE_PIPELINE_JOB_ATTEMPT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "base/status.h"
#include "dataplane/stream/hello.h"

namespace sluice {

// Whether a stream may be served by `attempt` of its job. NOT_FOUND for a later one: the peer may
// be at the next attempt already while this one ends, and waits for that. FAILED_PRECONDITION for
// an earlier one.
inline absl::Status check_attempt(const Hello& hello, uint64_t attempt) {
  if (hello.attempt > attempt) {
    return not_found("backup {} is at attempt {} here, {} is to come", hello.job, attempt,
                     hello.attempt);
  }
  if (hello.attempt != attempt) {
    return failed_precondition("backup {} is at attempt {} here, not {}", hello.job, attempt,
                               hello.attempt);
  }
  return absl::OkStatus();
}

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_JOB_ATTEMPT_H_

#include "control/service/verify_stream.h"

#include <vector>

#include "base/arena.h"
#include "base/status.h"
#include "dataplane/archive/reader.h"

namespace sluice {

namespace {

constexpr int64_t kReportNs = 500'000'000;
constexpr int kProblemsPerMessage = 500;

void fill(const VerifyProblem& problem, v1::Problem* out) {
  out->set_file(problem.file);
  out->set_offset(problem.offset);
  out->set_slot(problem.slot);
  out->set_reason(problem.reason);
}

absl::Status write_problems(const VerifyReport& report, PageSink<v1::VerifyUpdate>& pages) {
  v1::VerifyUpdate update;
  const auto flush = [&](int at_least) -> absl::Status {
    if (update.bad_size() + update.unreadable_size() < at_least) return absl::OkStatus();
    SLUICE_RETURN_IF_ERROR(pages.write(update));
    update.Clear();
    return absl::OkStatus();
  };
  for (const VerifyProblem& problem : report.bad) {
    fill(problem, update.add_bad());
    SLUICE_RETURN_IF_ERROR(flush(kProblemsPerMessage));
  }
  for (const VerifyProblem& problem : report.unreadable) {
    fill(problem, update.add_unreadable());
    SLUICE_RETURN_IF_ERROR(flush(kProblemsPerMessage));
  }
  return flush(1);
}

}  // namespace

absl::Status stream_verification(const std::string& directory, const ArchivePartId& expected,
                                 Clock& clock, const IncomingCall& call,
                                 PageSink<v1::VerifyUpdate>& pages) {
  SLUICE_ASSIGN_OR_RETURN(const auto arena,
                          Arena::create({.bytes = kVerifyBuffers * kBufferBytes}));
  int64_t reported = 0;
  const auto progress = [&](uint64_t done, uint64_t total) {
    const int64_t now = clock.monotonic_ns();
    if (now - reported < kReportNs) return true;
    reported = now;
    if (call.cancelled()) return false;
    v1::VerifyUpdate update;
    update.set_done(done);
    update.set_total(total);
    return pages.write(update).ok();
  };
  SLUICE_ASSIGN_OR_RETURN(const VerifyReport report,
                          verify_archive({directory}, *arena, progress, &expected));
  SLUICE_RETURN_IF_ERROR(write_problems(report, pages));
  v1::VerifyUpdate last;
  last.set_done(report.bytes);
  last.set_total(report.bytes);
  last.set_blocks(report.blocks);
  last.set_bytes(report.bytes);
  last.set_last(true);
  return pages.write(last);
}

}  // namespace sluice

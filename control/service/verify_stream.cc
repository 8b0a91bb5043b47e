#include "control/service/verify_stream.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/status.h"
#include "dataplane/archive/reader.h"

namespace sluice {

namespace {
constexpr size_t kArenaBuffers = 16;
constexpr int64_t kReportNs = 500'000'000;
constexpr int kProblemsPerMessage = 500;

// How verify_archive() says that a part of the manifest is in none of the folders it was given.
bool is_elsewhere(const VerifyProblem& problem, const std::string& node) {
  return problem.slot < 0 && problem.reason.starts_with("the part of node ") &&
         problem.reason.ends_with(" is missing") &&
         problem.reason != fmt::format("the part of node {} is missing", node);
}

}  // namespace

absl::Status stream_verification(const std::string& folder, const std::string& node,
                                 grpc::ServerContext& call,
                                 grpc::ServerWriter<v1::VerifyUpdate>& writer) {
  SLUICE_ASSIGN_OR_RETURN(const auto arena, Arena::create({.bytes = kArenaBuffers * kBufferBytes}));
  int64_t reported = 0;
  const auto progress = [&](uint64_t done, uint64_t total) {
    const int64_t now = system_clock().monotonic_ns();
    if (now - reported < kReportNs) return true;
    reported = now;
    if (call.IsCancelled()) return false;
    v1::VerifyUpdate update;
    update.set_done(done);
    update.set_total(total);
    return writer.Write(update);
  };
  SLUICE_ASSIGN_OR_RETURN(const VerifyReport report, verify_archive({folder}, *arena, progress));
  v1::VerifyUpdate update;
  for (const VerifyProblem& problem : report.bad) {
    if (is_elsewhere(problem, node)) continue;
    v1::Problem* out = update.add_problems();
    out->set_file(problem.file);
    out->set_offset(problem.offset);
    out->set_slot(problem.slot);
    out->set_reason(problem.reason);
    if (update.problems_size() < kProblemsPerMessage) continue;
    if (!writer.Write(update)) return cancelled("the reader went away");
    update.Clear();
  }
  update.set_done(report.bytes);
  update.set_total(report.bytes);
  update.set_blocks(report.blocks);
  update.set_bytes(report.bytes);
  update.set_last(true);
  writer.Write(update);
  return absl::OkStatus();
}

}  // namespace sluice

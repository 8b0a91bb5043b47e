#include "control/records/stamp_coordinator.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "base/backoff.h"
#include "base/defect.h"
#include "base/status.h"

namespace sluice {
namespace {

// For all clocks together; they are read from memory.
constexpr int64_t kStampMs = 2'000;
constexpr int64_t kHedgeMs = 250;
constexpr int64_t kFirstWaitMs = 50;
constexpr int64_t kLongestWaitMs = 400;

}  // namespace

absl::StatusOr<Version> StampCoordinator::stamp(std::span<const uint32_t> slots, uint64_t after) {
  const auto snapshot = context_.directory->snapshot();
  if (snapshot->table == nullptr) return unavailable("there is no distribution table yet");
  uint64_t largest = after;
  Deadline deadline(*context_.clock, kStampMs);
  std::set<std::vector<uint16_t>> asked;
  for (const uint32_t slot : slots) {
    const auto replicas = snapshot->table->replicas_of(slot);
    std::vector<uint16_t> set(replicas.begin(), replicas.end());
    std::sort(set.begin(), set.end());
    if (defect(Defect::kVersionsOfOneClock) || !asked.insert(std::move(set)).second) continue;
    SLUICE_ASSIGN_OR_RETURN(const uint64_t read, read_clocks(slot, deadline));
    largest = std::max(largest, read);
  }
  HybridClock& clock = context_.store->clock();
  SLUICE_RETURN_IF_ERROR(clock.observe(largest));
  SLUICE_ASSIGN_OR_RETURN(const uint64_t stamp, clock.stamp());
  return Version{stamp, context_.number};
}

absl::StatusOr<uint64_t> StampCoordinator::read_clocks(uint32_t slot, Deadline& deadline) {
  SLUICE_ASSIGN_OR_RETURN(const auto names, ranked_replicas(context_, slot));
  uint64_t largest = 0;
  ReplicaQuestion<v1::Empty, v1::ClockReply> question;
  question.begin = [](PeerNode& node, grpc::ClientContext* context, const v1::Empty* request,
                      v1::ClockReply* reply, auto done) {
    node.peer().async()->ReadClock(context, request, reply, std::move(done));
  };
  question.here = [] { return absl::OkStatus(); };  // stamp() is above its own
  question.take = [&](PeerNode&, const v1::ClockReply& reply) {
    largest = std::max(largest, reply.stamp());
    return absl::OkStatus();
  };
  const size_t needed = context_.cluster().write_quorum();
  Backoff pauses(kFirstWaitMs, kLongestWaitMs);
  for (;;) {
    std::string reasons;
    const ReplicaTimes times{std::max<int64_t>(deadline.left_ms(), 1), kHedgeMs};
    const size_t answers = ask_replicas(context_, names, needed, times, question, &reasons);
    if (answers >= needed) return largest;
    // A last round without time would have nothing to say.
    if (deadline.left_ms() < 2 * kHedgeMs || !deadline.pause(pauses.next_ms())) {
      return unavailable("slot {}: {} of the {} replicas that a write needs can be asked; {}", slot,
                         answers, needed, reasons);
    }
  }
}

}  // namespace sluice

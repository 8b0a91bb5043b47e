#include "control/records/stamp_coordinator.h"

#include <set>
#include <string>
#include <vector>

#include "base/defect.h"
#include "base/status.h"

namespace sluice {
namespace {

// A clock is read from memory.
constexpr ReplicaTimes kTimes{3'000, 250};

}  // namespace

absl::StatusOr<Version> StampCoordinator::stamp(std::span<const uint32_t> slots, uint64_t after) {
  HybridClock& clock = context_.store->clock();
  if (after != 0) SLUICE_RETURN_IF_ERROR(clock.observe_archived(after));
  const auto snapshot = context_.directory->snapshot();
  if (snapshot->table == nullptr) return unavailable("there is no distribution table yet");
  std::set<std::vector<uint16_t>> asked;
  for (const uint32_t slot : slots) {
    const auto replicas = snapshot->table->replicas_of(slot);
    if (!asked.emplace(replicas.begin(), replicas.end()).second) continue;
    if (!defect(Defect::kVersionsOfOneClock)) SLUICE_RETURN_IF_ERROR(pass_clocks(slot));
  }
  SLUICE_ASSIGN_OR_RETURN(const uint64_t stamp, clock.stamp());
  return Version{stamp, context_.number};
}

// Moves this node's clock past those of W replicas.
absl::Status StampCoordinator::pass_clocks(uint32_t slot) {
  SLUICE_ASSIGN_OR_RETURN(const auto names, ranked_replicas(context_, slot));
  ReplicaQuestion<v1::Empty, v1::ClockReply> question;
  question.begin = [](PeerNode& node, grpc::ClientContext* context, const v1::Empty* request,
                      v1::ClockReply* reply, auto done) {
    node.peer().async()->ReadClock(context, request, reply, std::move(done));
  };
  question.here = [] { return absl::OkStatus(); };  // stamp() is above its own
  question.take = [this](PeerNode&, const v1::ClockReply& reply) {
    return context_.store->clock().observe(reply.stamp());
  };
  const size_t needed = context_.cluster().write_quorum();
  std::string reasons;
  const size_t answers = ask_replicas(context_, names, needed, kTimes, question, &reasons);
  if (answers >= needed) return absl::OkStatus();
  return unavailable("slot {}: {} of the {} replicas that a write needs can be asked; {}", slot,
                     answers, needed, reasons);
}

}  // namespace sluice

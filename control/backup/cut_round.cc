#include "control/backup/cut_round.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <utility>

#include "base/deadline.h"
#include "base/defect.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {

constexpr int64_t kRoundCallMs = 5'000;
constexpr int64_t kConnectMs = 2'500;
constexpr int64_t kPromptNs = 20'000'000;

// Calls `ask` for each node at once; those that fail move from `nodes` to `unread`.
void ask_all(const NodeContext& context, std::vector<std::string>& nodes,
             std::map<std::string, std::string>& unread,
             const std::function<absl::Status(PeerNode&)>& ask) {
  Mutex mutex;
  std::vector<std::string> answered;
  parallel_for(nodes.size(), [&](size_t i) {
    const auto peer = context.peers->find(nodes[i]);
    const absl::Status status = peer.ok() ? ask(**peer) : peer.status();
    const MutexLock lock(mutex);
    if (status.ok()) {
      answered.push_back(nodes[i]);
    } else {
      unread[nodes[i]] = message_of(status);
    }
  });
  std::sort(answered.begin(), answered.end());
  nodes = std::move(answered);
}

absl::Status read_clock(PeerNode& peer, Clock& clock, bool connect, uint64_t* stamp) {
  grpc::ClientContext call;
  const Deadline deadline(clock, connect ? kConnectMs : kRoundCallMs);
  if (connect) peer.connect(deadline.left_ms());
  set_timeout(call, std::max<int64_t>(deadline.left_ms(), 1));
  v1::ClockReply reply;
  const grpc::Status status = peer.peer().ReadClock(&call, v1::Empty(), &reply);
  peer.note(status);
  *stamp = reply.stamp();
  return from_grpc(status);
}

absl::Status arm(PeerNode& peer, const std::string& backup, uint64_t attempt, uint64_t cut,
                 uint64_t epoch) {
  grpc::ClientContext call;
  set_timeout(call, kRoundCallMs);
  v1::ArmRequest request;
  request.set_backup(backup);
  request.set_attempt(attempt);
  request.set_cut(cut);
  request.set_epoch(epoch);
  v1::ArmReply reply;
  const grpc::Status status = peer.peer().ArmCut(&call, request, &reply);
  peer.note(status);
  if (status.ok() && reply.missed()) {
    return out_of_range("its clock had passed the cut by {} ms when it was asked",
                        Version::stamp_ms(reply.clock()) - Version::stamp_ms(cut));
  }
  return from_grpc(status);
}

absl::Status fetch_digests(PeerNode& peer, const std::string& backup, uint64_t attempt,
                           const CutRound& round, uint32_t slots, int64_t timeout_ms,
                           std::vector<SlotDigest>* digests) {
  grpc::ClientContext call;
  set_timeout(call, timeout_ms);
  v1::CutDigestsRequest request;
  request.set_backup(backup);
  request.set_attempt(attempt);
  request.set_pass(true);
  v1::CutDigestsReply reply;
  const grpc::Status status = peer.peer().CutDigests(&call, request, &reply);
  peer.note(status);
  if (!status.ok()) return from_grpc(status);
  if (reply.cut() != round.cut || reply.epoch() != round.epoch) {
    return aborted("it has a cut of another time or table by now");
  }
  if (!reply.taken()) return internal_error("its clock does not pass the cut");
  SLUICE_ASSIGN_OR_RETURN(*digests, decode_digests(reply.digests(), slots));
  return absl::OkStatus();
}

// The largest of the nodes' clocks, and this one's.
uint64_t read_clocks(const NodeContext& context, std::vector<std::string>& nodes,
                     std::map<std::string, std::string>& unread, bool connect) {
  Mutex mutex;
  uint64_t largest = context.store->clock().now();
  ask_all(context, nodes, unread, [&](PeerNode& peer) {
    uint64_t stamp = 0;
    SLUICE_RETURN_IF_ERROR(read_clock(peer, *context.clock, connect, &stamp));
    const MutexLock lock(mutex);
    largest = std::max(largest, stamp);
    return absl::OkStatus();
  });
  return largest;
}

void tell_all(const NodeContext& context, const std::string& backup, uint64_t attempt,
              bool everything) {
  const auto names = context.directory->snapshot()->live_names();
  parallel_for(names.size(), [&](size_t i) {
    const auto peer = context.peers->find(names[i]);
    if (!peer.ok()) return;
    grpc::ClientContext call;
    set_timeout(call, kRoundCallMs);
    v1::BackupReference request;
    request.set_backup(backup);
    request.set_attempt(attempt);
    v1::Empty reply;
    const grpc::Status status = everything ? (*peer)->peer().DropBackup(&call, request, &reply)
                                           : (*peer)->peer().DropCut(&call, request, &reply);
    (*peer)->note(status);
    if (!status.ok()) {
      spdlog::warn("{}: dropping the cut of backup {}: {}", names[i], backup,
                   message_of(from_grpc(status)));
    }
  });
}

struct TriedCut {
  absl::Status status;
  bool again = false;  // a later T may do
  CutRound round;
};

TriedCut try_cut(const NodeContext& context, const std::string& backup,
                 const CutRoundOptions& options, int64_t margin_ms, bool last) {
  TriedCut tried;
  const auto fail = [&](absl::Status status, bool again) {
    tried.status = std::move(status);
    tried.again = again;
    return std::move(tried);
  };
  CutRound& round = tried.round;
  if (absl::Status status = context.directory->refresh(); !status.ok()) return fail(status, false);
  const auto snapshot = context.directory->snapshot();
  if (snapshot->table == nullptr) return fail(unavailable("there is no distribution table"), false);
  const DistributionTable& table = *snapshot->table;
  const size_t quorum = defect(Defect::kOneDigestIsEnough) ? 1 : context.cluster().read_quorum();
  round.epoch = table.epoch();
  std::vector<std::string> nodes;
  for (const TableMember& member : table.members()) {
    if (snapshot->live(member.name)) {
      nodes.push_back(member.name);
    } else {
      round.unread[member.name] = "is down";
    }
  }
  // A node that has just come back is live while the connection to it may still pause: leaving it
  // out would hide what it lacks. Where connecting took its time, the clocks are read again.
  int64_t asked_ns = context.clock->monotonic_ns();
  uint64_t largest = read_clocks(context, nodes, round.unread, true);
  if (context.clock->monotonic_ns() - asked_ns > kPromptNs) {
    asked_ns = context.clock->monotonic_ns();
    largest = read_clocks(context, nodes, round.unread, false);
  }
  if (absl::Status status = check_readable(table, nodes, quorum, round.unread); !status.ok()) {
    return fail(status, false);
  }
  if (options.proceed) {
    if (absl::Status status = options.proceed(); !status.ok()) return fail(status, false);
  }
  round.cut = Version::make_stamp(Version::stamp_ms(largest) + static_cast<uint64_t>(margin_ms), 0);
  std::atomic<bool> missed{false};
  ask_all(context, nodes, round.unread, [&](PeerNode& peer) {
    absl::Status armed = arm(peer, backup, options.attempt, round.cut, round.epoch);
    if (absl::IsOutOfRange(armed)) missed = true;
    return armed;
  });
  if (absl::Status status = check_readable(table, nodes, quorum, round.unread); !status.ok()) {
    return fail(status, true);
  }
  if (missed && !last) return fail(out_of_range("clocks have passed the cut already"), true);
  round.due_ns = asked_ns + margin_ms * 1'000'000;
  Mutex mutex;
  ask_all(context, nodes, round.unread, [&](PeerNode& peer) {
    std::vector<SlotDigest> digests;
    SLUICE_RETURN_IF_ERROR(fetch_digests(peer, backup, options.attempt, round, table.slots(),
                                         options.digests_ms, &digests));
    const MutexLock lock(mutex);
    round.digests[peer.name()] = std::move(digests);
    return absl::OkStatus();
  });
  if (options.stop && options.stop()) return fail(cancelled("cancelled"), false);
  return fail(check_readable(table, nodes, quorum, round.unread), true);
}

}  // namespace

absl::Status check_readable(const DistributionTable& table, const std::vector<std::string>& nodes,
                            size_t quorum, const std::map<std::string, std::string>& unread) {
  std::vector<uint8_t> readable(table.members().size());
  for (const std::string& node : nodes) {
    if (const int member = table.find_member(node); member >= 0) {
      readable[static_cast<size_t>(member)] = 1;
    }
  }
  constexpr size_t kNamed = 10;
  std::string slots;
  std::set<std::string> lacking;
  size_t short_slots = 0;
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    const auto replicas = table.replicas_of(slot);
    const auto count = std::count_if(replicas.begin(), replicas.end(),
                                     [&](uint16_t member) { return readable[member] != 0; });
    if (static_cast<size_t>(count) >= quorum) continue;
    if (short_slots++ < kNamed) slots += fmt::format("{}{}", slots.empty() ? "" : ", ", slot);
    for (const uint16_t member : replicas) {
      if (readable[member] == 0) lacking.insert(table.members()[member].name);
    }
  }
  if (short_slots == 0) return absl::OkStatus();
  std::string reasons;
  for (const std::string& node : lacking) {
    const auto reason = unread.find(node);
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", node,
                           reason == unread.end() ? "cannot be read" : reason->second);
  }
  return unavailable("{} slots ({}{}) have fewer than {} readable replicas; {}", short_slots, slots,
                     short_slots > kNamed ? ", ..." : "", quorum, reasons);
}

absl::StatusOr<CutRound> take_cut(const NodeContext& context, const std::string& backup,
                                  const CutRoundOptions& options) {
  int64_t margin_ms = options.first_margin_ms;
  for (int number = 1;; ++number, margin_ms *= 2) {
    TriedCut tried = try_cut(context, backup, options, margin_ms, number == options.tries);
    if (tried.status.ok()) return std::move(tried.round);
    // Whoever stopped it drops them; after a lost lease they may be the next coordinator's.
    if (options.stop && options.stop()) return tried.status;
    if (options.proceed) SLUICE_RETURN_IF_ERROR(options.proceed());
    drop_cuts(context, backup, options.attempt);
    if (!tried.again || number >= options.tries) return tried.status;
    spdlog::info("backup {}: trying a later cut: {}", backup, message_of(tried.status));
  }
}

void drop_cuts(const NodeContext& context, const std::string& backup, uint64_t attempt) {
  tell_all(context, backup, attempt, false);
}

void drop_backup(const NodeContext& context, const std::string& backup, uint64_t attempt) {
  tell_all(context, backup, attempt, true);
}

}  // namespace sluice

#include "tests/simulation/world/oracle_wire.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "control/backup/documents.h"
#include "control/proto/peer.pb.h"
#include "tests/control/calls/direct_call.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

struct Attempt {
  std::string backup;
  uint64_t number = 0;
};

template <typename Request>
std::optional<Attempt> attempt_in(const google::protobuf::Message& message) {
  const auto* const request = dynamic_cast<const Request*>(&message);
  if (request == nullptr) return std::nullopt;
  return Attempt{request->backup(), request->attempt()};
}

// Of the calls that a node carries out for one attempt of a backup alone.
std::optional<Attempt> attempt_of(const google::protobuf::Message& request) {
  auto attempt = attempt_in<v1::ArmRequest>(request);
  if (!attempt.has_value()) attempt = attempt_in<v1::CutDigestsRequest>(request);
  if (!attempt.has_value()) attempt = attempt_in<v1::BackupReference>(request);
  if (!attempt.has_value()) attempt = attempt_in<v1::CommitRequest>(request);
  return attempt;
}

}  // namespace

void WireOracle::watch(const std::string& cluster, History& history) {
  histories_[cluster] = &history;
  world_.calls().watch = [this](const DirectMessage& message) { sent(message); };
  world_.block_world(cluster).watch_commit = [this](const std::vector<ClusterOp>& ops) {
    check_commit(ops);
    joins_.about_to_commit(ops);
  };
}

void WireOracle::sent(const DirectMessage& message) {
  if (message.request == nullptr) return;
  if (message.kind == DirectMessage::Kind::kAnswer) return answered(message);
  if (const auto* const write = dynamic_cast<const v1::WriteRequest*>(message.request)) {
    note_versions(message.to, *write);
  }
}

History* WireOracle::history_of(const std::string& address) {
  const auto history = histories_.find(world_.host(host_at(address)).cluster());
  return history == histories_.end() ? nullptr : history->second;
}

void WireOracle::note_versions(const std::string& to, const v1::WriteRequest& request) {
  History* const history = history_of(to);
  if (history == nullptr) return;
  for (const auto& item : request.items()) {
    history->sent_with(item.key(), item.value(), item.tombstone(),
                       {request.version().stamp(), request.version().node()});
  }
}

void WireOracle::note_stamps(const std::string& from, const v1::WriteRequest& request,
                             const v1::WriteReply& reply) {
  History* const history = history_of(from);
  if (history == nullptr) return;
  for (const auto& item : request.items()) {
    history->counts_as_of(item.key(), {request.version().stamp(), request.version().node()},
                          reply.as_of());
  }
}

void WireOracle::answered(const DirectMessage& message) {
  joins_.answered(message);
  if (message.status == nullptr || !message.status->ok()) return;
  const auto* const write = dynamic_cast<const v1::WriteRequest*>(message.request);
  const auto* const reply = dynamic_cast<const v1::WriteReply*>(message.reply);
  if (write != nullptr && reply != nullptr) return note_stamps(message.from, *write, *reply);
  const auto attempt = attempt_of(*message.request);
  if (!attempt.has_value()) return;
  Answered& highest = answered_[{host_at(message.from), attempt->backup}];
  if (attempt->number > highest.attempt) highest = {attempt->number, now_ns()};
  if (attempt->number == highest.attempt || message.call->begun_ns() <= highest.at_ns) return;
  // Of a backup that was deleted nothing is to stay, whoever drops it.
  if (std::string_view(message.method) == "DropCut" && is_deleted(attempt->backup)) return;
  fail(fmt::format("I6: {} has carried out {} of attempt {} of backup {} after attempt {}",
                   message.from, message.method, attempt->number, attempt->backup,
                   highest.attempt));
}

bool WireOracle::is_deleted(const std::string& backup) const {
  const std::string key = backup_head_key(backup);
  return std::any_of(histories_.begin(), histories_.end(), [&](const auto& each) {
    const auto& kept = world_.block_world(each.first).kept;
    const auto heads = kept.find(key);
    if (heads == kept.end()) return false;
    const auto head = decode_backup_head(key, heads->second.rbegin()->second);
    return head.ok() && head->deleting;
  });
}

void WireOracle::check_commit(const std::vector<ClusterOp>& ops) {
  constexpr std::string_view kStored = "restore/";
  for (const ClusterOp& op : ops) {
    if (!op.key.starts_with(kStored)) continue;
    const std::string id =
        op.key.substr(kStored.size(), op.key.find('/', kStored.size()) - kStored.size());
    const bool compares = std::any_of(ops.begin(), ops.end(), [&](const ClusterOp& other) {
      return other.key == "restores/" + id && other.expected.has_value();
    });
    if (!compares) fail(fmt::format("I6: {} is stored without its restore's head", op.key));
  }
}

}  // namespace sluice::simulation

#include "control/records/write_coordinator.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/backoff.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "base/status.h"
#include "control/peers/rpc.h"
#include "dataplane/pipeline/write_tally.h"

namespace sluice {

struct WriteCoordinator::Pending {
  size_t index = 0;  // in the caller's items
  WriteItem item;
  uint32_t slot = 0;
  absl::Status status;

  RecordView view(const Version& version) const {
    return {item.key, item.value, version, item.tombstone};
  }
};

// One sending of some writes to their replicas. Outlives the caller while calls of slow replicas
// are under way, so it holds nothing of the caller's.
struct WriteCoordinator::Round {
  struct Failure {
    std::string node;
    std::string reason;
    std::vector<size_t> items;
  };

  explicit Round(size_t items, size_t needed) : items_(items), quorum(needed) {}

  bool all_decided() const SLUICE_REQUIRES(mutex) {
    return std::all_of(items_.begin(), items_.end(),
                       [this](const WriteTally& item) { return item.decided(quorum); });
  }

  Mutex mutex;
  Condition changed;
  std::vector<WriteTally> items_ SLUICE_GUARDED_BY(mutex);
  std::vector<Failure> failures SLUICE_GUARDED_BY(mutex);
  const size_t quorum;
  bool stale_epoch SLUICE_GUARDED_BY(mutex) = false;
};

struct WriteCoordinator::Call {
  grpc::ClientContext context;
  v1::ApplyRequest request;
  v1::ApplyReply reply;
  std::vector<size_t> indexes;
  std::shared_ptr<Round> round;
  std::shared_ptr<PeerNode> node;
  int64_t bytes = 0;

  void done(const grpc::Status& status) {
    node->release(bytes);
    node->note(status);
    {
      const MutexLock lock(round->mutex);
      take_answer(status);
    }
    round->changed.notify_all();
  }

  void take_answer(const grpc::Status& status) SLUICE_REQUIRES(round->mutex) {
    for (const size_t index : indexes) --round->items_[index].open;
    if (!status.ok()) {
      round->failures.push_back(
          {node->name(), std::string(message_of(from_grpc(status))), indexes});
    } else if (reply.epoch() != request.epoch()) {
      round->stale_epoch = true;
      round->failures.push_back({node->name(), "has another distribution table", indexes});
    } else {
      for (const size_t index : indexes) round->items_[index].take(reply.missed_cut());
      node->remember(reply.token(), reply.sequence());
    }
  }
};

namespace {

// More than the longest pause that a channel makes before it connects again.
constexpr int64_t kReconnectMs = 1'500;
// Before replicas of which too few answered are asked again.
constexpr int64_t kFirstPauseMs = 50;
constexpr int64_t kLongestPauseMs = 200;

absl::Status short_of_quorum(uint32_t slot, size_t acknowledged, size_t quorum,
                             const std::string& reasons) {
  return unavailable("slot {}: {} of the {} replicas that a write needs have it; {}", slot,
                     acknowledged, quorum, reasons);
}

}  // namespace

WriteCoordinator::WriteCoordinator(const NodeContext& context, const Options& options)
    : context_(context), options_(options), quorum_(context.cluster().write_quorum()) {}

void WriteCoordinator::take_round(Round& round, const Version& version,
                                  std::vector<Pending>& pending, std::vector<WriteResult>& results)
    SLUICE_REQUIRES(round.mutex) {
  std::vector<Pending> again;
  for (size_t i = 0; i < pending.size(); ++i) {
    const WriteTally& tally = round.items_[i];
    Pending& item = pending[i];
    if (tally.acknowledged(quorum_)) {
      results[item.index] = {absl::OkStatus(), tally.as_of(version.stamp, quorum_)};
      continue;
    }
    std::string reasons;
    for (const Round::Failure& failure : round.failures) {
      if (std::find(failure.items.begin(), failure.items.end(), i) == failure.items.end()) continue;
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", failure.node, failure.reason);
    }
    item.status = short_of_quorum(item.slot, tally.durable, quorum_,
                                  reasons.empty() ? "the others did not answer in time" : reasons);
    again.push_back(std::move(item));
  }
  pending = std::move(again);
}

std::vector<WriteResult> WriteCoordinator::write(std::span<const WriteItem> items,
                                                 const Version& version) {
  std::vector<WriteResult> results(items.size());
  std::vector<Pending> pending;
  for (size_t i = 0; i < items.size(); ++i) {
    Pending item;
    item.index = i;
    item.item = items[i];
    item.slot = slot_of(items[i].key, context_.cluster().slot_bits);
    item.status = deadline_exceeded("the write was not sent in time");
    pending.push_back(std::move(item));
  }
  Deadline deadline(*context_.clock, options_.timeout_ms);
  Backoff pauses(kFirstPauseMs, kLongestPauseMs);
  for (int number = 0; number < options_.rounds && !pending.empty(); ++number) {
    if (deadline.passed()) break;
    // The first two rounds pass over replicas that lately did not answer; later ones ask them too.
    const auto round = send_round(pending, version, number >= 2, options_.call_ms);
    MutexLock lock(round->mutex);
    round->changed.wait_for(lock, std::chrono::milliseconds(deadline.left_ms()),
                            [&]() SLUICE_REQUIRES(round->mutex) { return round->all_decided(); });
    take_round(*round, version, pending, results);
    const bool stale = round->stale_epoch;
    lock.unlock();
    if (pending.empty()) break;
    if (stale) {
      if (absl::Status status = context_.directory->refresh(); !status.ok()) {
        for (Pending& item : pending) item.status = status;
        break;
      }
    } else {
      if (number >= 3) break;
      deadline.pause(pauses.next_ms());
    }
  }
  for (Pending& item : pending) results[item.index].status = std::move(item.status);
  return results;
}

std::shared_ptr<WriteCoordinator::Round> WriteCoordinator::send_round(std::vector<Pending>& items,
                                                                      const Version& version,
                                                                      bool everyone,
                                                                      int64_t timeout_ms) {
  auto round = std::make_shared<Round>(items.size(), quorum_);
  const auto snapshot = context_.directory->snapshot();
  if (snapshot->table == nullptr) {
    std::vector<size_t> all(items.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    const MutexLock lock(round->mutex);
    round->failures.push_back(
        {context_.name, "there is no distribution table yet", std::move(all)});
    return round;
  }
  std::map<std::string, std::vector<size_t>> by_node;
  {
    const MutexLock lock(round->mutex);
    for (size_t i = 0; i < items.size(); ++i) {
      for (const uint16_t member : snapshot->table->replicas_of(items[i].slot)) {
        by_node[snapshot->table->members()[member].name].push_back(i);
        ++round->items_[i].open;
      }
    }
  }
  const std::vector<size_t>* here = nullptr;
  for (const auto& [node, indexes] : by_node) {
    if (node == context_.name) {
      here = &indexes;
    } else {
      apply_there(round, node, snapshot->epoch(), items, version, indexes, everyone, timeout_ms);
    }
  }
  if (here != nullptr) apply_here(round, items, version, *here);
  return round;
}

void WriteCoordinator::apply_here(const std::shared_ptr<Round>& round,
                                  const std::vector<Pending>& items, const Version& version,
                                  std::span<const size_t> indexes) {
  std::vector<RecordView> records;
  records.reserve(indexes.size());
  for (const size_t index : indexes) records.push_back(items[index].view(version));
  const auto applied = context_.store->apply(records);
  const absl::Status status = applied.ok() ? clash_among(records, *applied) : applied.status();
  const MutexLock lock(round->mutex);
  for (const size_t index : indexes) {
    WriteTally& tally = round->items_[index];
    --tally.open;
    if (status.ok()) tally.take(missed_cut(*applied));
  }
  if (!status.ok()) {
    round->failures.push_back(
        {context_.name, std::string(message_of(status)), {indexes.begin(), indexes.end()}});
  }
}

void WriteCoordinator::apply_there(const std::shared_ptr<Round>& round, const std::string& node,
                                   uint64_t epoch, const std::vector<Pending>& items,
                                   const Version& version, std::span<const size_t> indexes,
                                   bool everyone, int64_t timeout_ms) {
  auto call = std::make_unique<Call>();
  call->request.set_epoch(epoch);
  for (const size_t index : indexes) {
    fill(items[index].view(version), call->request.add_records());
  }
  call->bytes = static_cast<int64_t>(call->request.ByteSizeLong());
  call->indexes.assign(indexes.begin(), indexes.end());
  call->round = round;
  const bool live = context_.directory->snapshot()->live(node);
  std::string reason;
  if (auto found = context_.peers->find(node); !found.ok()) {
    reason = message_of(found.status());
  } else if (!live && !everyone && !(*found)->available()) {
    reason = "did not answer lately";
  } else if (!(*found)->reserve(call->bytes)) {
    reason =
        fmt::format("{} MiB of writes to it are unanswered", PeerNode::kMaxBytesInFlight >> 20);
  } else {
    call->node = *std::move(found);
  }
  if (call->node == nullptr) {
    const MutexLock lock(round->mutex);
    for (const size_t index : indexes) --round->items_[index].open;
    round->failures.push_back({node, reason, call->indexes});
    return;
  }
  // A node that has just started must not miss writes because its first connection is being made,
  // and one that has just come back must not fail writes that need it.
  if (live && everyone) {
    call->node->connect(kReconnectMs);
  } else if (live) {
    call->node->connect_first();
  }
  set_timeout(call->context, timeout_ms);
  Call* raw = call.release();
  raw->node->peer().async()->Apply(&raw->context, &raw->request, &raw->reply,
                                   [raw](const grpc::Status& status) {
                                     raw->done(status);
                                     delete raw;
                                   });
}

}  // namespace sluice

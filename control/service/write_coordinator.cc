#include "control/service/write_coordinator.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>

#include "base/status.h"
#include "control/client/rpc.h"

namespace sluice {

struct WriteCoordinator::Pending {
  size_t index = 0;  // in the caller's items
  WriteItem item;
  uint32_t slot = 0;
  Version version;
  bool needs_stamp = true;
  absl::Status status;

  RecordView view() const { return {item.key, item.value, version, item.tombstone}; }
};

// One sending of some writes to their replicas. Outlives the caller while calls of slow replicas
// are under way, so it holds nothing of the caller's.
struct WriteCoordinator::Round {
  struct Item {
    size_t acknowledged = 0;
    size_t after_cut = 0;
    size_t open = 0;  // answers that may still come
  };
  struct Failure {
    std::string node;
    std::string reason;
    std::vector<size_t> items;
  };

  explicit Round(size_t items, size_t needed) : items_(items), quorum(needed) {}

  bool decided(const Item& item) const {
    return item.acknowledged >= quorum || item.acknowledged + item.open < quorum;
  }
  bool all_decided() const {
    return std::all_of(items_.begin(), items_.end(), [this](const Item& i) { return decided(i); });
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Item> items_;
  std::vector<Failure> failures;
  const size_t quorum;
  bool stale_epoch = false;
  uint64_t newest_clock = 0;
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
      const std::lock_guard lock(round->mutex);
      take_answer(status);
    }
    round->changed.notify_all();
  }

  void take_answer(const grpc::Status& status) {
    for (const size_t index : indexes) --round->items_[index].open;
    if (!status.ok()) {
      round->failures.push_back(
          {node->name(), std::string(message_of(from_grpc(status))), indexes});
    } else if (reply.epoch() != request.epoch()) {
      round->stale_epoch = true;
      round->failures.push_back({node->name(), "has another distribution table", indexes});
    } else if (static_cast<size_t>(reply.results_size()) != indexes.size()) {
      round->failures.push_back({node->name(), "answered another number of records", indexes});
    } else {
      for (size_t i = 0; i < indexes.size(); ++i) {
        auto& item = round->items_[indexes[i]];
        ++(reply.results(static_cast<int>(i)).after_cut() ? item.after_cut : item.acknowledged);
      }
      round->newest_clock = std::max(round->newest_clock, reply.clock());
    }
  }
};

namespace {

// More than the longest pause that a channel makes before it connects again.
constexpr int64_t kReconnectMs = 1'500;

absl::Status short_of_quorum(uint32_t slot, size_t acknowledged, size_t quorum,
                             const std::string& reasons) {
  return unavailable("slot {}: {} of the {} replicas that a write needs have it; {}", slot,
                     acknowledged, quorum, reasons);
}

}  // namespace

WriteCoordinator::WriteCoordinator(const NodeContext& context, const Options& options)
    : context_(context), options_(options), quorum_(context.cluster().write_quorum()) {}

std::vector<absl::Status> WriteCoordinator::write(std::span<const WriteItem> items) {
  std::vector<absl::Status> results(items.size());
  std::vector<size_t> left(items.size());
  for (size_t i = 0; i < items.size(); ++i) left[i] = i;
  // Writes of one key go one after the other, in the caller's order.
  while (!left.empty()) {
    std::unordered_set<std::string_view> keys;
    std::vector<size_t> wave, later;
    for (const size_t i : left) (keys.insert(items[i].key).second ? wave : later).push_back(i);
    write_distinct(items, wave, results);
    left = std::move(later);
  }
  return results;
}

absl::Status WriteCoordinator::stamp(Pending& item) {
  SLUICE_ASSIGN_OR_RETURN(const uint64_t stamp, context_.store->clock().stamp());
  item.version = {stamp, context_.number};
  item.needs_stamp = false;
  return absl::OkStatus();
}

void WriteCoordinator::write_distinct(std::span<const WriteItem> items,
                                      std::span<const size_t> wave,
                                      std::vector<absl::Status>& results) {
  std::vector<Pending> pending;
  for (const size_t i : wave) {
    Pending item;
    item.index = i;
    item.item = items[i];
    item.slot = slot_of(items[i].key, context_.cluster().slot_bits);
    pending.push_back(std::move(item));
  }
  const int64_t deadline = context_.clock->monotonic_ns() + options_.timeout_ms * 1'000'000;
  for (int number = 0; number < options_.rounds && !pending.empty(); ++number) {
    const int64_t left_ms = (deadline - context_.clock->monotonic_ns()) / 1'000'000;
    if (left_ms <= 0) break;
    absl::Status stamped;
    for (Pending& item : pending) {
      if (item.needs_stamp && stamped.ok()) stamped = stamp(item);
    }
    if (!stamped.ok()) {
      for (Pending& item : pending) item.status = stamped;
      break;
    }
    // The first two rounds pass over replicas that lately did not answer; later ones ask them too.
    const auto round = send_round(pending, number >= 2, options_.call_ms);
    std::unique_lock lock(round->mutex);
    round->changed.wait_for(lock, std::chrono::milliseconds(left_ms),
                            [&] { return round->all_decided(); });
    std::vector<Pending> again;
    bool quorum_failed = false;
    for (size_t i = 0; i < pending.size(); ++i) {
      const Round::Item& answer = round->items_[i];
      if (answer.acknowledged >= quorum_) {
        results[pending[i].index] = absl::OkStatus();
        continue;
      }
      std::string reasons;
      for (const Round::Failure& failure : round->failures) {
        if (std::find(failure.items.begin(), failure.items.end(), i) == failure.items.end())
          continue;
        reasons +=
            fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", failure.node, failure.reason);
      }
      if (answer.after_cut > 0) {
        pending[i].needs_stamp = true;
        reasons += fmt::format("{}{} answered after their cut", reasons.empty() ? "" : "; ",
                               answer.after_cut);
      } else {
        quorum_failed = true;
      }
      pending[i].status =
          short_of_quorum(pending[i].slot, answer.acknowledged, quorum_,
                          reasons.empty() ? "the others did not answer in time" : reasons);
      again.push_back(std::move(pending[i]));
    }
    const bool stale = round->stale_epoch;
    const uint64_t newest_clock = round->newest_clock;
    lock.unlock();
    pending = std::move(again);
    if (pending.empty()) break;
    // A replica that has taken its cut has a clock beyond it: a stamp after that clock is after the
    // cut.
    if (absl::Status observed = context_.store->clock().observe(newest_clock); !observed.ok()) {
      for (Pending& item : pending) item.status = observed;
      break;
    }
    if (stale) {
      if (absl::Status status = context_.directory->refresh(); !status.ok()) {
        for (Pending& item : pending) item.status = status;
        break;
      }
    } else if (quorum_failed) {
      if (number >= 3) break;
      context_.clock->sleep_ns(int64_t{50'000'000} << number);
    }
  }
  for (const Pending& item : pending) results[item.index] = item.status;
}

std::shared_ptr<WriteCoordinator::Round> WriteCoordinator::send_round(std::vector<Pending>& items,
                                                                      bool everyone,
                                                                      int64_t timeout_ms) {
  auto round = std::make_shared<Round>(items.size(), quorum_);
  const auto snapshot = context_.directory->snapshot();
  if (snapshot->table == nullptr) {
    std::vector<size_t> all(items.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    round->failures.push_back(
        {context_.name, "there is no distribution table yet", std::move(all)});
    return round;
  }
  std::map<std::string, std::vector<size_t>> by_node;
  for (size_t i = 0; i < items.size(); ++i) {
    for (const uint16_t member : snapshot->table->replicas_of(items[i].slot)) {
      by_node[snapshot->table->members()[member].name].push_back(i);
      ++round->items_[i].open;
    }
  }
  const std::vector<size_t>* here = nullptr;
  for (const auto& [node, indexes] : by_node) {
    if (node == context_.name) {
      here = &indexes;
    } else {
      apply_there(round, node, snapshot->epoch(), items, indexes, everyone, timeout_ms);
    }
  }
  if (here != nullptr) apply_here(round, items, *here);
  return round;
}

void WriteCoordinator::apply_here(const std::shared_ptr<Round>& round,
                                  const std::vector<Pending>& items,
                                  std::span<const size_t> indexes) {
  std::vector<RecordView> records;
  records.reserve(indexes.size());
  for (const size_t index : indexes) records.push_back(items[index].view());
  const auto applied = context_.store->apply(records);
  const std::lock_guard lock(round->mutex);
  for (size_t i = 0; i < indexes.size(); ++i) {
    auto& item = round->items_[indexes[i]];
    --item.open;
    if (applied.ok()) ++((*applied)[i].after_cut ? item.after_cut : item.acknowledged);
  }
  if (!applied.ok()) {
    round->failures.push_back({context_.name,
                               std::string(message_of(applied.status())),
                               {indexes.begin(), indexes.end()}});
  }
  round->newest_clock = std::max(round->newest_clock, context_.store->clock().now());
}

void WriteCoordinator::apply_there(const std::shared_ptr<Round>& round, const std::string& node,
                                   uint64_t epoch, const std::vector<Pending>& items,
                                   std::span<const size_t> indexes, bool everyone,
                                   int64_t timeout_ms) {
  auto call = std::make_unique<Call>();
  call->request.set_epoch(epoch);
  for (const size_t index : indexes) fill(items[index].view(), call->request.add_records());
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
    const std::lock_guard lock(round->mutex);
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

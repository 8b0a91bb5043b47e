// Making slots durable in groups, and telling their sources. One thread does both, so that what a
// stream learns first is a list taken after a sync: everything received by then.
#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/status.h"
#include "dataplane/pipeline/consolidation_impl.h"

namespace sluice::consolidation {
namespace {

constexpr int64_t kTickMs = 20;
// A source that takes no acknowledgement for so long loses its stream, and learns the slots on its
// next one.
constexpr int64_t kAckTimeoutMs = 5'000;

}  // namespace

void ConsolidationImpl::run_sync() {
  while (!stopping()) {
    bool lists_due = false;
    bool sync = false;
    {
      MutexLock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(kTickMs), [&]() SLUICE_REQUIRES(mutex_) {
        return stopping() ||
               std::any_of(lanes_.begin(), lanes_.end(),
                           [](const auto& lane) { return lane.second->list_due; }) ||
               (progress_.slots_received == progress_.slots && progress_.state == State::kRunning);
      });
      if (stopping()) return;
      for (const auto& [node, lane] : lanes_) lists_due |= lane->list_due;
      const bool active = progress_.state == State::kRunning && !syncing_ended_;
      sync = active &&
             (sync_due(exchange_.clock().monotonic_ns()) || (lists_due && unsynced_slots_ > 0));
    }
    if (sync && !sync_and_mark()) continue;
    if (lists_due) send_first_lists();
    bool complete = false;
    {
      const MutexLock lock(mutex_);
      complete = progress_.slots_durable == progress_.slots;
    }
    if (complete) end(State::kCopyCompleted, absl::OkStatus());
    check_idle(exchange_.clock().monotonic_ns());
  }
}

bool ConsolidationImpl::sync_due(int64_t now) const {
  if (unsynced_slots_ == 0) return false;
  return progress_.slots_received == progress_.slots || unsynced_bytes_ >= options_.sync_bytes ||
         now - first_unsynced_ns_ >= options_.sync_ms * kMs;
}

bool ConsolidationImpl::sync_and_mark() {
  const bool synced = make_durable();
  {
    const MutexLock lock(mutex_);
    in_sync_ = false;
  }
  changed_.notify_all();
  return synced;
}

bool ConsolidationImpl::make_durable() {
  {
    // What is finished from here on may or may not be in this sync; it then counts for the next one
    // too.
    const MutexLock lock(mutex_);
    in_sync_ = true;
    unsynced_slots_ = 0;
    unsynced_bytes_ = 0;
  }
  absl::StatusOr<std::vector<uint32_t>> slots = writer_.sync();
  if (!slots.ok()) {
    end(State::kFailed, with_context(slots.status(), "making slots durable"));
    return false;
  }
  {
    const MutexLock lock(mutex_);
    for (const uint32_t slot : *slots) {
      slots_[slot].phase = Slot::Phase::kDurable;
      ++progress_.slots_durable;
      if (const auto merged = unsynced_divergence_.extract(slot); !merged.empty()) {
        progress_.divergence.merge(merged.mapped());
      }
    }
  }
  if (options_.on_slot_durable) {
    const MutexLock lock(callback_mutex_);
    for (const uint32_t slot : *slots) options_.on_slot_durable(slot);
  }
  acknowledge(*slots);
  return true;
}

void ConsolidationImpl::acknowledge(const std::vector<uint32_t>& slots) {
  if (slots.empty()) return;
  if (merge_ != nullptr) merge_->slots_durable(slots);
  struct Ack {
    std::shared_ptr<Stream> stream;
    std::vector<uint32_t> slots;
  };
  std::map<std::string_view, Ack> acks;  // by source
  {
    const MutexLock lock(mutex_);
    for (const uint32_t slot : slots) {
      const ConsolidationSlot& plan = *slots_[slot].plan;
      if (!plan.agreed) continue;
      for (const ConsolidationSlot::Sender& sender : plan.senders) {
        const Lane& lane = *lanes_.find(sender.node)->second;
        // A stream whose first list is still to come learns it from that.
        if (lane.newest == nullptr || lane.list_due) continue;
        Ack& ack = acks[lane.node];
        ack.stream = lane.newest;
        ack.slots.push_back(slot);
      }
    }
  }
  for (auto& [node, ack] : acks) {
    if (absl::Status status = send_list(*ack.stream, ack.slots, false); !status.ok()) {
      ack.stream->close(status);
    }
  }
}

void ConsolidationImpl::send_first_lists() {
  struct First {
    std::shared_ptr<Stream> stream;
    std::vector<uint32_t> slots;
  };
  std::vector<First> lists;
  {
    const MutexLock lock(mutex_);
    for (auto& [node, lane] : lanes_) {
      if (!lane->list_due) continue;
      lane->list_due = false;
      First first{lane->newest, {}};
      for (const uint32_t slot : lane->slots) {
        if (slots_[slot].phase == Slot::Phase::kDurable) first.slots.push_back(slot);
      }
      lists.push_back(std::move(first));
    }
  }
  for (const First& first : lists) {
    if (absl::Status status = send_list(*first.stream, first.slots, true); !status.ok()) {
      first.stream->close(status);
    }
  }
}

absl::Status ConsolidationImpl::send_list(Stream& stream, const std::vector<uint32_t>& slots,
                                          bool complete) {
  Envelope envelope;
  envelope.kind = MessageKind::kSlotsDurable;
  envelope.attempt = options_.attempt;
  size_t at = 0;
  do {
    const size_t count = std::min(slots.size() - at, kMaxSlotsPerMessage);
    const bool last = at + count == slots.size();
    envelope.flags = last && complete ? Envelope::kListComplete : 0;
    SLUICE_RETURN_IF_ERROR(stream.send_control(
        envelope, encode_slots(std::span(slots).subspan(at, count)), kAckTimeoutMs));
    at += count;
  } while (at < slots.size());
  return absl::OkStatus();
}

void ConsolidationImpl::check_idle(int64_t now) {
  if (now - last_block_ns_ < options_.idle_timeout_ms * kMs) return;
  std::string missing;
  {
    const MutexLock lock(mutex_);
    if (progress_.state != State::kRunning) return;
    for (const auto& [slot, state] : slots_) {
      if (state.phase != Slot::Phase::kMissing) continue;
      missing = fmt::format("slot {} of {}", slot, state.plan->senders.front().node);
      break;
    }
  }
  end(State::kFailed, deadline_exceeded("no block from anyone for {} s; missing: {}, and others",
                                        options_.idle_timeout_ms / 1000, missing));
}

}  // namespace sluice::consolidation

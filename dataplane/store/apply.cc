// Writing records: rules 1, 2 and 4 of store.h.
#include <algorithm>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "base/text.h"
#include "dataplane/store/store_impl.h"

namespace sluice {
namespace {

// Of a row in a batch, besides key and value.
constexpr size_t kRowOverhead = 64;
// That a read waits for what it returns to become durable.
constexpr int64_t kReadWaitMs = 2'000;

ApplyResult result_of(Mutation::Outcome outcome, const Mutation& mutation) {
  ApplyResult result;
  switch (outcome) {
    case Mutation::Outcome::kChanged:
      result.outcome = ApplyResult::Outcome::kApplied;
      break;
    case Mutation::Outcome::kEqualHere:
      result.outcome = ApplyResult::Outcome::kEqual;
      break;
    case Mutation::Outcome::kNewerHere:
      result.outcome = ApplyResult::Outcome::kSuperseded;
      result.newer = mutation.before()->summary.version;
      break;
  }
  return result;
}

bool has_repeats(std::vector<uint64_t> hashes) {
  std::sort(hashes.begin(), hashes.end());
  return std::adjacent_find(hashes.begin(), hashes.end()) != hashes.end();
}

}  // namespace

void KeptRecords::merge(const KeptRecords& other) {
  newer = std::max(newer, other.newer);
  deleted = std::max(deleted, other.deleted);
  replaced = std::max(replaced, other.replaced);
}

void KeptRecords::add(const KeptRecords& other) {
  newer += other.newer;
  deleted += other.deleted;
  replaced += other.replaced;
}

uint64_t missed_cut(std::span<const ApplyResult> results) {
  uint64_t cut = 0;
  for (const ApplyResult& result : results) {
    if (result.after_cut) cut = std::max(cut, result.cut);
  }
  return cut;
}

absl::Status clash_among(std::span<const RecordView> records,
                         std::span<const ApplyResult> results) {
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].outcome != ApplyResult::Outcome::kSuperseded) continue;
    if (results[i].newer != records[i].version) continue;
    return aborted("key {} has another value with the very version of this write",
                   printable(records[i].key));
  }
  return absl::OkStatus();
}

absl::Status StoreImpl::check_record(const RecordView& record) const {
  if (record.key.empty() || record.key.size() > kMaxKeyBytes) {
    return invalid_argument("a key of {} bytes: 1 to {} are possible", record.key.size(),
                            kMaxKeyBytes);
  }
  if (record.value.size() > kMaxValueBytes) {
    return invalid_argument("a value of {} bytes: at most {} are possible", record.value.size(),
                            kMaxValueBytes);
  }
  if (record.tombstone && !record.value.empty()) {
    return invalid_argument("a tombstone with a value of {} bytes", record.value.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_lock<WriteGate>> StoreImpl::enter(uint64_t largest_stamp) {
  for (;;) {
    SLUICE_RETURN_IF_ERROR(check_writable());
    {
      std::shared_lock gate(gate_);
      if (!armed_.has_value() || largest_stamp <= armed_->cut ||
          defect(Defect::kWritePassesTheCut)) {
        return gate;
      }
    }
    const MutexLock cut(cut_mutex_);
    // Somebody else may have taken it, and another may be armed by now: only one that this write
    // must not be in is due.
    if (armed_.has_value() && largest_stamp > armed_->cut)
      SLUICE_RETURN_IF_ERROR(take_cut_locked());
  }
}

absl::Status StoreImpl::commit(Mutation& mutation, uint64_t* ticket) {
  if (mutation.empty()) return absl::OkStatus();
  std::vector<uint32_t> slots;
  slots.reserve(mutation.changed_slots().size());
  for (const auto& [slot, digest] : mutation.changed_slots()) slots.push_back(slot);
  const auto mark = [&](uint64_t until) {
    for (const uint32_t slot : slots) slot_tickets_.set(slot, until);
  };
  mark(SlotTickets::kCommitting);
  const absl::Status status = mutation.commit();
  if (status.ok()) *ticket = sync_.committed();
  mark(status.ok() ? *ticket : sync_.last());
  return status.ok() ? status : fail(status);
}

absl::Status StoreImpl::wait_until_durable(uint32_t slot) {
  uint64_t ticket = slot_tickets_.of(slot);
  if (ticket == SlotTickets::kCommitting) {
    const std::lock_guard gate(slot_gates_.of(slot));
    ticket = slot_tickets_.of(slot);
    // Whoever was committing has not lived to say so.
    if (ticket == SlotTickets::kCommitting) ticket = sync_.last();
  }
  if (defect(Defect::kReadsWaitForNothing)) return absl::OkStatus();
  const absl::Status durable = sync_.wait(ticket, kReadWaitMs);
  if (absl::IsDeadlineExceeded(durable)) return durable;
  // What is here stays readable, of a store that takes no writes: its readers are told so.
  if (!durable.ok()) fail(durable).IgnoreError();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ApplyResult>> StoreImpl::apply(std::span<const RecordView> records) {
  std::vector<ApplyResult> results(records.size());
  if (records.empty()) return results;
  std::vector<uint32_t> slots;
  std::vector<uint64_t> hashes;
  std::vector<RecordSummary> summaries;
  slots.reserve(records.size());
  hashes.reserve(records.size());
  summaries.reserve(records.size());
  uint64_t largest_stamp = 0;
  size_t bytes = 0;
  for (const RecordView& record : records) {
    SLUICE_RETURN_IF_ERROR(check_record(record));
    bytes += record.key.size() + record.value.size();
    largest_stamp = std::max(largest_stamp, record.version.stamp);
    slots.push_back(slot_of(record.key, options_.slot_bits));
    hashes.push_back(xxh3_64(record.key));
    summaries.push_back(record.summary());
  }
  // A store that takes no writes has seen the stamp all the same.
  SLUICE_RETURN_IF_ERROR(clock_->observe(largest_stamp));
  SLUICE_RETURN_IF_ERROR(check_writable());

  uint64_t ticket = 0;
  {
    SLUICE_ASSIGN_OR_RETURN(const std::shared_lock<WriteGate> gate, enter(largest_stamp));
    const SlotGates::Hold hold(slot_gates_, slots);
    // A record that is here already may have come with another call that is not durable yet, so an
    // answer that changes nothing waits for it as well.
    if (!defect(Defect::kRepeatWaitsForNothing)) ticket = sync_.last();
    Mutation mutation(*db_, *sets_, digests_, /*repeats=*/has_repeats(std::move(hashes)),
                      std::min(bytes + records.size() * kRowOverhead, kBatchBytes));
    for (size_t i = 0; i < records.size(); ++i) {
      SLUICE_ASSIGN_OR_RETURN(
          const Mutation::Outcome outcome,
          mutation.put(slots[i], records[i].key, summaries[i], records[i].value));
      results[i] = result_of(outcome, mutation);
      if (records[i].version.stamp <= last_cut_) {
        results[i].after_cut = true;
        results[i].cut = last_cut_;
      }
      if (mutation.bytes() >= kBatchBytes) SLUICE_RETURN_IF_ERROR(commit(mutation, &ticket));
    }
    SLUICE_RETURN_IF_ERROR(commit(mutation, &ticket));
  }
  if (defect(Defect::kAckBeforeSync)) return results;
  if (absl::Status status = sync_.wait(ticket); !status.ok()) return fail(status);
  return results;
}

}  // namespace sluice

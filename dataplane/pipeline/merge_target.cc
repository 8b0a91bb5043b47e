#include "dataplane/pipeline/merge_target.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "base/defect.h"
#include "base/status.h"
#include "dataplane/pipeline/cancellation.h"

namespace sluice {
namespace {

using std::chrono::milliseconds;

// What does not come as an event: the end of a source's backoff, a restarted source.
constexpr int64_t kRetryTickMs = 10;
constexpr int64_t kNoticeTickMs = 200;
constexpr int64_t kRestartTickNs = 1'000 * kMs;
constexpr int64_t kNoticeMs = 2'000;
constexpr int64_t kNoticeRetryNs = 500 * kMs;
constexpr int64_t kLastNoticesMs = 2'000;
// So many slots of a group are looked at for one whose sources can be reached.
constexpr size_t kLookAhead = 8;
// Slots that go together have so many bytes, or one of them more; so many are looked at for them.
constexpr uint64_t kBatchBytes = uint64_t{4} << 20;
constexpr size_t kLookForLike = 4 * kMaxMergeSlots;

}  // namespace

absl::Status MergeTarget::start(const std::vector<const ConsolidationSlot*>& slots,
                                const std::set<uint32_t>& durable) {
  size_t most_senders = 0;
  MutexLock lock(mutex_);
  for (const ConsolidationSlot* plan : slots) {
    plans_.emplace(plan->slot, plan);
    std::vector<std::string> group;
    for (const ConsolidationSlot::Sender& sender : plan->senders) {
      group.push_back(sender.node);
      ++senders_[sender.node].slots;
      if (durable.contains(plan->slot)) senders_[sender.node].durable.push_back(plan->slot);
    }
    most_senders = std::max(most_senders, group.size());
    if (!durable.contains(plan->slot)) pending_[std::move(group)].push_back({plan});
  }
  lock.unlock();
  SLUICE_ASSIGN_OR_RETURN(output_,
                          exchange_.arena().make_pool("merge output", options_.merge_buffers));
  MergeStreams::Options streams;
  streams.job = options_.job;
  streams.attempt = options_.attempt;
  streams.receive_blocks = options_.merge_receive_blocks;
  streams.max_streams = std::max(options_.merge_streams, most_senders);
  streams.find_source = options_.find_source;
  streams_ = std::make_unique<MergeStreams>(exchange_, std::move(streams));
  for (size_t i = 0; i < options_.merge_workers; ++i) {
    workers_.emplace_back([this] { run_worker(); });
  }
  notices_ = std::thread([this] { run_notices(); });
  return absl::OkStatus();
}

MergeTarget::~MergeTarget() {
  {
    MutexLock lock(mutex_);
    changed_.wait_for(lock, milliseconds(kLastNoticesMs),
                      [this]() SLUICE_REQUIRES(mutex_) { return all_tried(); });
    stopping_ = true;
  }
  changed_.notify_all();
  if (streams_ != nullptr) streams_->stop();
  for (std::thread& thread : workers_) thread.join();
  if (notices_.joinable()) notices_.join();
  streams_.reset();
  // The archive writes from them; after an error it lets go of them when its writes end.
  output_.reset();
}

// Whether there is nobody left to be told, or not everything is durable.
bool MergeTarget::all_tried() const {
  for (const auto& [node, sender] : senders_) {
    if (sender.durable.size() < sender.slots) return true;
  }
  return std::all_of(senders_.begin(), senders_.end(),
                     [](const auto& entry) { return entry.second.told || entry.second.tried; });
}

void MergeTarget::slots_durable(const std::vector<uint32_t>& slots) {
  {
    const MutexLock lock(mutex_);
    for (const uint32_t slot : slots) {
      const auto found = plans_.find(slot);
      if (found == plans_.end()) continue;
      for (const ConsolidationSlot::Sender& sender : found->second->senders) {
        senders_[sender.node].durable.push_back(slot);
      }
    }
  }
  changed_.notify_all();
}

void MergeTarget::run_worker() {
  SlotMerge::Options options;
  options.attempt = options_.attempt;
  options.slot_bits = options_.slot_bits;
  options.list_bytes = options_.merge_list_bytes;
  options.answer_timeout_ms = options_.merge_answer_timeout_ms;
  options.stage = options_.merge;
  SlotMerge merger(host_, exchange_.clock(), *output_, options);
  while (host_.running()) {
    Job job;
    if (pick(&job)) {
      merge(job, merger);
      continue;
    }
    MutexLock lock(mutex_);
    if (stopping_) return;
    // With nothing pending a slot may still come back from another worker.
    const int64_t ms = pending_.empty() ? kCancellationPollMs : kRetryTickMs;
    changed_.wait_for(lock, milliseconds(ms),
                      [this]() SLUICE_REQUIRES(mutex_) { return stopping_; });
    if (stopping_) return;
  }
}

// The next slots whose sources can all be reached: of the group that was served last, whose streams
// are open, or of another one.
bool MergeTarget::pick(Job* job) {
  const MutexLock lock(mutex_);
  if (pending_.empty()) return false;
  auto group = pending_.lower_bound(last_group_);
  for (size_t i = 0; i < pending_.size(); ++i, ++group) {
    if (group == pending_.end()) group = pending_.begin();
    std::deque<Pending>& slots = group->second;
    for (size_t at = 0; at < std::min(slots.size(), kLookAhead); ++at) {
      if (!choose(slots[at], &job->batch)) continue;
      job->pending.push_back(slots[at]);
      slots.erase(slots.begin() + static_cast<std::ptrdiff_t>(at));
      add_like(slots, job);
      last_group_ = group->first;
      if (slots.empty()) pending_.erase(group);
      return true;
    }
  }
  return false;
}

namespace {

// Copies of a slot with the same digest stand together; in the order of their first nodes.
MergeBatch batch_of(const ConsolidationSlot& plan) {
  MergeBatch batch;
  batch.slots.push_back({plan.slot, {}});
  std::vector<SlotDigest>& digests = batch.slots.front().digests;
  for (const ConsolidationSlot::Sender& sender : plan.senders) {
    const auto at = std::find(digests.begin(), digests.end(), sender.digest) - digests.begin();
    if (static_cast<size_t>(at) == digests.size()) {
      digests.push_back(sender.digest);
      batch.copies.emplace_back();
    }
    batch.copies[static_cast<size_t>(at)].nodes.push_back(sender.node);
  }
  return batch;
}

uint64_t bytes_of(const MergeBatch::Slot& slot) {
  uint64_t most = 0;
  for (const SlotDigest& digest : slot.digests) most = std::max(most, digest.bytes);
  return most;
}

size_t list_bound_of(const MergeBatch::Slot& slot) {
  size_t most = 0;
  for (const SlotDigest& digest : slot.digests) {
    most = std::max(most, MergeBatch::list_bound(digest.records + digest.tombstones));
  }
  return most;
}

}  // namespace

// One node for each copy that differs: this one if it can be, for its stream takes no wire; else
// they take turns, those that have failed behind the others. False when all of a copy's are left
// alone for now.
bool MergeTarget::choose(const Pending& pending, MergeBatch* batch) const {
  *batch = batch_of(*pending.plan);
  for (MergeBatch::Copy& copy : batch->copies) {
    std::vector<size_t> reachable;
    for (const auto wanted : {MergeStreams::Health::kSound, MergeStreams::Health::kToBeTried}) {
      if (!reachable.empty()) break;
      for (size_t i = 0; i < copy.nodes.size(); ++i) {
        if (streams_->health(copy.nodes[i]) == wanted) reachable.push_back(i);
      }
    }
    if (reachable.empty()) return false;
    copy.chosen = reachable[(pending.plan->slot + pending.tries) % reachable.size()];
    for (const size_t i : reachable) {
      if (pending.tries == 0 && copy.nodes[i] == options_.node) copy.chosen = i;
    }
    copy.local = copy.node() == options_.node;
  }
  return true;
}

// Small slots go together, for requests and answers cost as much as their records: those of the
// same nodes with the same copies equal. One that has failed goes alone.
void MergeTarget::add_like(std::deque<Pending>& slots, Job* job) const {
  MergeBatch& batch = job->batch;
  if (job->pending.front().tries > 0) return;
  uint64_t bytes = bytes_of(batch.slots.front());
  size_t lists = list_bound_of(batch.slots.front());
  size_t looked_at = 0;
  for (auto at = slots.begin(); at != slots.end() && batch.slots.size() < kMaxMergeSlots &&
                                bytes < kBatchBytes && looked_at < kLookForLike;
       ++looked_at) {
    const MergeBatch other = batch_of(*at->plan);
    const size_t list = list_bound_of(other.slots.front()) + MergeSection::kHeaderBytes;
    const bool alike = at->tries == 0 && lists + list <= options_.merge_list_bytes &&
                       std::equal(batch.copies.begin(), batch.copies.end(), other.copies.begin(),
                                  other.copies.end(),
                                  [](const auto& a, const auto& b) { return a.nodes == b.nodes; });
    if (!alike) {
      ++at;
      continue;
    }
    batch.slots.push_back(other.slots.front());
    job->pending.push_back(*at);
    bytes += bytes_of(other.slots.front());
    lists += list;
    at = slots.erase(at);
  }
}

void MergeTarget::put_back(const Job& job, size_t finished, const uint32_t* failed) {
  std::vector<std::string> group;
  for (const ConsolidationSlot::Sender& sender : job.pending.front().plan->senders) {
    group.push_back(sender.node);
  }
  if (defect(Defect::kMergePutsBackAll)) finished = 0;
  const MutexLock lock(mutex_);
  for (size_t i = job.pending.size(); i > finished; --i) {
    Pending pending = job.pending[i - 1];
    pending.tries += failed != nullptr && pending.plan->slot == *failed ? 1 : 0;
    pending_[group].push_front(pending);
  }
}

void MergeTarget::merge(Job& job, SlotMerge& merger) {
  std::vector<std::string> nodes;
  for (const MergeBatch::Copy& copy : job.batch.copies) nodes.push_back(copy.node());
  auto streams = streams_->open(nodes);
  if (!streams.ok()) {
    if (absl::IsResourceExhausted(streams.status())) host_.told_to_wait();
    put_back(job, 0, nullptr);
    return;
  }
  size_t finished = 0;
  const absl::Status status = merger.run(job.batch, *streams, &finished);
  if (status.ok()) {
    streams_->give_back(*std::move(streams));
    return;
  }
  const uint32_t slot = merger.slot();
  for (const MergeStreams::Held& held : *streams) {
    held.stream->close(unavailable("slot {} starts over: {}", slot, message_of(status)));
  }
  streams_->give_back(*std::move(streams));
  if (!host_.running()) return;
  host_.start_over(slot, status);
  put_back(job, finished, &slot);
}

void MergeTarget::run_notices() {
  for (;;) {
    std::string node;
    std::vector<uint32_t> slots;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      if (!due_notice(&node, &slots)) {
        changed_.wait_for(lock, milliseconds(kNoticeTickMs));
        if (stopping_) return;
        lock.unlock();
        streams_->prune();
        look_for_restarts();
        continue;
      }
    }
    const absl::Status status = tell(node, slots);
    {
      const MutexLock lock(mutex_);
      Sender& sender = senders_[node];
      sender.tried = true;
      sender.told = status.ok();
      sender.retry_ns = exchange_.clock().monotonic_ns() + kNoticeRetryNs;
    }
    changed_.notify_all();
  }
}

// A source that has come back asks for nothing that is durable: it has to be told again.
void MergeTarget::look_for_restarts() {
  const int64_t now = exchange_.clock().monotonic_ns();
  if (now - looked_ns_ < kRestartTickNs) return;
  looked_ns_ = now;
  std::vector<std::string> told;
  {
    const MutexLock lock(mutex_);
    for (const auto& [node, sender] : senders_) {
      if (sender.told) told.push_back(node);
    }
  }
  for (const std::string& node : told) {
    const absl::StatusOr<MergePeer> peer = options_.find_source(node);
    if (!peer.ok()) continue;
    const MutexLock lock(mutex_);
    Sender& sender = senders_[node];
    if (sender.start != peer->start) sender.told = false;
  }
}

// A source is told once all of its slots are durable.
bool MergeTarget::due_notice(std::string* node, std::vector<uint32_t>* slots) {
  const int64_t now = exchange_.clock().monotonic_ns();
  for (auto& [name, sender] : senders_) {
    if (sender.told || sender.durable.size() < sender.slots || now < sender.retry_ns) continue;
    *node = name;
    *slots = sender.durable;
    const absl::StatusOr<MergePeer> peer = options_.find_source(name);
    if (peer.ok()) sender.start = peer->start;
    return true;
  }
  return false;
}

// The whole list, on a stream that nobody else needs any more, and the answer that it was heard.
absl::Status MergeTarget::tell(const std::string& node, const std::vector<uint32_t>& slots) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<MergeStreams::Held> streams, streams_->open({node}));
  Stream& stream = *streams.front().stream;
  Envelope envelope;
  envelope.kind = MessageKind::kSlotsDurable;
  envelope.attempt = options_.attempt;
  absl::Status status;
  for (size_t at = 0; at < slots.size() && status.ok();) {
    const size_t count = std::min(slots.size() - at, kMaxSlotsPerMessage);
    envelope.flags = at + count == slots.size() ? Envelope::kListComplete : 0;
    status =
        stream.send_control(envelope, encode_slots(std::span(slots).subspan(at, count)), kNoticeMs);
    at += count;
  }
  const int64_t deadline = exchange_.clock().monotonic_ns() + kNoticeMs * kMs;
  for (bool heard = false; status.ok() && !heard;) {
    const absl::StatusOr<Message> message = stream.receive(kCancellationPollMs);
    if (message.ok()) {
      heard = message->envelope.kind == MessageKind::kStreamEnd;
    } else if (stream.closed() || exchange_.clock().monotonic_ns() > deadline) {
      status = message.status();
    }
  }
  stream.close(absl::OkStatus());
  streams_->give_back(std::move(streams));
  return status;
}

}  // namespace sluice

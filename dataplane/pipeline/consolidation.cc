#include "dataplane/pipeline/consolidation.h"

#include <algorithm>
#include <chrono>

#include "base/status.h"
#include "dataplane/pipeline/cancellation.h"
#include "dataplane/pipeline/consolidation_impl.h"
#include "dataplane/pipeline/job_attempt.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<Consolidation>> Consolidation::start(
    Exchange& exchange, ArchiveWriter& writer, const ConsolidationOptions& options) {
  auto consolidation =
      std::make_unique<consolidation::ConsolidationImpl>(exchange, writer, options);
  SLUICE_RETURN_IF_ERROR(consolidation->start());
  return consolidation;
}

absl::Status Consolidation::wait_to_end(int64_t poll_ms, const std::function<bool()>& proceed) {
  for (;;) {
    // Asked first: it may end after the wait has given up.
    const bool ended = has_ended();
    absl::Status status = wait(poll_ms);
    if (ended || !absl::IsDeadlineExceeded(status)) {
      proceed();  // and told of the last progress
      return status;
    }
    if (!proceed()) cancel();
  }
}

namespace consolidation {

using std::chrono::milliseconds;

absl::Status ConsolidationImpl::check_options() {
  if (options_.merge_receive_blocks < 2 || options_.agreed_receive_blocks < 1 ||
      options_.merge_workers < 1 || options_.merge_buffers < options_.merge_workers ||
      options_.slot_tries < 1) {
    return invalid_argument(
        "consolidation: a merging stream needs 2 receive blocks, the rest 1, and a merge a buffer");
  }
  if (options_.slot_bits < 1 || options_.slot_bits > kMaxSlotBits) {
    return invalid_argument("consolidation: {} slot bits", options_.slot_bits);
  }
  for (const ConsolidationSlot& plan : options_.slots) {
    if (plan.senders.empty() || !is_possible_slot(plan.slot, options_.slot_bits)) {
      return invalid_argument("consolidation: slot {} has no sender or does not exist", plan.slot);
    }
    if (plan.told && (!plan.agreed || plan.senders.size() != 1)) {
      return invalid_argument("consolidation: slot {} has not one sender that tells its digest",
                              plan.slot);
    }
    for (const ConsolidationSlot::Sender& sender : plan.senders) {
      if (plan.agreed && sender.digest != plan.senders.front().digest) {
        return invalid_argument("consolidation: slot {} is not agreed", plan.slot);
      }
    }
    if (!plan.agreed && !options_.find_source) {
      return invalid_argument("consolidation: nobody knows where the sources of slot {} are",
                              plan.slot);
    }
    if (!slots_.emplace(plan.slot, Slot{&plan}).second) {
      return invalid_argument("consolidation: slot {} is planned twice", plan.slot);
    }
  }
  return absl::OkStatus();
}

absl::Status ConsolidationImpl::take_durable_at_open() {
  for (const auto& [slot, digest] : writer_.durable_at_open()) {
    const auto found = slots_.find(slot);
    if (found == slots_.end()) {
      return failed_precondition(
          "the archive holds slot {}, which the plan gives to another target", slot);
    }
    const ConsolidationSlot& plan = *found->second.plan;
    if (plan.agreed && !plan.told && plan.senders.front().digest != digest) {
      return failed_precondition("the archive holds slot {} of another cut", slot);
    }
    found->second.phase = Slot::Phase::kDurable;
    ++progress_.slots_received;
    ++progress_.slots_durable;
    progress_.records += digest.records;
    progress_.record_bytes += digest.bytes;
  }
  return absl::OkStatus();
}

Lane& ConsolidationImpl::lane_of(const std::string& node) {
  std::unique_ptr<Lane>& lane = lanes_[node];
  if (lane == nullptr) {
    lane = std::make_unique<Lane>();
    lane->node = node;
    lane->activity = std::make_unique<Activity>(exchange_.executor(),
                                                [this, at = lane.get()] { run_agreed(*at); });
  }
  return *lane;
}

absl::Status ConsolidationImpl::start() {
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(check_options());
    SLUICE_RETURN_IF_ERROR(take_durable_at_open());
    progress_.slots = options_.slots.size();
  }
  for (const ConsolidationSlot& plan : options_.slots) {
    if (!plan.agreed) {
      divergent_.push_back(&plan);
      continue;
    }
    for (const ConsolidationSlot::Sender& sender : plan.senders) {
      lane_of(sender.node).slots.push_back(plan.slot);
    }
  }
  std::sort(divergent_.begin(), divergent_.end(),
            [](const auto* a, const auto* b) { return a->slot < b->slot; });
  for (auto& [node, lane] : lanes_) std::sort(lane->slots.begin(), lane->slots.end());
  last_block_ns_ = exchange_.clock().monotonic_ns();
  SLUICE_RETURN_IF_ERROR(exchange_.serve(StreamKind::kBackupAgreed, options_.job, this));
  serving_agreed_ = true;
  // Before the sync's thread, which tells it of durable slots.
  if (!divergent_.empty()) SLUICE_RETURN_IF_ERROR(start_merging());
  sync_ = std::thread([this] { run_sync(); });
  return absl::OkStatus();
}

ConsolidationImpl::~ConsolidationImpl() {
  if (serving_agreed_) exchange_.withdraw(StreamKind::kBackupAgreed, options_.job);
  if (sync_.joinable()) cancel();
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (sync_.joinable()) sync_.join();
  merge_.reset();  // the sync's thread has told it of durable slots
  for (auto& [node, lane] : lanes_) {
    lane->activity->stop();
    if (lane->newest != nullptr) lane->newest->close(absl::OkStatus());
  }
}

absl::StatusOr<StreamHandler::Admission> ConsolidationImpl::admit(const Hello& hello) {
  const MutexLock lock(mutex_);
  SLUICE_RETURN_IF_ERROR(check_attempt(hello, options_.attempt));
  SLUICE_RETURN_IF_ERROR(check_not_ended());
  if (lanes_.find(hello.node) == lanes_.end()) {
    return failed_precondition("{} has nothing to send to backup {} here", hello.node,
                               options_.job);
  }
  if (agreed_streams(hello.node) >= options_.agreed_streams) {
    return resource_exhausted("{} sources send to backup {} here, the most there may be at a time",
                              options_.agreed_streams, options_.job);
  }
  Admission admission;
  admission.receive_blocks =
      hello.node == options_.node ? options_.local_receive_blocks : options_.agreed_receive_blocks;
  return admission;
}

// ABORTED tells a source that coming back is no use.
absl::Status ConsolidationImpl::check_not_ended() const {
  if (progress_.state != State::kFailed && progress_.state != State::kCancelled) {
    return absl::OkStatus();
  }
  return aborted("backup {} has ended here: {}", options_.job, message_of(status_));
}

// Open streams of other sources than this one.
size_t ConsolidationImpl::agreed_streams(const std::string& but_of) const {
  size_t count = 0;
  for (const auto& [node, lane] : lanes_) {
    count += node != but_of && lane->newest != nullptr && !lane->newest->closed();
  }
  return count;
}

void ConsolidationImpl::accepted(std::shared_ptr<Stream> stream) {
  Lane& lane = *lanes_.find(stream->hello().node)->second;
  std::shared_ptr<Stream> older;  // ends here, or with its last user
  absl::Status ended;
  {
    const MutexLock lock(mutex_);
    ended = check_not_ended();  // since it was admitted: end() does not know of this stream
    if (ended.ok()) {
      older = std::exchange(lane.newest, stream);
      ++lane.streams;
      lane.list_due = true;
    }
  }
  if (!ended.ok()) return stream->close(ended);
  changed_.notify_all();
  stream->on_change(lane.activity->waker());
}

bool ConsolidationImpl::running() const {
  const MutexLock lock(mutex_);
  return progress_.state == State::kRunning && !stopping();
}

void ConsolidationImpl::count_block(uint32_t message_bytes) {
  last_block_ns_ = exchange_.clock().monotonic_ns();
  const MutexLock lock(mutex_);
  ++progress_.blocks;
  progress_.received_bytes += message_bytes;
  unsynced_bytes_ += message_bytes;
}

void ConsolidationImpl::count_repeated(const Envelope& envelope) {
  ++progress_.duplicate_blocks;
  progress_.repeated_bytes += envelope.payload_bytes + Envelope::kBytes;
}

void ConsolidationImpl::drop(uint32_t slot, bool archived) {
  if (archived) writer_.drop_slot(slot);
  const MutexLock lock(mutex_);
  progress_.dropped_bytes += std::exchange(slots_[slot].taken_bytes, 0);
}

bool ConsolidationImpl::slot_received(uint32_t slot, const SlotDigest& digest,
                                      uint64_t newest_stamp) {
  {
    // Before the archive has it: from then on the sync's thread may make it durable at any time,
    // and a durable slot never falls back to received.
    const MutexLock lock(mutex_);
    slots_[slot].phase = Slot::Phase::kReceived;
    ++progress_.slots_received;
    progress_.records += digest.records;
    progress_.record_bytes += digest.bytes;
  }
  // Versions of a tree's records are not of the cluster's clocks.
  const uint64_t newest_of_records = tree_number_of(slot) == 0 ? newest_stamp : 0;
  if (absl::Status status = writer_.finish_slot(slot, digest, newest_of_records); !status.ok()) {
    end(State::kFailed, with_context(status, fmt::format("archiving slot {}", slot)));
    return false;
  }
  if (options_.on_slot_received) {
    const MutexLock lock(callback_mutex_);
    options_.on_slot_received(slot);
  }
  bool all = false;
  {
    const MutexLock lock(mutex_);
    if (unsynced_slots_++ == 0) first_unsynced_ns_ = exchange_.clock().monotonic_ns();
    all = progress_.slots_received == progress_.slots;
  }
  // The sync's thread looks at what is due by itself; it is not woken for each slot.
  if (all) changed_.notify_all();
  return true;
}

void ConsolidationImpl::slot_failed(uint32_t slot, const std::string& source,
                                    const absl::Status& why) {
  size_t tries = 0;
  {
    const MutexLock lock(mutex_);
    ++progress_.slots_refused;
    tries = ++slots_[slot].tries;
  }
  if (tries >= options_.slot_tries) {
    end(State::kFailed, data_loss("slot {} from {} failed its checks {} times: {}", slot, source,
                                  tries, message_of(why)));
  }
}

void ConsolidationImpl::end(State state, const absl::Status& status) {
  std::vector<std::shared_ptr<Stream>> streams;
  absl::Status told;
  {
    const MutexLock lock(mutex_);
    if (progress_.state != State::kRunning) return;
    progress_.state = state;
    status_ = status;
    told = check_not_ended();
    if (!told.ok()) {
      for (auto& [node, lane] : lanes_) {
        if (lane->newest != nullptr) streams.push_back(lane->newest);
      }
    }
  }
  changed_.notify_all();
  for (const std::shared_ptr<Stream>& stream : streams) stream->close(told);
  if (options_.on_end) {
    const MutexLock lock(callback_mutex_);
    options_.on_end(status);
  }
}

absl::Status ConsolidationImpl::wait(int64_t timeout_ms) {
  MutexLock lock(mutex_);
  if (!changed_.wait_for(lock, milliseconds(timeout_ms), [this]() SLUICE_REQUIRES(mutex_) {
        return progress_.state != State::kRunning && !in_sync_;
      })) {
    return deadline_exceeded("{} of {} slots are durable after {} ms more", progress_.slots_durable,
                             progress_.slots, timeout_ms);
  }
  return status_;
}

bool ConsolidationImpl::has_ended() const {
  const MutexLock lock(mutex_);
  return progress_.state != State::kRunning && !in_sync_;
}

Consolidation::Progress ConsolidationImpl::progress() const {
  const MutexLock lock(mutex_);
  return progress_;
}

void ConsolidationImpl::cancel() {
  end(State::kCancelled, cancelled("backup {} is cancelled here", options_.job));
}

absl::StatusOr<PartManifest> ConsolidationImpl::finish() {
  {
    const MutexLock lock(mutex_);
    if (progress_.state != State::kCopyCompleted) {
      return failed_precondition("backup {}: not all slots are durable here", options_.job);
    }
    syncing_ended_ = true;
  }
  return writer_.finish();
}

}  // namespace consolidation
}  // namespace sluice

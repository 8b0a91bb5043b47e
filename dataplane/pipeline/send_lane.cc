#include "dataplane/pipeline/send_lane.h"

#include <tbb/enumerable_thread_specific.h>
#include <tbb/parallel_pipeline.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/bytes.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kMaxBackoffMs = 2'000;
// Streams in a row on which no slot became durable; each may have sent blocks, so time alone would
// not end it.
constexpr int kMaxFruitlessStreams = 30;
constexpr int kMaxRefusals = 20;
constexpr size_t kAckReceiveBlocks = 1;

// Whether another try could end differently.
bool worth_retrying(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kAborted:             // the target's job has ended
    case absl::StatusCode::kFailedPrecondition:  // cluster, version or attempt do not fit
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kPermissionDenied:
      return false;
    default:
      return true;
  }
}

}  // namespace

SendLane::SendLane(SendJob& job, StreamKind kind, std::vector<uint32_t> slots, size_t buffers,
                   size_t workers)
    : job_(job), kind_(kind), workers_(workers), order_(std::move(slots)), buffers_(buffers) {
  std::sort(order_.begin(), order_.end());
  for (const uint32_t slot : order_) slots_.emplace(slot, Slot{});
}

SendLane::~SendLane() {
  // What was sent may still be on its way out. The exchange ends a closed stream in bounded time,
  // and its buffers come home.
  if (pool_ != nullptr) pool_->wait_until_whole();
}

bool SendLane::done() const {
  std::lock_guard lock(mutex_);
  return durable_ == slots_.size();
}

void SendLane::run() {
  if (order_.empty()) return;
  Clock& clock = job_.exchange.clock();
  absl::StatusOr<std::unique_ptr<BlockPool>> pool =
      job_.exchange.arena().make_pool("sending to " + job_.options.target, buffers_);
  if (!pool.ok()) return job_.fail(pool.status());
  pool_ = *std::move(pool);
  progress_ns_ = clock.monotonic_ns();
  int64_t backoff_ms = job_.options.backoff_ms;
  int fruitless = 0;
  for (bool first = true; !done() && !job_.stopped(); first = false) {
    if (!first) job_.add_reconnect();
    size_t durable_before = 0;
    {
      std::lock_guard lock(mutex_);
      durable_before = durable_;
    }
    absl::StatusOr<std::shared_ptr<Stream>> stream = connect();
    absl::Status why = stream.status();
    if (stream.ok()) {
      use(*stream);
      why = (*stream)->closed_reason();
      (*stream)->close(absl::OkStatus());
    }
    if (done() || job_.stopped()) break;
    if (!worth_retrying(why)) return job_.fail(with_context(why, job_.options.target));
    {
      std::lock_guard lock(mutex_);
      if (durable_ > durable_before) {
        fruitless = 0;
        backoff_ms = job_.options.backoff_ms;
      } else if (stream.ok()) {
        ++fruitless;
      }
      if (fruitless > kMaxFruitlessStreams ||
          clock.monotonic_ns() - progress_ns_ > job_.options.give_up_ms * kMs) {
        // Buffers that are short are not a target that is away.
        const absl::StatusCode code = absl::IsResourceExhausted(why)
                                          ? absl::StatusCode::kResourceExhausted
                                          : absl::StatusCode::kUnavailable;
        job_.fail(make_error(code, "no progress in sending to {}: {}", job_.options.target,
                             message_of(why)));
        return;
      }
    }
    if (!wait_backoff(backoff_ms)) return;
    backoff_ms = std::min(backoff_ms * 2, kMaxBackoffMs);
  }
}

bool SendLane::wait_backoff(int64_t ms) {
  for (int64_t left = ms; left > 0; left -= kCancellationPollMs) {
    if (job_.stopped()) return false;
    std::this_thread::sleep_for(
        std::chrono::milliseconds(std::min<int64_t>(left, kCancellationPollMs)));
  }
  return !job_.stopped();
}

absl::StatusOr<std::shared_ptr<Stream>> SendLane::connect() {
  Exchange::ConnectOptions options;
  options.address = job_.options.address;
  options.kind = kind_;
  options.target = job_.options.target;
  options.job = job_.options.job;
  options.attempt = job_.options.attempt;
  options.receive_blocks = kAckReceiveBlocks;
  options.timeout_ms = 5'000;
  return job_.exchange.connect(options);
}

void SendLane::use(const std::shared_ptr<Stream>& stream) {
  if (absl::Status status = learn_durable(*stream); !status.ok()) {
    stream->close(status);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    broken_ = false;
    to_do_.clear();
    for (const uint32_t slot : order_) {
      if (slots_[slot].phase != Slot::Phase::kDurable) to_do_.push_back(slot);
    }
  }
  std::thread reader([&] { read(*stream); });
  for (;;) {
    send_all(*stream);
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(kCancellationPollMs),
                      [&] { return broken_ || durable_ == slots_.size() || !to_do_.empty(); });
    if (broken_ || durable_ == slots_.size() || job_.stopped()) break;
  }
  if (done()) {
    Envelope end;
    end.kind = MessageKind::kStreamEnd;
    end.attempt = job_.options.attempt;
    // A courtesy: the target has everything.
    (void)stream->send_control(end, {}, kCancellationPollMs);
  }
  stream->close(job_.stopped() ? job_.status() : absl::OkStatus());
  reader.join();
  reset_unfinished();
}

absl::Status SendLane::learn_durable(Stream& stream) {
  const int64_t deadline = job_.exchange.clock().monotonic_ns() + job_.options.give_up_ms * kMs;
  for (;;) {
    if (job_.stopped()) return cancelled("sending is cancelled");
    absl::StatusOr<Message> message = stream.receive(kCancellationPollMs);
    if (message.status().code() == absl::StatusCode::kDeadlineExceeded && !stream.closed()) {
      if (job_.exchange.clock().monotonic_ns() > deadline) return message.status();
      continue;
    }
    SLUICE_RETURN_IF_ERROR(message.status());
    if (message->envelope.kind != MessageKind::kSlotsDurable) {
      return data_loss("the target does not begin with the slots it has");
    }
    SLUICE_RETURN_IF_ERROR(on_durable(*message, true));
    if ((message->envelope.flags & Envelope::kListComplete) != 0) return absl::OkStatus();
  }
}

void SendLane::read(Stream& stream) {
  for (;;) {
    absl::Status status;
    {
      absl::StatusOr<Message> message = stream.receive(kCancellationPollMs);
      status = message.status();
      if (status.ok()) {
        status = on_message(*message);
        if (!status.ok()) stream.close(status);
      } else if (status.code() == absl::StatusCode::kDeadlineExceeded && !stream.closed()) {
        continue;
      }
    }
    if (!status.ok()) break;
  }
  std::lock_guard lock(mutex_);
  broken_ = true;
  changed_.notify_all();
}

absl::Status SendLane::on_message(const Message& message) {
  switch (message.envelope.kind) {
    case MessageKind::kSlotsDurable:
      return on_durable(message, false);
    case MessageKind::kSlotRefused:
      return on_refused(message);
    default:
      return data_loss("a target sent a message of kind {}",
                       static_cast<int>(message.envelope.kind));
  }
}

absl::Status SendLane::on_durable(const Message& message, bool at_start) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<uint32_t> list,
                          decode_slots(as_string_view(message.payload())));
  for (const uint32_t slot : list) {
    bool sent_before = false;
    {
      std::lock_guard lock(mutex_);
      const auto found = slots_.find(slot);
      if (found == slots_.end() || found->second.phase == Slot::Phase::kDurable) continue;
      sent_before = found->second.sent_before;
      found->second.phase = Slot::Phase::kDurable;
      ++durable_;
      progress_ns_ = job_.exchange.clock().monotonic_ns();
    }
    job_.slot_durable(slot, at_start && !sent_before);
  }
  changed_.notify_all();
  return absl::OkStatus();
}

absl::Status SendLane::on_refused(const Message& message) {
  const uint32_t slot = message.envelope.slot;
  std::lock_guard lock(mutex_);
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return data_loss("the target refuses slot {}, never sent", slot);
  Slot& state = found->second;
  if (++state.refusals > kMaxRefusals) {
    return aborted("the target refused slot {} {} times: {}", slot, state.refusals,
                   message_of(decode_status(as_string_view(message.payload()))));
  }
  state.restart = true;
  if (state.phase == Slot::Phase::kSending) {
    state.refused = true;
  } else if (state.phase == Slot::Phase::kSent) {
    state.phase = Slot::Phase::kToDo;
    to_do_.push_back(slot);
    changed_.notify_all();
  }
  return absl::OkStatus();
}

bool SendLane::next_slot(uint32_t* slot) {
  std::lock_guard lock(mutex_);
  while (!to_do_.empty() && !broken_ && !job_.stopped()) {
    *slot = to_do_.front();
    to_do_.pop_front();
    Slot& state = slots_[*slot];
    if (state.phase != Slot::Phase::kToDo) continue;
    state.phase = Slot::Phase::kSending;
    state.refused = false;
    if (state.sent_before) job_.add_repeat();
    state.sent_before = true;
    return true;
  }
  return false;
}

void SendLane::send_all(Stream& stream) {
  tbb::enumerable_thread_specific<SlotPacker> packers;
  const auto finish = [&](uint32_t slot) {
    const Outcome outcome = send_slot(stream, packers.local(), slot);
    std::lock_guard lock(mutex_);
    Slot& state = slots_[slot];
    if (outcome == Outcome::kBroken) {
      broken_ = true;
    } else if (state.phase == Slot::Phase::kSending) {
      const bool again = outcome == Outcome::kRefused || state.refused;
      state.phase = again ? Slot::Phase::kToDo : Slot::Phase::kSent;
      if (again) to_do_.push_back(slot);
    }
  };
  if (workers_ <= 1) {
    for (uint32_t slot = 0; next_slot(&slot);) finish(slot);
    return;
  }
  // An arena of its own: a lane that waits for its target does not take the threads of another.
  tbb::task_arena arena(static_cast<int>(workers_));
  arena.execute([&] {
    tbb::parallel_pipeline(
        workers_, tbb::make_filter<void, uint32_t>(tbb::filter_mode::serial_in_order,
                                                   [&](tbb::flow_control& control) {
                                                     uint32_t slot = 0;
                                                     if (!next_slot(&slot)) control.stop();
                                                     return slot;
                                                   }) &
                      tbb::make_filter<uint32_t, void>(tbb::filter_mode::parallel, finish));
  });
}

absl::StatusOr<SlotPacker::Packed> SendLane::pack(SlotPacker& packer, BlockBuffer& buffer) {
  Stage::Work work(job_.options.scan);
  absl::StatusOr<SlotPacker::Packed> packed = packer.pack(buffer);
  if (packed.ok()) work.add(packed->bytes);
  return packed;
}

SendLane::Outcome SendLane::send_slot(Stream& stream, SlotPacker& packer, uint32_t slot) {
  packer.begin(job_.cut.scan(slot), slot, job_.options.slot_bits);
  Envelope envelope;
  envelope.slot = slot;
  envelope.attempt = job_.options.attempt;
  bool restart = false;
  {
    std::lock_guard lock(mutex_);
    restart = slots_[slot].restart;
  }
  for (bool last = false; !last; ++envelope.sequence) {
    BlockBuffer buffer;
    while (!(buffer = pool_->take(kCancellationPollMs))) {
      std::lock_guard lock(mutex_);
      if (broken_ || job_.stopped()) return Outcome::kBroken;
    }
    absl::StatusOr<SlotPacker::Packed> packed = pack(packer, buffer);
    if (!packed.ok()) {
      job_.fail(with_context(packed.status(), fmt::format("reading slot {} of the cut", slot)));
      return Outcome::kBroken;
    }
    last = packed->last;
    envelope.kind = packed->bytes > 0 ? MessageKind::kBlock : MessageKind::kSlotEnd;
    envelope.flags =
        static_cast<uint16_t>((restart && envelope.sequence == 0 ? Envelope::kRestart : 0) |
                              (last && packed->bytes > 0 ? Envelope::kEndOfSlot : 0));
    envelope.payload_bytes = packed->bytes;
    const uint32_t bytes = Envelope::seal(envelope, buffer);
    if (!send_message(stream, std::move(buffer), bytes).ok()) return Outcome::kBroken;
    job_.block_sent(bytes, *packed);
    std::lock_guard lock(mutex_);
    progress_ns_ = job_.exchange.clock().monotonic_ns();
    if (slots_[slot].refused) return Outcome::kRefused;
  }
  job_.slot_sent(slot);
  return Outcome::kSent;
}

// Waits as long as the stream lives: a target that is slow is back-pressure, one that is dead loses
// its stream.
absl::Status SendLane::send_message(Stream& stream, BlockBuffer buffer, uint32_t bytes) {
  for (;;) {
    absl::Status status = stream.send(buffer.share(), bytes, kCancellationPollMs);
    if (status.code() != absl::StatusCode::kDeadlineExceeded || stream.closed()) return status;
    if (job_.stopped()) return cancelled("sending is cancelled");
  }
}

void SendLane::reset_unfinished() {
  std::lock_guard lock(mutex_);
  to_do_.clear();
  for (auto& [slot, state] : slots_) {
    if (state.phase != Slot::Phase::kDurable) state.phase = Slot::Phase::kToDo;
    state.restart = false;  // a new stream begins with nothing to forget
  }
}

}  // namespace sluice

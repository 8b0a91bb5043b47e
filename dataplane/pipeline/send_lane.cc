#include "dataplane/pipeline/send_lane.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kMaxReconnectMs = 2'000;
// Streams in a row on which no slot became durable; each may have sent blocks, so time alone would
// not end it.
constexpr int kMaxFruitlessStreams = 30;
constexpr int kMaxRefusals = 20;
constexpr size_t kAckReceiveBlocks = 1;
// After so many a packer lets other work have its thread.
constexpr int kBlocksInATurn = 8;

// Whether another try could end differently.
bool worth_retrying(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kAborted:             // the target's job has ended
    case absl::StatusCode::kFailedPrecondition:  // cluster, version or attempt do not fit
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:  // no room here or there: others go first
      return false;
    default:
      return true;
  }
}

}  // namespace

// Packs one slot at a time into the lane's buffers. What it holds is of its activity alone.
class SendLane::Packer {
 public:
  explicit Packer(SendLane& lane)
      : lane_(lane), activity_(lane.job_.exchange.executor(), [this] { run(); }) {}
  ~Packer() {
    activity_.stop();
    drop();
  }
  Activity::Waker waker() const { return activity_.waker(); }
  void wake() { activity_.wake(); }

 private:
  void run() {
    const Current now = lane_.current();
    if (now.number != stream_) drop();
    if (now.stream == nullptr) return;
    stream_ = now.number;
    for (int blocks = 0; blocks < kBlocksInATurn; ++blocks) {
      if (!step(*now.stream)) return;
    }
    activity_.wake();
  }

  // False where it has to wait, or there is nothing to do.
  bool step(Stream& stream) {
    if (!slot_.has_value() && !begin_slot()) return false;
    if (!buffer_ && !pack()) return false;
    const absl::Status status = stream.send(buffer_.share(), bytes_, 0);
    if (status.code() == absl::StatusCode::kDeadlineExceeded && !stream.closed()) return false;
    buffer_.reset();
    if (!status.ok()) {
      lane_.broken(stream_);
      return false;
    }
    const uint32_t slot = *slot_;
    lane_.job_.block_sent(slot, bytes_, packed_);
    const bool refused = !lane_.block_sent(stream_, slot);
    ++envelope_.sequence;
    if (!refused && !packed_.last) return true;
    if (!refused) lane_.job_.slot_sent(slot);
    slot_.reset();
    lane_.slot_over(stream_, slot, refused);
    return true;
  }

  bool begin_slot() {
    uint32_t slot = 0;
    if (!lane_.next_slot(stream_, &slot, &restart_)) return false;
    slot_ = slot;
    envelope_ = {};
    envelope_.slot = slot;
    envelope_.attempt = lane_.job_.options.attempt;
    tells_digest_ = !lane_.job_.source.digest(slot).has_value();
    end_due_ = false;
    packer_.begin(lane_.job_.source.scan(slot), slot, lane_.job_.options.slot_bits);
    return true;
  }

  bool pack() {
    BlockBuffer buffer = lane_.pool_->try_take();
    if (!buffer) return false;
    packed_ = {0, true, 0, 0};
    if (!end_due_ && !pack_block(buffer)) return false;
    const bool block = packed_.bytes > 0;
    // What the target cannot know is told behind the last block, in a message of its own.
    end_due_ = tells_digest_ && packed_.last && block;
    packed_.last = packed_.last && !end_due_;
    envelope_.kind = block ? MessageKind::kBlock : MessageKind::kSlotEnd;
    envelope_.flags =
        static_cast<uint16_t>((restart_ && envelope_.sequence == 0 ? Envelope::kRestart : 0) |
                              (packed_.last && block ? Envelope::kEndOfSlot : 0));
    envelope_.payload_bytes = block || !tells_digest_ ? packed_.bytes : put_digest(buffer);
    bytes_ = Envelope::seal(envelope_, buffer);
    buffer_ = std::move(buffer);
    return true;
  }

  bool pack_block(BlockBuffer& buffer) {
    absl::StatusOr<SlotPacker::Packed> packed = absl::UnknownError("");
    {
      Stage::Work work(lane_.job_.options.scan);
      packed = packer_.pack(buffer);
      if (packed.ok()) work.add(packed->bytes);
    }
    if (!packed.ok()) {
      lane_.job_.fail(with_context(packed.status(), fmt::format("reading slot {}", *slot_)));
      return false;
    }
    packed_ = *packed;
    return true;
  }

  uint32_t put_digest(BlockBuffer& buffer) const {
    std::string encoded;
    ByteWriter out(&encoded);
    packer_.digest().encode(out);
    std::memcpy(buffer.data(), encoded.data(), encoded.size());
    return static_cast<uint32_t>(encoded.size());
  }

  // What was begun on a stream that is no longer used.
  void drop() {
    slot_.reset();
    buffer_.reset();
    packer_ = SlotPacker();
  }

  SendLane& lane_;
  uint64_t stream_ = 0;
  SlotPacker packer_;
  std::optional<uint32_t> slot_;
  bool restart_ = false;
  bool tells_digest_ = false;  // the target does not know what the slot has to be
  bool end_due_ = false;       // all blocks are packed, and their digest is still to be told
  Envelope envelope_;
  SlotPacker::Packed packed_;
  BlockBuffer buffer_;  // packed, not sent yet
  uint32_t bytes_ = 0;
  Activity activity_;
};

SendLane::SendLane(SendJob& job, std::function<void()> on_end)
    : job_(job),
      order_(job.options.agreed),
      on_end_(std::move(on_end)),
      backoff_(job.options.backoff_ms, kMaxReconnectMs),
      control_(job.exchange.executor(), [this] { run_control(); }) {
  std::sort(order_.begin(), order_.end());
  for (const uint32_t slot : order_) slots_.emplace(slot, Slot{});
}

SendLane::~SendLane() {
  control_.stop();
  packers_.clear();
  if (stream_ != nullptr) stream_->close(absl::OkStatus());
  // What was sent may still be on its way out. The exchange ends a closed stream in bounded time,
  // and its buffers come home.
  pool_.reset();
}

absl::Status SendLane::prepare() {
  if (!order_.empty()) {
    SLUICE_ASSIGN_OR_RETURN(pool_,
                            job_.exchange.arena().make_pool("sending to " + job_.options.target,
                                                            job_.options.agreed_buffers));
    std::vector<Activity::Waker> wakers;
    for (size_t i = 0; i < job_.options.packers; ++i) {
      packers_.push_back(std::make_unique<Packer>(*this));
      wakers.push_back(packers_.back()->waker());
    }
    pool_->set_home_hook([wakers] {
      for (const Activity::Waker& wake : wakers) wake();
    });
  }
  const MutexLock lock(mutex_);
  progress_ns_ = job_.exchange.clock().monotonic_ns();
  return absl::OkStatus();
}

bool SendLane::done() const {
  const MutexLock lock(mutex_);
  return durable_ == slots_.size();
}

void SendLane::run_control() {
  while (phase_ != Phase::kOver) {
    if (done() || job_.stopped()) return finish();
    switch (phase_) {
      case Phase::kConnect:
        connect();
        break;
      case Phase::kConnecting:
        if (!take_connected()) return;
        break;
      case Phase::kLearning:
      case Phase::kSending:
        if (!take_messages()) return;
        break;
      case Phase::kBackoff:
        if (job_.exchange.clock().monotonic_ns() < retry_ns_) return control_.wake_at(retry_ns_);
        phase_ = Phase::kConnect;
        break;
      case Phase::kOver:
        break;
    }
  }
}

void SendLane::connect() {
  if (std::exchange(connected_before_, true)) job_.add_reconnect();
  {
    const MutexLock lock(mutex_);
    durable_before_ = durable_;
  }
  phase_ = Phase::kConnecting;
  Exchange::ConnectOptions options;
  options.address = job_.options.address;
  options.kind = StreamKind::kBackupAgreed;
  options.target = job_.options.target;
  options.job = job_.options.job;
  options.attempt = job_.options.attempt;
  options.receive_blocks = kAckReceiveBlocks;
  options.timeout_ms = 5'000;
  connecting_ = std::make_shared<Connecting>();
  job_.exchange.begin_connect(options, [connecting = connecting_, wake = control_.waker()](
                                           absl::StatusOr<std::shared_ptr<Stream>> stream) {
    {
      const MutexLock lock(connecting->mutex);
      connecting->result = std::move(stream);
    }
    wake();
  });
}

bool SendLane::take_connected() {
  absl::StatusOr<std::shared_ptr<Stream>> stream = absl::UnknownError("");
  {
    const MutexLock lock(connecting_->mutex);
    if (!connecting_->result.has_value()) return false;
    stream = *std::move(connecting_->result);
  }
  connecting_.reset();
  if (!stream.ok()) {
    end_stream(stream.status());
    return true;
  }
  stream_ = *std::move(stream);
  phase_ = Phase::kLearning;
  learn_until_ns_ = job_.exchange.clock().monotonic_ns() + job_.options.give_up_ms * kMs;
  std::vector<Activity::Waker> wakers{control_.waker()};
  for (const auto& packer : packers_) wakers.push_back(packer->waker());
  stream_->on_change([wakers] {
    for (const Activity::Waker& wake : wakers) wake();
  });
  return true;
}

// Takes what the target says; false when it has said all that there is for now.
bool SendLane::take_messages() {
  absl::StatusOr<Message> message = stream_->receive(0);
  absl::Status status = message.status();
  if (status.ok()) {
    status = on_message(*message);
  } else if (status.code() == absl::StatusCode::kDeadlineExceeded && !stream_->closed()) {
    return phase_ == Phase::kLearning && wait_for_list();
  }
  if (!status.ok()) end_stream(status);
  return true;
}

// Whether the target has waited too long with its first word.
bool SendLane::wait_for_list() {
  if (job_.exchange.clock().monotonic_ns() <= learn_until_ns_) {
    control_.wake_at(learn_until_ns_ + 1);
    return false;
  }
  end_stream(deadline_exceeded("the target does not say which slots it has"));
  return true;
}

absl::Status SendLane::on_message(const Message& message) {
  const Envelope& envelope = message.envelope;
  if (phase_ == Phase::kLearning && envelope.kind != MessageKind::kSlotsDurable) {
    return data_loss("the target does not begin with the slots it has");
  }
  switch (envelope.kind) {
    case MessageKind::kSlotsDurable:
      SLUICE_RETURN_IF_ERROR(on_durable(message));
      if (phase_ == Phase::kLearning && (envelope.flags & Envelope::kListComplete) != 0) {
        begin_sending();
      }
      return absl::OkStatus();
    case MessageKind::kSlotRefused:
      return on_refused(message);
    default:
      return data_loss("a target sent a message of kind {}", static_cast<int>(envelope.kind));
  }
}

absl::Status SendLane::on_durable(const Message& message) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<uint32_t> list,
                          decode_slots(as_string_view(message.payload())));
  for (const uint32_t slot : list) {
    bool sent_before = false;
    {
      const MutexLock lock(mutex_);
      const auto found = slots_.find(slot);
      if (found == slots_.end() || found->second.phase == Slot::Phase::kDurable) continue;
      sent_before = found->second.sent_before;
      found->second.phase = Slot::Phase::kDurable;
      ++durable_;
      progress_ns_ = job_.exchange.clock().monotonic_ns();
    }
    job_.slot_durable(slot, phase_ == Phase::kLearning && !sent_before);
  }
  return absl::OkStatus();
}

absl::Status SendLane::on_refused(const Message& message) {
  const uint32_t slot = message.envelope.slot;
  const MutexLock lock(mutex_);
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
    wake_packers();
  }
  return absl::OkStatus();
}

void SendLane::begin_sending() {
  phase_ = Phase::kSending;
  {
    const MutexLock lock(mutex_);
    to_do_.clear();
    for (const uint32_t slot : order_) {
      Slot& state = slots_[slot];
      state.restart = false;  // a new stream begins with nothing to forget
      if (state.phase == Slot::Phase::kDurable) continue;
      state.phase = Slot::Phase::kToDo;
      to_do_.push_back(slot);
    }
    current_ = {stream_, current_.number + 1};
  }
  wake_packers();
}

// The stream, or the try to get one, ended with `why`: tries again after a while, or gives up.
void SendLane::end_stream(const absl::Status& why) {
  const bool opened = stream_ != nullptr;
  const absl::Status reason = opened && stream_->closed() ? stream_->closed_reason() : why;
  {
    const MutexLock lock(mutex_);
    current_.stream.reset();
    if (durable_ > durable_before_) {
      fruitless_ = 0;
      backoff_.reset();
    } else if (opened) {
      ++fruitless_;
    }
  }
  wake_packers();
  if (opened) {
    stream_->close(why);
    stream_.reset();
  }
  phase_ = Phase::kBackoff;
  if (!worth_retrying(reason)) return job_.fail(with_context(reason, job_.options.target));
  const int64_t now = job_.exchange.clock().monotonic_ns();
  bool give_up = fruitless_ > kMaxFruitlessStreams;
  {
    const MutexLock lock(mutex_);
    give_up = give_up || now - progress_ns_ > job_.options.give_up_ms * kMs;
  }
  if (give_up) {
    return job_.fail(
        unavailable("no progress in sending to {}: {}", job_.options.target, message_of(reason)));
  }
  retry_ns_ = now + backoff_.next_ns();
}

// Every slot is durable, or the job has stopped.
void SendLane::finish() {
  {
    const MutexLock lock(mutex_);
    current_.stream.reset();
  }
  wake_packers();
  if (stream_ != nullptr) {
    if (done()) {
      Envelope end;
      end.kind = MessageKind::kStreamEnd;
      end.attempt = job_.options.attempt;
      // A courtesy: the target has everything.
      (void)stream_->send_control(end, {}, 0);
    }
    stream_->close(done() ? absl::OkStatus() : job_.status());
    stream_.reset();
  }
  phase_ = Phase::kOver;
  on_end_();
}

void SendLane::wake_packers() {
  for (const auto& packer : packers_) packer->wake();
}

SendLane::Current SendLane::current() const {
  const MutexLock lock(mutex_);
  return current_;
}

bool SendLane::next_slot(uint64_t stream, uint32_t* slot, bool* restart) {
  const MutexLock lock(mutex_);
  while (!to_do_.empty() && current_.stream != nullptr && current_.number == stream) {
    *slot = to_do_.front();
    to_do_.pop_front();
    Slot& state = slots_[*slot];
    if (state.phase != Slot::Phase::kToDo) continue;
    state.phase = Slot::Phase::kSending;
    state.refused = false;
    if (state.sent_before) job_.add_repeat();
    state.sent_before = true;
    *restart = state.restart;
    return true;
  }
  return false;
}

bool SendLane::block_sent(uint64_t stream, uint32_t slot) {
  const MutexLock lock(mutex_);
  progress_ns_ = job_.exchange.clock().monotonic_ns();
  return current_.number != stream || !slots_[slot].refused;
}

void SendLane::slot_over(uint64_t stream, uint32_t slot, bool refused) {
  const MutexLock lock(mutex_);
  Slot& state = slots_[slot];
  if (current_.number != stream || state.phase != Slot::Phase::kSending) return;
  const bool again = refused || state.refused;
  state.phase = again ? Slot::Phase::kToDo : Slot::Phase::kSent;
  if (again) to_do_.push_back(slot);
}

// By a packer, which may have been at work since before another stream was opened.
void SendLane::broken(uint64_t stream) {
  {
    const MutexLock lock(mutex_);
    if (current_.number == stream) current_.stream.reset();
  }
  control_.wake();
}

}  // namespace sluice

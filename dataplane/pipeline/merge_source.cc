#include "dataplane/pipeline/merge_source.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/pipeline/job_attempt.h"
#include "dataplane/pipeline/merge_lists.h"
#include "dataplane/pipeline/slot_packer.h"

namespace sluice {
namespace {

constexpr int64_t kTickMs = 100;
constexpr int64_t kControlMs = 1'000;
// Of one message: a limit of the node's bytes a second holds messages to itself back. The target's
// own patience with an answer is about as long (ConsolidationOptions::merge_answer_timeout_ms).
constexpr int64_t kSendMs = 60'000;
// So long after a refusal streams end when they have served a slot.
constexpr int64_t kPressureNs = 1'000 * kMs;
// A stream that asks for nothing for so long goes when others want its room.
constexpr int64_t kIdleNs = 2'000 * kMs;

struct Request {
  MessageKind kind = MessageKind::kSummaryRequest;
  uint64_t number = 0;
  bool last_of_slots = false;
  std::vector<uint32_t> slots;
  uint64_t passed = 0;          // kSummaryRequest: records not asked for
  std::vector<RunList> wanted;  // kRecordRequest: of each slot
};

// What answers the request in work. Of the thread that has the stream.
struct Work {
  bool done() const { return at == request.slots.size(); }
  uint32_t slot() const { return request.slots[at]; }

  Request request;
  size_t at = 0;                   // of the slots
  bool packing = false;            // the packer has that slot
  std::unique_ptr<SlotScan> scan;  // of summaries
  SlotScan::Item item;
  bool have_item = false;
  SummaryPageBuilder page;
  SlotPacker packer;
  uint32_t next_answer = 0;
};

struct Served : std::enable_shared_from_this<Served> {
  explicit Served(std::shared_ptr<Stream> accepted) : stream(std::move(accepted)) {}
  const std::shared_ptr<Stream> stream;
  std::unique_ptr<BlockPool> pool;  // from the first request on
  // Under the source's ready_mutex_:
  std::optional<Request> request;  // takes the place of what is in work
  bool scheduled = false;          // in the queue, or a worker has it
  bool again = false;              // to be looked at once more
  bool working = false;
  int64_t last_ns = 0;  // of the last request or answer
  // Of the worker that has it:
  std::unique_ptr<Work> work;
};
using ServedPtr = std::shared_ptr<Served>;

class MergeSourceImpl final : public MergeSource, public StreamHandler {
 public:
  MergeSourceImpl(Exchange& exchange, std::shared_ptr<SlotSource> source,
                  const MergeSourceOptions& options)
      : exchange_(exchange), source_(std::move(source)), options_(options) {}
  ~MergeSourceImpl() override;
  absl::Status start();
  absl::Status wait_durable(int64_t timeout_ms) override;
  Counters counters() const override;

  absl::StatusOr<Admission> admit(const Hello& hello) override;
  void accepted(std::shared_ptr<Stream> stream) override;

 private:
  enum class Step { kMore, kWait };

  // The thread that takes requests.
  void run_requests();
  void handle(Inbox::Delivery& delivery);
  absl::StatusOr<Request> decode(const Message& message, const std::string& target) const;
  static absl::Status decode_slots_of(const Message& message, Request* request);
  absl::Status on_durable(const Message& message, Stream& stream);
  ServedPtr served(const std::shared_ptr<Stream>& stream);
  void sweep();

  // Workers.
  void run_worker();
  void wake(const ServedPtr& served);
  Step step(Served& served);
  absl::Status send(Stream& stream, const BlockBuffer& message, uint32_t bytes);
  absl::StatusOr<Envelope> pack(Work& work, BlockBuffer& buffer);
  absl::StatusOr<uint32_t> pack_section(Work& work, std::span<uint8_t> room);
  absl::StatusOr<Envelope> pack_summaries(Work& work, BlockBuffer& buffer);
  bool under_pressure() const;
  void fail(const absl::Status& status);

  Exchange& exchange_;
  const std::shared_ptr<SlotSource> source_;
  const MergeSourceOptions options_;
  const std::shared_ptr<Inbox> inbox_ = Inbox::create();
  std::map<std::string, std::set<uint32_t>> slots_;  // by target; fixed after start()
  size_t slot_count_ = 0;
  bool serving_ = false;
  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> refused_ns_{0};

  mutable Mutex mutex_;
  Condition durable_changed_;
  std::map<uint64_t, ServedPtr> streams_ SLUICE_GUARDED_BY(mutex_);  // by number
  std::vector<ServedPtr> retired_
      SLUICE_GUARDED_BY(mutex_);  // closed; their buffers are on the way home
  std::set<uint32_t> durable_ SLUICE_GUARDED_BY(mutex_);
  absl::Status failure_ SLUICE_GUARDED_BY(mutex_);
  Counters counters_ SLUICE_GUARDED_BY(mutex_);

  // After mutex_ and a pool's.
  Mutex ready_mutex_;
  Condition ready_changed_;
  std::deque<ServedPtr> ready_ SLUICE_GUARDED_BY(ready_mutex_);

  Mutex callback_mutex_;
  std::vector<std::thread> threads_;
};

absl::Status MergeSourceImpl::start() {
  if (options_.max_streams == 0 || options_.send_buffers == 0 || options_.workers == 0) {
    return invalid_argument("merge source: no stream, buffer or worker");
  }
  std::set<uint32_t> seen;
  for (const auto& [target, list] : options_.slots) {
    for (const uint32_t slot : list) {
      if (!source_->has(slot) || !is_possible_slot(slot, options_.slot_bits)) {
        return invalid_argument("slot {} is not one of this source's", slot);
      }
      if (!seen.insert(slot).second) return invalid_argument("slot {} is assigned twice", slot);
      slots_[target].insert(slot);
    }
  }
  slot_count_ = seen.size();
  threads_.emplace_back([this] { run_requests(); });
  for (size_t i = 0; i < options_.workers; ++i) {
    threads_.emplace_back([this] { run_worker(); });
  }
  SLUICE_RETURN_IF_ERROR(exchange_.serve(StreamKind::kBackupMerge, options_.job, this));
  serving_ = true;
  return absl::OkStatus();
}

MergeSourceImpl::~MergeSourceImpl() {
  if (serving_) exchange_.withdraw(StreamKind::kBackupMerge, options_.job);
  {
    const MutexLock lock(ready_mutex_);
    stopping_ = true;
  }
  ready_changed_.notify_all();
  inbox_->shut_down();
  for (std::thread& thread : threads_) thread.join();
  for (const auto& [key, served] : streams_) {
    served->stream->close(absl::OkStatus());
    retired_.push_back(served);
  }
  for (const ServedPtr& served : retired_) served->pool.reset();
  const MutexLock lock(ready_mutex_);
  ready_.clear();
}

absl::StatusOr<StreamHandler::Admission> MergeSourceImpl::admit(const Hello& hello) {
  SLUICE_RETURN_IF_ERROR(check_attempt(hello, options_.attempt));
  if (slots_.find(hello.node) == slots_.end()) {
    return failed_precondition("{} merges no slot of backup {} with a copy from here", hello.node,
                               options_.job);
  }
  const MutexLock lock(mutex_);
  if (streams_.size() + retired_.size() >= options_.max_streams) {
    ++counters_.refused;
    refused_ns_ = exchange_.clock().monotonic_ns();
    return resource_exhausted("{} streams of merges are served here, the most there may be",
                              options_.max_streams);
  }
  Admission admission;
  admission.receive_blocks = 1;
  admission.inbox = inbox_;
  return admission;
}

void MergeSourceImpl::accepted(std::shared_ptr<Stream> stream) { served(stream); }

ServedPtr MergeSourceImpl::served(const std::shared_ptr<Stream>& stream) {
  const MutexLock lock(mutex_);
  ServedPtr& found = streams_[stream->number()];
  if (found == nullptr) {
    found = std::make_shared<Served>(stream);
    found->last_ns = exchange_.clock().monotonic_ns();
  }
  return found;
}

void MergeSourceImpl::run_requests() {
  Inbox::Delivery delivery;
  while (!stopping_) {
    sweep();
    if (!inbox_->take(kTickMs, &delivery)) continue;
    handle(delivery);
    delivery = {};
  }
}

void MergeSourceImpl::handle(Inbox::Delivery& delivery) {
  const ServedPtr served = this->served(delivery.stream);
  if (delivery.closed) {
    const MutexLock lock(mutex_);
    streams_.erase(delivery.stream->number());
    retired_.push_back(served);
    return;
  }
  const Message& message = delivery.message;
  Stream& stream = *delivery.stream;
  if (message.envelope.kind == MessageKind::kStreamEnd) return;
  if (message.envelope.kind == MessageKind::kSlotsDurable) {
    if (absl::Status status = on_durable(message, stream); !status.ok()) stream.close(status);
    return;
  }
  absl::StatusOr<Request> request = decode(message, stream.hello().node);
  if (!request.ok()) {
    stream.close(request.status());
    return;
  }
  if (served->pool == nullptr) {
    auto pool =
        exchange_.arena().make_pool("merge of " + stream.hello().node, options_.send_buffers);
    if (!pool.ok()) {
      stream.close(pool.status());
      return;
    }
    (*pool)->set_home_hook([this, raw = served.get()] {
      if (const ServedPtr owner = raw->weak_from_this().lock()) wake(owner);
    });
    served->pool = *std::move(pool);
  }
  {
    const MutexLock lock(ready_mutex_);
    served->request = *std::move(request);
    served->last_ns = exchange_.clock().monotonic_ns();
  }
  wake(served);
}

absl::StatusOr<Request> MergeSourceImpl::decode(const Message& message,
                                                const std::string& target) const {
  const Envelope& envelope = message.envelope;
  if (envelope.kind != MessageKind::kSummaryRequest &&
      envelope.kind != MessageKind::kRecordRequest) {
    return data_loss("a message of kind {} where requests of a merge are due",
                     static_cast<int>(envelope.kind));
  }
  if (envelope.attempt != options_.attempt || (envelope.sequence & UINT32_MAX) != 0) {
    return data_loss("a request of a merge of attempt {} with sequence {:#x}", envelope.attempt,
                     envelope.sequence);
  }
  Request request;
  request.kind = envelope.kind;
  request.number = envelope.sequence;
  request.last_of_slots = (envelope.flags & Envelope::kEndOfSlot) != 0;
  SLUICE_RETURN_IF_ERROR(decode_slots_of(message, &request));
  const auto allowed = slots_.find(target);
  for (const uint32_t slot : request.slots) {
    if (allowed != slots_.end() && allowed->second.contains(slot)) continue;
    return data_loss("{} asks for slot {}, which it does not merge from here", target, slot);
  }
  if (request.slots.front() != envelope.slot) {
    return data_loss("a request of a merge for slot {} in an envelope for slot {}",
                     request.slots.front(), envelope.slot);
  }
  return request;
}

absl::Status MergeSourceImpl::decode_slots_of(const Message& message, Request* request) {
  if (request->kind == MessageKind::kSummaryRequest) {
    SLUICE_ASSIGN_OR_RETURN(SummaryRequest asked,
                            SummaryRequest::decode(as_string_view(message.payload())));
    request->passed = asked.passed;
    request->slots = std::move(asked.slots);
    return absl::OkStatus();
  }
  MergeSectionReader sections(message.payload());
  for (;;) {
    MergeSection section;
    SLUICE_ASSIGN_OR_RETURN(const bool more, sections.next(&section));
    if (!more) break;
    SLUICE_ASSIGN_OR_RETURN(RunList wanted, RunList::decode(section.bytes));
    request->slots.push_back(section.slot);
    request->wanted.push_back(std::move(wanted));
    if (request->slots.size() > kMaxMergeSlots) return data_loss("a request of too many slots");
  }
  if (request->slots.empty()) return data_loss("a request for no records");
  return absl::OkStatus();
}

absl::Status MergeSourceImpl::on_durable(const Message& message, Stream& stream) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<uint32_t> list,
                          decode_slots(as_string_view(message.payload())));
  const auto allowed = slots_.find(stream.hello().node);
  std::vector<uint32_t> fresh;
  {
    const MutexLock lock(mutex_);
    for (const uint32_t slot : list) {
      if (allowed == slots_.end() || !allowed->second.contains(slot)) {
        return data_loss("{} says that slot {} is durable, which it does not merge from here",
                         stream.hello().node, slot);
      }
      if (durable_.insert(slot).second) fresh.push_back(slot);
    }
    counters_.slots_durable = durable_.size();
  }
  if (options_.on_slot_durable && !fresh.empty()) {
    const MutexLock lock(callback_mutex_);
    for (const uint32_t slot : fresh) options_.on_slot_durable(slot);
  }
  durable_changed_.notify_all();
  if ((message.envelope.flags & Envelope::kListComplete) == 0) return absl::OkStatus();
  Envelope heard;
  heard.kind = MessageKind::kStreamEnd;
  heard.attempt = options_.attempt;
  return stream.send_control(heard, {}, kControlMs);
}

// Lets go of closed streams whose buffers are home, and of idle ones that others wait for.
void MergeSourceImpl::sweep() {
  const int64_t now = exchange_.clock().monotonic_ns();
  const bool pressure = under_pressure();
  std::vector<ServedPtr> gone;
  const MutexLock lock(mutex_);
  for (auto at = retired_.begin(); at != retired_.end();) {
    const Served& served = **at;
    const bool home = served.pool == nullptr || served.pool->free() == served.pool->size();
    // A worker or the queue may have it still.
    if (home && at->use_count() == 1) {
      gone.push_back(std::move(*at));
      at = retired_.erase(at);
    } else {
      ++at;
    }
  }
  if (!pressure) return;
  for (const auto& [key, served] : streams_) {
    const MutexLock ready(ready_mutex_);
    if (!served->working && !served->request.has_value() && now - served->last_ns > kIdleNs) {
      served->stream->close(unavailable("other targets wait for the room of this stream"));
    }
  }
}

bool MergeSourceImpl::under_pressure() const {
  const int64_t refused = refused_ns_;
  return refused != 0 && exchange_.clock().monotonic_ns() - refused < kPressureNs;
}

void MergeSourceImpl::wake(const ServedPtr& served) {
  {
    const MutexLock lock(ready_mutex_);
    served->again = true;
    if (served->scheduled) return;
    served->scheduled = true;
    ready_.push_back(served);
  }
  ready_changed_.notify_one();
}

void MergeSourceImpl::run_worker() {
  for (;;) {
    ServedPtr served;
    {
      MutexLock lock(ready_mutex_);
      ready_changed_.wait(
          lock, [this]() SLUICE_REQUIRES(ready_mutex_) { return stopping_ || !ready_.empty(); });
      if (stopping_) return;
      served = std::move(ready_.front());
      ready_.pop_front();
      served->again = false;
    }
    const Step done = step(*served);
    bool queued = false;
    {
      const MutexLock lock(ready_mutex_);
      served->scheduled = queued = done == Step::kMore || served->again;
      if (queued) ready_.push_back(std::move(served));
    }
    if (queued) ready_changed_.notify_one();
  }
}

// One message of what the stream asked for.
MergeSourceImpl::Step MergeSourceImpl::step(Served& served) {
  std::optional<Request> request;
  {
    const MutexLock lock(ready_mutex_);
    request.swap(served.request);
    served.working = request.has_value() || served.work != nullptr;
  }
  if (served.stream->closed()) {
    served.work.reset();
    return Step::kWait;
  }
  Stage::Work timed(options_.scan);
  if (request.has_value()) {
    served.work = std::make_unique<Work>();
    served.work->request = *std::move(request);
  }
  if (served.work == nullptr) return Step::kWait;
  BlockBuffer buffer = served.pool->try_take();
  if (!buffer) return Step::kWait;  // its return wakes
  Work& work = *served.work;
  absl::StatusOr<Envelope> envelope = pack(work, buffer);
  if (!envelope.ok()) {
    // Anything but a list that does not fit the copy is the cut's fault.
    if (!absl::IsInvalidArgument(envelope.status())) fail(envelope.status());
    served.stream->close(envelope.status());
    served.work.reset();
    return Step::kWait;
  }
  envelope->attempt = options_.attempt;
  envelope->sequence = work.request.number + work.next_answer++;
  const uint32_t bytes = Envelope::seal(*envelope, buffer);
  timed.add(bytes);
  const bool last = work.done();
  const bool leave = last && work.request.last_of_slots && under_pressure();
  absl::Status status = send(*served.stream, buffer, bytes);
  if (!status.ok() || leave) served.stream->close(status);
  if (!status.ok() || last) served.work.reset();
  {
    const MutexLock lock(mutex_);
    counters_.wire_bytes += bytes;
  }
  if (options_.on_bytes) {
    const MutexLock lock(callback_mutex_);
    options_.on_bytes(bytes);
  }
  const MutexLock lock(ready_mutex_);
  served.working = served.work != nullptr;
  served.last_ns = exchange_.clock().monotonic_ns();
  return served.working ? Step::kMore : Step::kWait;
}

// There is room on the stream: no more than its buffers are ever on their way.
absl::Status MergeSourceImpl::send(Stream& stream, const BlockBuffer& message, uint32_t bytes) {
  const Deadline deadline(exchange_.clock(), kSendMs);
  for (;;) {
    absl::Status status = stream.send(message.share(), bytes, kTickMs);
    if (!absl::IsDeadlineExceeded(status) || stream.closed() || stopping_) return status;
    if (deadline.left_ms() <= 0) return status;
  }
}

absl::StatusOr<Envelope> MergeSourceImpl::pack(Work& work, BlockBuffer& buffer) {
  if (work.request.kind == MessageKind::kSummaryRequest) return pack_summaries(work, buffer);
  if (!work.packing) {
    work.packer.begin(source_->scan(work.slot()), work.slot(), options_.slot_bits,
                      std::move(work.request.wanted[work.at]));
    work.packing = true;
  }
  SLUICE_ASSIGN_OR_RETURN(const SlotPacker::Packed packed, work.packer.pack(buffer));
  Envelope envelope;
  envelope.kind = MessageKind::kBlock;
  envelope.slot = work.slot();
  envelope.payload_bytes = packed.bytes;
  if (packed.last) {
    envelope.flags = Envelope::kEndOfSlot;
    work.packing = false;
    ++work.at;
  }
  const MutexLock lock(mutex_);
  counters_.records += packed.records;
  counters_.record_bytes += packed.record_bytes;
  return envelope;
}

// As many slots as a message has room for.
absl::StatusOr<Envelope> MergeSourceImpl::pack_summaries(Work& work, BlockBuffer& buffer) {
  Envelope envelope;
  envelope.kind = MessageKind::kSummaries;
  envelope.slot = work.request.slots.front();
  const std::span<uint8_t> room = buffer.span().first(kMaxBlockBytes);
  while (!work.done()) {
    const std::span<uint8_t> left = room.subspan(envelope.payload_bytes);
    if (left.size() < MergeSection::kHeaderBytes + SummaryPageBuilder::kMaxEntryBytes) break;
    SLUICE_ASSIGN_OR_RETURN(const uint32_t bytes, pack_section(work, left));
    envelope.payload_bytes += bytes;
  }
  if (work.done()) envelope.flags = Envelope::kEndOfSlot;
  return envelope;
}

absl::StatusOr<uint32_t> MergeSourceImpl::pack_section(Work& work, std::span<uint8_t> room) {
  const uint32_t slot = work.slot();
  if (work.scan == nullptr) work.scan = source_->scan(slot);
  work.page.begin(room.subspan(MergeSection::kHeaderBytes));
  uint64_t packed = 0;
  bool last = false;
  for (;;) {
    if (!work.have_item) {
      SLUICE_ASSIGN_OR_RETURN(work.have_item, work.scan->next(&work.item));
      last = !work.have_item;
      if (last) break;
      if (work.request.passed > 0) {
        --work.request.passed;
        work.have_item = false;
        continue;
      }
    }
    if (!work.page.add(work.item.key, work.item.summary)) break;
    work.have_item = false;
    ++packed;
  }
  if (last) {
    work.scan.reset();
    ++work.at;
  }
  MergeSection::write_header(room.data(), slot, last, work.page.bytes());
  const MutexLock lock(mutex_);
  counters_.summaries += packed;
  return static_cast<uint32_t>(MergeSection::kHeaderBytes) + work.page.bytes();
}

void MergeSourceImpl::fail(const absl::Status& status) {
  {
    const MutexLock lock(mutex_);
    if (!failure_.ok()) return;
    failure_ = with_context(status, "reading the cut");
  }
  durable_changed_.notify_all();
}

absl::Status MergeSourceImpl::wait_durable(int64_t timeout_ms) {
  MutexLock lock(mutex_);
  if (!durable_changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                                 [this]() SLUICE_REQUIRES(mutex_) {
                                   return !failure_.ok() || durable_.size() == slot_count_;
                                 })) {
    return deadline_exceeded("{} of {} divergent slots are durable at their targets",
                             durable_.size(), slot_count_);
  }
  return failure_;
}

MergeSource::Counters MergeSourceImpl::counters() const {
  const MutexLock lock(mutex_);
  return counters_;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MergeSource>> MergeSource::start(Exchange& exchange,
                                                                std::shared_ptr<SlotSource> source,
                                                                const MergeSourceOptions& options) {
  auto merges = std::make_unique<MergeSourceImpl>(exchange, std::move(source), options);
  SLUICE_RETURN_IF_ERROR(merges->start());
  return merges;
}

}  // namespace sluice

#include "control/client/import_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "base/backoff.h"
#include "base/checksum.h"
#include "base/defect.h"
#include "base/status.h"
#include "control/peers/rpc.h"
#include "dataplane/block/record_batch.h"
#include "dataplane/pipeline/record_writes.h"

namespace sluice {

namespace {
constexpr int kTries = 4;
// A request carries a batch of at most this, unless it is one record.
constexpr size_t kFullBytes = size_t{768} << 10;
constexpr size_t kOpenBytes = size_t{32} << 20;  // of all batches that are being filled
constexpr size_t kGrpcRecords = 512;
// Each occupies a thread of its node while it is in work, however small its records are.
constexpr size_t kBatchesInFlight = 32;
constexpr int64_t kStampMs = 5'000;
constexpr size_t kSendBuffers = 16;
constexpr int64_t kSendMs = 10'000;
constexpr int64_t kFirstPauseMs = 40;
constexpr int64_t kLongestPauseMs = 320;
}  // namespace

struct ImportWriterImpl::Batch {
  // What the caller wrote of one key: the last write is the one that is sent.
  struct Writes {
    uint64_t hash = 0;
    uint64_t count = 0;
    uint64_t bytes = 0;
    size_t at = 0;  // of the last one in `text`: key, then value
    uint32_t key_bytes = 0;
    uint32_t value_bytes = 0;
    bool tombstone = false;
  };
  RecordView view(const Writes& write) const {
    const std::string_view all(text);
    return {all.substr(write.at, write.key_bytes),
            all.substr(write.at + write.key_bytes, write.value_bytes),
            {},
            write.tombstone};
  }
  void place(const RecordView& record, Writes* write) {
    write->at = text.size();
    write->key_bytes = static_cast<uint32_t>(record.key.size());
    write->value_bytes = static_cast<uint32_t>(record.value.size());
    write->tombstone = record.tombstone;
    ++write->count;
    write->bytes += record.key.size() + record.value.size();
    text.append(record.key).append(record.value);
  }
  // By gRPC from now on.
  void make_request() {
    for (const Writes& each : writes) {
      const RecordView record = view(each);
      auto* item = request.add_items();
      item->set_key(record.key.data(), record.key.size());
      item->set_value(record.value.data(), record.value.size());
      item->set_tombstone(record.tombstone);
    }
  }
  std::string text;          // of the writes; those that were replaced are still in it
  v1::WriteRequest request;  // with the version; by gRPC: and the `writes`
  v1::WriteReply reply;
  v1::StampRequest stamp;
  std::unique_ptr<grpc::ClientContext> context;
  uint32_t group = 0;
  std::shared_ptr<const SlotPlacement> placement;
  bool bulk = false;  // is, or was, sent over the transport
  int64_t due_ns = 0;
  Backoff pauses{kFirstPauseMs, kLongestPauseMs};
  std::shared_ptr<PeerNode> node;
  std::vector<Writes> writes;
  size_t bytes = 0;                                  // of keys and values
  size_t packed = RecordBatchBuilder::kHeaderBytes;  // as a batch of records
  int tries = 0;
  size_t predecessors = 0;         // sent before, with a key of this one; one for each key
  std::vector<Batch*> successors;  // those that have this one as a predecessor
};

std::unique_ptr<ImportWriter> ClusterClientImpl::import() {
  return std::make_unique<ImportWriterImpl>(*this);
}

ImportWriterImpl::ImportWriterImpl(ClusterClientImpl& client)
    : client_(client), router_(client.directory()) {
  if (const absl::Status status = open_bulk(); !status.ok()) {
    spdlog::info("records go by gRPC: {}", message_of(status));
  }
}

absl::Status ImportWriterImpl::open_bulk() {
  const size_t members = client_.directory().snapshot()->members.size();
  SLUICE_ASSIGN_OR_RETURN(exchange_,
                          ClientExchange::open(client_.connection(), "import",
                                               ClientExchange::arena_bytes(members, kSendBuffers)));
  SLUICE_ASSIGN_OR_RETURN(buffers_,
                          exchange_->exchange().arena().make_pool("import", kSendBuffers));
  RequestClient::Options options;
  options.kind = StreamKind::kWrite;
  options.cluster = client_.cluster().uuid;
  options.job = "import";
  options.receive_blocks = ClientExchange::kReceiveBlocks;
  requests_ = std::make_unique<RequestClient>(exchange_->exchange(), options);
  return absl::OkStatus();
}

ImportWriterImpl::~ImportWriterImpl() { finish(); }

absl::Status ImportWriterImpl::put(std::string_view key, std::string_view value) {
  return add(key, value, false);
}

absl::Status ImportWriterImpl::erase(std::string_view key) { return add(key, {}, true); }

absl::Status ImportWriterImpl::add(std::string_view key, std::string_view value, bool tombstone) {
  if (key.empty() || key.size() > kMaxKeyBytes) {
    return invalid_argument("key of {} bytes: 1 to {}", key.size(), kMaxKeyBytes);
  }
  if (value.size() > kMaxValueBytes) {
    return invalid_argument("value of {} bytes: at most {}", value.size(), kMaxValueBytes);
  }
  if (has_ready_.load(std::memory_order_relaxed)) pump(/*wait=*/false);
  const uint64_t hash = xxh3_64(key);
  Batch* batch = nullptr;
  const RecordView record{key, value, {}, tombstone};
  if (const auto place = open_keys_.find(hash); place != open_keys_.end()) {
    batch = place->second.batch;
    Batch::Writes& writes = batch->writes[place->second.item];
    if (const RecordView before = batch->view(writes); before.key == key) {
      batch->bytes += value.size() - before.value.size();
      const size_t grown =
          RecordBatchBuilder::bytes_of(record) - RecordBatchBuilder::bytes_of(before);
      batch->packed += grown;
      open_bytes_ += grown;
      batch->place(record, &writes);
      if (batch->packed >= kFullBytes || batch->text.size() >= 2 * kFullBytes) close(batch);
      return absl::OkStatus();
    }
    close(batch);  // another key of the same hash: the order goes by hashes
  }
  const uint32_t group = group_of(key);
  const size_t packed = RecordBatchBuilder::bytes_of(record);
  if (const auto open = open_.find(group);
      open != open_.end() && open->second->packed + packed > kFullBytes) {
    close(open->second.get());
  }
  auto& open = open_[group];
  if (open == nullptr) {
    open = std::make_unique<Batch>();
    open->group = group;
    open->placement = placement_;
  }
  batch = open.get();
  open_keys_[hash] = {batch, batch->writes.size()};
  Batch::Writes& writes = batch->writes.emplace_back();
  writes.hash = hash;
  batch->place(record, &writes);
  batch->bytes += key.size() + value.size();
  batch->packed += packed;
  open_bytes_ += packed;
  const size_t records = requests_ == nullptr ? kGrpcRecords : kMaxBatchRecords;
  if (batch->packed >= kFullBytes || batch->writes.size() >= records) close(batch);
  if (open_bytes_ > kOpenBytes) close_largest();
  return absl::OkStatus();
}

void ImportWriterImpl::close_largest() {
  const auto largest = std::max_element(
      open_.begin(), open_.end(),
      [](const auto& a, const auto& b) { return a.second->packed < b.second->packed; });
  close(largest->second.get());
}

uint32_t ImportWriterImpl::group_of(std::string_view key) {
  auto placement = router_.placement();
  if (placement.ok() && *placement != placement_) {
    close_all();  // their groups are the former table's
    placement_ = *std::move(placement);
  }
  if (placement_ == nullptr) return 0;
  return placement_->group_of[slot_of(key, placement_->slot_bits)];
}

void ImportWriterImpl::close(Batch* batch) {
  const auto open = open_.find(batch->group);
  std::unique_ptr<Batch> full = std::move(open->second);
  open_.erase(open);
  open_bytes_ -= full->packed - RecordBatchBuilder::kHeaderBytes;
  for (const Batch::Writes& writes : full->writes) open_keys_.erase(writes.hash);
  admit(std::move(full));
}

void ImportWriterImpl::close_all() {
  while (!open_.empty()) close(open_.begin()->second.get());
}

void ImportWriterImpl::admit(std::unique_ptr<Batch> batch) {
  const auto has_room = [&] {
    const MutexLock lock(mutex_);
    const size_t limit = client_.options().import_bytes_in_flight;
    return (bytes_in_flight_ == 0 || bytes_in_flight_ + batch->bytes <= limit) &&
           batches_in_flight_ < kBatchesInFlight;
  };
  while (!has_room()) pump(/*wait=*/true);
  {
    const MutexLock lock(mutex_);
    bytes_in_flight_ += batch->bytes;
    ++batches_in_flight_;
    if (enqueue(batch)) ready_.push_back(std::move(batch));
  }
  pump(/*wait=*/false);
}

void ImportWriterImpl::pump(bool wait) {
  for (bool sent = false;;) {
    std::unique_ptr<Batch> next;
    {
      MutexLock lock(mutex_);
      const auto now = client_.clock().monotonic_ns();
      const auto due = std::find_if(ready_.begin(), ready_.end(),
                                    [&](const auto& batch) { return batch->due_ns <= now; });
      if (due != ready_.end()) {
        next = std::move(*due);
        ready_.erase(due);
        has_ready_ = !ready_.empty();
      } else if (sent || !wait || batches_in_flight_ == 0) {
        return;
      } else if (ready_.empty()) {
        changed_.wait(lock);
        return;
      } else {
        const auto earliest =
            std::min_element(ready_.begin(), ready_.end(),
                             [](const auto& a, const auto& b) { return a->due_ns < b->due_ns; });
        changed_.wait_for(lock, std::chrono::nanoseconds((*earliest)->due_ns - now));
        continue;
      }
    }
    dispatch(std::move(next));
    sent = true;
  }
}

bool ImportWriterImpl::enqueue(std::unique_ptr<Batch>& batch) {
  for (const Batch::Writes& writes : batch->writes) {
    Batch*& last = last_[writes.hash];
    if (last != nullptr && !defect(Defect::kImportForgetsOrder)) {
      last->successors.push_back(batch.get());
      ++batch->predecessors;
    }
    last = batch.get();
  }
  if (batch->predecessors == 0) return true;
  Batch* const waits = batch.get();
  waiting_[waits] = std::move(batch);
  return false;
}

void ImportWriterImpl::retire(Batch& batch) {
  for (const Batch::Writes& writes : batch.writes) {
    const auto last = last_.find(writes.hash);
    if (last != last_.end() && last->second == &batch) last_.erase(last);
  }
  for (Batch* successor : batch.successors) {
    if (--successor->predecessors > 0) continue;
    const auto waits = waiting_.find(successor);
    ready_.push_back(std::move(waits->second));
    waiting_.erase(waits);
  }
  bytes_in_flight_ -= batch.bytes;
  --batches_in_flight_;
}

void ImportWriterImpl::dispatch(std::unique_ptr<Batch> batch) {
  if (batch->request.has_version() && batch->node != nullptr) {
    if (write_bulk(batch)) return;
    return write(std::move(batch));
  }
  std::string first;
  if (batch->placement != nullptr) {
    // The replicas of a group share the work of coordinating.
    const auto& replicas = batch->placement->groups[batch->group];
    first = replicas[sent_++ % replicas.size()].node;
  }
  const auto names = client_.candidates(first);
  const auto peer =
      names.empty() ? absl::StatusOr<std::shared_ptr<PeerNode>>(unavailable("no node is known"))
                    : client_.peers().find(names[static_cast<size_t>(batch->tries) % names.size()]);
  ++batch->tries;
  if (!peer.ok()) return answered(std::move(batch), to_grpc(peer.status()), /*written=*/false);
  batch->node = *peer;
  if (batch->request.has_version()) return write(std::move(batch));
  take_version(std::move(batch));
}

// Slots of one group have the same replicas.
void ImportWriterImpl::add_slots(Batch& batch) {
  const uint32_t bits = client_.cluster().slot_bits;
  std::set<uint32_t> slots;
  for (const Batch::Writes& writes : batch.writes) {
    slots.insert(slot_of(batch.view(writes).key, bits));
    if (batch.placement != nullptr) break;
  }
  batch.stamp.mutable_slots()->Assign(slots.begin(), slots.end());
}

// The version comes first. The batch is sent from the writer's thread when it has one.
void ImportWriterImpl::take_version(std::unique_ptr<Batch> batch) {
  batch->context = std::make_unique<grpc::ClientContext>();
  set_timeout(*batch->context, kStampMs);
  batch->stamp.set_after(client_.floor());
  add_slots(*batch);
  Batch* raw = batch.release();
  raw->node->serving().async()->Stamp(
      raw->context.get(), &raw->stamp, raw->request.mutable_version(),
      [this, raw](const grpc::Status& status) {
        raw->node->note(status);
        std::unique_ptr<Batch> stamped(raw);
        if (!status.ok()) {
          stamped->request.clear_version();
          return answered(std::move(stamped), status, /*written=*/false);
        }
        const MutexLock lock(mutex_);
        client_.keep_above(stamped->request.version().stamp());
        ready_.push_front(std::move(stamped));
        tell();
      });
}

void ImportWriterImpl::write(std::unique_ptr<Batch> batch) {
  if (batch->request.items_size() == 0) batch->make_request();
  batch->context = std::make_unique<grpc::ClientContext>();
  batch->reply.Clear();
  set_timeout(*batch->context, client_.options().request_timeout_ms);
  Batch* raw = batch.release();
  raw->node->serving().async()->Write(raw->context.get(), &raw->request, &raw->reply,
                                      [this, raw](const grpc::Status& status) {
                                        raw->node->note(status);
                                        answered(std::unique_ptr<Batch>(raw), status,
                                                 /*written=*/true);
                                      });
}

// Over the transport: the first sending of a whole batch to one of its replicas. False, with the
// batch untouched, where that is not possible.
bool ImportWriterImpl::write_bulk(std::unique_ptr<Batch>& batch) {
  if (requests_ == nullptr || batch->bulk || batch->placement == nullptr ||
      batch->request.items_size() > 0 || batch->packed > kMaxBlockBytes) {
    return false;
  }
  const auto& replicas = batch->placement->groups[batch->group];
  const auto to = std::find_if(replicas.begin(), replicas.end(), [&](const auto& replica) {
    return replica.node == batch->node->name();
  });
  if (to == replicas.end()) return false;
  BlockBuffer buffer = buffers_->take(kSendMs);
  if (!buffer) return false;
  batch->bulk = true;
  // In the order that they are stored in: each replica finds the next one's place near the last.
  std::sort(
      batch->writes.begin(), batch->writes.end(),
      [&, mask = (uint64_t{1} << batch->placement->slot_bits) - 1](const auto& a, const auto& b) {
        const uint64_t slots[2] = {a.hash & mask, b.hash & mask};
        if (slots[0] != slots[1]) return slots[0] < slots[1];
        return batch->view(a).key < batch->view(b).key;
      });
  RecordBatchBuilder builder;
  builder.begin(buffer.span());
  for (const Batch::Writes& writes : batch->writes) builder.add(batch->view(writes));
  Envelope envelope;
  envelope.kind = MessageKind::kRecordWrite;
  envelope.payload_bytes = builder.finish();
  envelope.attempt = batch->placement->epoch;
  envelope.sequence = requests_->next_sequence();
  envelope.version_override = batch->request.version().stamp();
  envelope.version_node = batch->request.version().node();
  const uint32_t bytes = Envelope::seal(envelope, buffer);
  Batch* raw = batch.release();
  requests_->send(*to, std::move(buffer), bytes, envelope.sequence, kSendMs,
                  client_.options().request_timeout_ms,
                  [this, raw](const RequestClient::Outcome& outcome) {
                    bulk_answered(std::unique_ptr<Batch>(raw), outcome);
                  });
  return true;
}

// What is undecided goes on by gRPC, with the same version.
void ImportWriterImpl::bulk_answered(std::unique_ptr<Batch> batch,
                                     const RequestClient::Outcome& outcome) {
  const absl::StatusOr<RecordWriteReply> reply = RecordWriteReply::of(outcome);
  const bool acknowledged = reply.ok() && reply->refused.ok() && reply->as_of != 0;
  if (acknowledged) client_.keep_above(reply->as_of);
  const MutexLock lock(mutex_);
  if (!acknowledged) {
    ready_.push_front(std::move(batch));
    return tell();
  }
  for (const Batch::Writes& writes : batch->writes) {
    totals_.records += writes.count;
    totals_.bytes += writes.bytes;
  }
  end(std::move(batch));
}

void ImportWriterImpl::end(std::unique_ptr<Batch> batch) {
  retire(*batch);
  // Goes before the lock does: its node may be the last holder of a channel, which must not
  // outlive the client.
  batch.reset();
  tell();
}

void ImportWriterImpl::tell() {
  has_ready_ = !ready_.empty();
  changed_.notify_all();
}

void ImportWriterImpl::answered(std::unique_ptr<Batch> answered_batch, const grpc::Status& status,
                                bool written) {
  const MutexLock lock(mutex_);
  std::unique_ptr<Batch> batch = std::move(answered_batch);
  const bool complete =
      written && status.ok() && batch->reply.results_size() == batch->request.items_size();
  if (!complete && batch->tries < kTries) {
    batch->node = nullptr;
    batch->due_ns = client_.clock().monotonic_ns() + batch->pauses.next_ns();
    ready_.push_back(std::move(batch));
    tell();
    return;
  }
  if (!complete) {
    if (batch->request.items_size() == 0) batch->make_request();
    batch->reply.Clear();
    for (int i = 0; i < batch->request.items_size(); ++i) {
      auto* result = batch->reply.add_results();
      result->set_code(static_cast<uint32_t>(grpc::StatusCode::UNAVAILABLE));
      result->set_reason(status.ok() ? "the node answered another number of writes"
                                     : std::string(message_of(from_grpc(status))));
    }
  }
  take_results(*batch);
  end(std::move(batch));
}

void ImportWriterImpl::take_results(Batch& batch) {
  client_.keep_above(batch.reply.as_of());
  for (int i = 0; i < batch.request.items_size(); ++i) {
    const v1::WriteReply::Result& result = batch.reply.results(i);
    const Batch::Writes& writes = batch.writes[static_cast<size_t>(i)];
    if (result.code() == 0) {
      totals_.records += writes.count;
      totals_.bytes += writes.bytes;
      continue;
    }
    totals_.failed += writes.count;
    if (totals_.failures.size() < WriteTotals::kKeptFailures) {
      totals_.failures.push_back({batch.request.items(i).key(), result.reason()});
    }
  }
}

WriteTotals ImportWriterImpl::finish() {
  close_all();
  const auto in_flight = [this] {
    const MutexLock lock(mutex_);
    return batches_in_flight_;
  };
  while (in_flight() > 0) pump(/*wait=*/true);
  const MutexLock lock(mutex_);
  return totals_;
}

}  // namespace sluice

#include "control/client/import_writer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/checksum.h"
#include "base/status.h"
#include "control/client/rpc.h"

namespace sluice {

namespace {
constexpr int kTries = 4;
constexpr size_t kImportBatchRecords = 512;
// Each occupies a thread of its node while it is in work, however small its records are.
constexpr size_t kBatchesInFlight = 32;
constexpr int64_t kStampMs = 5'000;
}  // namespace

struct ImportWriterImpl::Batch {
  // What the caller wrote of one key: the last write is the one that is sent.
  struct Writes {
    uint64_t hash = 0;
    uint64_t count = 0;
    uint64_t bytes = 0;
  };
  v1::WriteRequest request;
  v1::WriteReply reply;
  v1::StampRequest after;
  uint64_t above = 0;  // its version is to be
  std::unique_ptr<grpc::ClientContext> context;
  std::string first;
  std::shared_ptr<PeerNode> node;
  std::vector<Writes> writes;
  std::vector<size_t> places;  // of the request's items in `writes`
  size_t bytes = 0;            // of the request's items
  int tries = 0;               // with the version that it has
  int restamps = 0;
  size_t predecessors = 0;         // sent before, with a key of this one; one for each key
  std::vector<Batch*> successors;  // those that have this one as a predecessor
};

std::unique_ptr<ImportWriter> ClusterClientImpl::import() {
  return std::make_unique<ImportWriterImpl>(*this);
}

ImportWriterImpl::ImportWriterImpl(ClusterClientImpl& client) : client_(client) {}

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
  const uint64_t hash = xxh3_64(key);
  Batch* batch = nullptr;
  if (const auto place = open_keys_.find(hash); place != open_keys_.end()) {
    batch = place->second.batch;
    auto* item = batch->request.mutable_items(place->second.item);
    if (item->key() == key) {
      batch->bytes += value.size();
      batch->bytes -= item->value().size();
      item->set_value(value.data(), value.size());
      item->set_tombstone(tombstone);
      auto& writes = batch->writes[static_cast<size_t>(place->second.item)];
      ++writes.count;
      writes.bytes += key.size() + value.size();
      if (batch->bytes >= kBatchBytes) close(batch);
      return absl::OkStatus();
    }
    close(batch);  // another key of the same hash: the order goes by hashes
  }
  const std::string first = client_.primary_of(key);
  auto& open = open_[first];
  if (open == nullptr) {
    open = std::make_unique<Batch>();
    open->first = first;
  }
  batch = open.get();
  open_keys_[hash] = {batch, batch->request.items_size()};
  auto* item = batch->request.add_items();
  item->set_key(key.data(), key.size());
  item->set_value(value.data(), value.size());
  item->set_tombstone(tombstone);
  batch->places.push_back(batch->writes.size());
  batch->writes.push_back({hash, 1, key.size() + value.size()});
  batch->bytes += key.size() + value.size();
  if (batch->bytes >= kBatchBytes || batch->writes.size() >= kImportBatchRecords) close(batch);
  return absl::OkStatus();
}

void ImportWriterImpl::close(Batch* batch) {
  const auto open = open_.find(batch->first);
  std::unique_ptr<Batch> full = std::move(open->second);
  open_.erase(open);
  for (const Batch::Writes& writes : full->writes) open_keys_.erase(writes.hash);
  send(std::move(full));
}

void ImportWriterImpl::send(std::unique_ptr<Batch> batch) {
  bool ready = false;
  {
    std::unique_lock lock(mutex_);
    const size_t limit = client_.options().import_bytes_in_flight;
    while ((bytes_in_flight_ > 0 && bytes_in_flight_ + batch->bytes > limit) ||
           batches_in_flight_ >= kBatchesInFlight) {
      if (again_.empty()) changed_.wait(lock);
      lock.unlock();
      retry_waiting();
      lock.lock();
    }
    bytes_in_flight_ += batch->bytes;
    ++batches_in_flight_;
    ready = enqueue(batch);
  }
  retry_waiting();
  if (ready) send_once(std::move(batch));
}

bool ImportWriterImpl::enqueue(std::unique_ptr<Batch>& batch) {
  for (const Batch::Writes& writes : batch->writes) {
    Batch*& last = last_[writes.hash];
    if (last != nullptr) {
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

std::vector<std::unique_ptr<ImportWriterImpl::Batch>> ImportWriterImpl::retire(Batch& batch) {
  std::vector<std::unique_ptr<Batch>> ready;
  for (const Batch::Writes& writes : batch.writes) {
    const auto last = last_.find(writes.hash);
    if (last != last_.end() && last->second == &batch) last_.erase(last);
  }
  for (Batch* successor : batch.successors) {
    if (--successor->predecessors > 0) continue;
    const auto waits = waiting_.find(successor);
    ready.push_back(std::move(waits->second));
    waiting_.erase(waits);
  }
  bytes_in_flight_ -= batch.bytes;
  --batches_in_flight_;
  return ready;
}

// Nothing of the writer may be touched after a call was begun: with its answer the writer may go.
void ImportWriterImpl::send_once(std::unique_ptr<Batch> batch) {
  const auto names = client_.candidates(batch->first);
  const auto peer =
      names.empty() ? absl::StatusOr<std::shared_ptr<PeerNode>>(unavailable("no node is known"))
                    : client_.peers().find(names[static_cast<size_t>(batch->tries) % names.size()]);
  ++batch->tries;
  if (!peer.ok()) return answered(std::move(batch), to_grpc(peer.status()), /*written=*/false);
  batch->node = *peer;
  if (batch->request.has_version()) return write(std::move(batch));
  batch->context = std::make_unique<grpc::ClientContext>();
  set_timeout(*batch->context, kStampMs);
  batch->after.set_after(std::max(client_.acknowledged_stamp(), batch->above));
  Batch* raw = batch.release();
  raw->node->serving().async()->Stamp(raw->context.get(), &raw->after,
                                      raw->request.mutable_version(),
                                      [this, raw](const grpc::Status& status) {
                                        raw->node->note(status);
                                        std::unique_ptr<Batch> stamped(raw);
                                        if (status.ok()) return write(std::move(stamped));
                                        stamped->request.clear_version();
                                        answered(std::move(stamped), status, /*written=*/false);
                                      });
}

void ImportWriterImpl::write(std::unique_ptr<Batch> batch) {
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

void ImportWriterImpl::answered(std::unique_ptr<Batch> answered_batch, const grpc::Status& status,
                                bool written) {
  std::vector<std::unique_ptr<Batch>> ready;
  {
    const std::lock_guard lock(mutex_);
    // Goes before the lock does: its node may be the last holder of a channel, which must not
    // outlive the client.
    std::unique_ptr<Batch> batch = std::move(answered_batch);
    const bool complete =
        written && status.ok() && batch->reply.results_size() == batch->request.items_size();
    if (written && !status.ok() && may_have_been_applied(status)) batch->request.set_in_doubt(true);
    if (!complete && batch->tries < kTries) {
      again_.push_back(std::move(batch));
    } else {
      if (!complete) {
        batch->reply.Clear();
        for (int i = 0; i < batch->request.items_size(); ++i) {
          auto* result = batch->reply.add_results();
          result->set_code(static_cast<uint32_t>(grpc::StatusCode::UNAVAILABLE));
          result->set_reason(std::string(message_of(from_grpc(status))));
        }
      }
      take_results(*batch);
      if (batch->request.items_size() > 0) {
        ready.push_back(std::move(batch));
      } else {
        ready = retire(*batch);
      }
    }
    // Under the lock: the writer may be gone as soon as it sees that nothing is in flight.
    changed_.notify_all();
  }
  for (auto& next : ready) send_once(std::move(next));
}

// Leaves what is to be sent again, with another version.
void ImportWriterImpl::take_results(Batch& batch) {
  client_.acknowledged(batch.reply.stamp());
  const bool may_restamp = batch.restamps++ < ClusterClientImpl::kMaxRestamps;
  v1::WriteRequest rest;
  std::vector<size_t> places;
  for (int i = 0; i < batch.request.items_size(); ++i) {
    auto& item = *batch.request.mutable_items(i);
    auto& result = *batch.reply.mutable_results(i);
    const size_t place = batch.places[static_cast<size_t>(i)];
    const Batch::Writes& writes = batch.writes[place];
    if (result.code() == 0) {
      totals_.records += writes.count;
      totals_.bytes += writes.bytes;
    } else if (result.has_restamp() && may_restamp) {
      batch.above = std::max(batch.above, result.restamp().above());
      item.mutable_restamp()->Swap(result.mutable_restamp());
      rest.add_items()->Swap(&item);
      places.push_back(place);
    } else {
      totals_.failed += writes.count;
      if (totals_.failures.size() < WriteTotals::kKeptFailures) {
        totals_.failures.push_back({item.key(), result.reason()});
      }
    }
  }
  batch.request = std::move(rest);
  batch.places = std::move(places);
  batch.tries = 0;
}

void ImportWriterImpl::retry_waiting() {
  std::vector<std::unique_ptr<Batch>> again;
  {
    const std::lock_guard lock(mutex_);
    again = std::move(again_);
    again_.clear();
  }
  for (auto& batch : again) {
    client_.clock().sleep_ns(int64_t{20'000'000} << batch->tries);
    send_once(std::move(batch));
  }
}

WriteTotals ImportWriterImpl::finish() {
  while (!open_.empty()) close(open_.begin()->second.get());
  std::unique_lock lock(mutex_);
  while (batches_in_flight_ > 0) {
    if (again_.empty()) changed_.wait(lock);
    lock.unlock();
    retry_waiting();
    lock.lock();
  }
  return totals_;
}

}  // namespace sluice

#include "control/client/import_writer.h"

#include <chrono>
#include <utility>

#include "base/status.h"
#include "control/client/rpc.h"

namespace sluice {

namespace {
constexpr int kTries = 4;
constexpr size_t kImportBatchRecords = 512;
// Each occupies a thread of its node while it is in work, however small its records are.
constexpr size_t kBatchesInFlight = 32;
}  // namespace

struct ImportWriterImpl::Batch {
  v1::WriteRequest request;
  v1::WriteReply reply;
  std::unique_ptr<grpc::ClientContext> context;
  std::string first;
  std::shared_ptr<PeerNode> node;
  size_t bytes = 0;
  int tries = 0;
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
  const std::string first = client_.primary_of(key);
  auto& batch = open_[first];
  if (batch == nullptr) {
    batch = std::make_unique<Batch>();
    batch->first = first;
  }
  auto* item = batch->request.add_items();
  item->set_key(key.data(), key.size());
  item->set_value(value.data(), value.size());
  item->set_tombstone(tombstone);
  batch->bytes += key.size() + value.size();
  const bool full = batch->bytes >= kBatchBytes ||
                    static_cast<size_t>(batch->request.items_size()) >= kImportBatchRecords;
  if (full) send(std::move(batch));
  return absl::OkStatus();
}

void ImportWriterImpl::send(std::unique_ptr<Batch> batch) {
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
  }
  retry_waiting();
  send_once(std::move(batch));
}

void ImportWriterImpl::send_once(std::unique_ptr<Batch> batch) {
  const auto names = client_.candidates(batch->first);
  const auto peer =
      names.empty() ? absl::StatusOr<std::shared_ptr<PeerNode>>(unavailable("no node is known"))
                    : client_.peers().find(names[static_cast<size_t>(batch->tries) % names.size()]);
  ++batch->tries;
  if (!peer.ok()) {
    answered(std::move(batch), to_grpc(peer.status()));
    return;
  }
  batch->node = *peer;
  batch->context = std::make_unique<grpc::ClientContext>();
  batch->reply.Clear();
  set_timeout(*batch->context, client_.options().request_timeout_ms);
  Batch* raw = batch.release();
  raw->node->serving().async()->Write(raw->context.get(), &raw->request, &raw->reply,
                                      [this, raw](const grpc::Status& status) {
                                        raw->node->note(status);
                                        answered(std::unique_ptr<Batch>(raw), status);
                                      });
}

void ImportWriterImpl::answered(std::unique_ptr<Batch> answered_batch, const grpc::Status& status) {
  const std::lock_guard lock(mutex_);
  // Goes before the lock does: its node may be the last holder of a channel, which must not outlive
  // the client.
  std::unique_ptr<Batch> batch = std::move(answered_batch);
  const bool complete = status.ok() && batch->reply.results_size() == batch->request.items_size();
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
    bytes_in_flight_ -= batch->bytes;
    --batches_in_flight_;
  }
  // Under the lock: the writer may be gone as soon as it sees that nothing is in flight.
  changed_.notify_all();
}

void ImportWriterImpl::take_results(Batch& batch) {
  for (int i = 0; i < batch.request.items_size(); ++i) {
    const auto& item = batch.request.items(i);
    const auto& result = batch.reply.results(i);
    if (result.code() == 0) {
      ++totals_.records;
      totals_.bytes += item.key().size() + item.value().size();
      continue;
    }
    ++totals_.failed;
    if (totals_.failures.size() < WriteTotals::kKeptFailures) {
      totals_.failures.push_back({item.key(), result.reason()});
    }
  }
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
  for (auto& [first, batch] : open_) {
    if (batch != nullptr) send(std::move(batch));
  }
  open_.clear();
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

#include "control/cli/cluster_records.h"

#include "base/status.h"

namespace sluice {
namespace {

class ClusterClaim final : public RecordClaim {
 public:
  explicit ClusterClaim(std::unique_ptr<LeaseLock> lock) : lock_(std::move(lock)) {}
  absl::Status check() override { return lock_->wait_held(kWaitMs); }

 private:
  static constexpr int64_t kWaitMs = 30'000;
  const std::unique_ptr<LeaseLock> lock_;
};

}  // namespace

absl::Status ClusterSink::put(std::string_view key, std::string_view value) {
  const MutexLock lock(mutex_);
  return writer_->put(key, value);
}

absl::Status ClusterSink::erase(std::string_view key) {
  const MutexLock lock(mutex_);
  return writer_->erase(key);
}

SinkTotals ClusterSink::finish() {
  const MutexLock lock(mutex_);
  const WriteTotals written = writer_->finish();
  SinkTotals totals;
  totals.records = written.records;
  totals.bytes = written.bytes;
  for (const RecordFailure& failure : written.failures)
    totals.failures.add(failure.key, failure.reason);
  totals.failures.count = written.failed;
  return totals;
}

absl::Status ClusterStore::scan(std::string_view prefix, const Each& each) {
  return client_.export_records(prefix, each).status();
}

absl::Status ClusterStore::scan_heads(std::string_view prefix, uint32_t bytes, const Each& each) {
  return client_.export_heads(prefix, bytes, each).status();
}

absl::StatusOr<std::optional<std::string>> ClusterStore::get(std::string_view key) {
  auto value = client_.get(key);
  if (absl::IsNotFound(value.status())) return std::optional<std::string>();
  if (!value.ok()) return value.status();
  return std::optional(*std::move(value));
}

absl::StatusOr<std::unique_ptr<RecordClaim>> ClusterStore::claim(const std::string& name) {
  SLUICE_ASSIGN_OR_RETURN(auto lock,
                          LeaseLock::take(client_.block(), "claims/" + name, "a tree import"));
  return std::make_unique<ClusterClaim>(std::move(lock));
}

}  // namespace sluice

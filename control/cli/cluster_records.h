// A cluster as a store of records.
#ifndef SLUICE_CONTROL_CLI_CLUSTER_RECORDS_H_
#define SLUICE_CONTROL_CLI_CLUSTER_RECORDS_H_

#include <memory>
#include <string_view>

#include "base/mutex.h"
#include "control/client/cluster_client.h"
#include "control/cluster_block/lease_lock.h"
#include "tree/record_stream.h"

namespace sluice {

// The client must outlive it.
class ClusterSink final : public RecordSink {
 public:
  explicit ClusterSink(ClusterClient& client) : writer_(client.import()) {}
  absl::Status put(std::string_view key, std::string_view value) override;
  absl::Status erase(std::string_view key) override;
  SinkTotals finish() override;

 private:
  Mutex mutex_;  // the writer is confined to one thread at a time
  const std::unique_ptr<ImportWriter> writer_ SLUICE_PT_GUARDED_BY(mutex_);
};

class ClusterStore final : public RecordStore {
 public:
  explicit ClusterStore(ClusterClient& client) : client_(client) {}
  absl::Status scan(std::string_view prefix, const Each& each) override;
  absl::Status scan_heads(std::string_view prefix, uint32_t bytes, const Each& each) override;
  absl::StatusOr<std::optional<std::string>> get(std::string_view key) override;
  std::unique_ptr<RecordSink> writer() override { return std::make_unique<ClusterSink>(client_); }
  absl::StatusOr<uint64_t> count(std::string_view prefix) override { return client_.count(prefix); }
  absl::StatusOr<std::unique_ptr<RecordClaim>> claim(const std::string& name) override;
  int64_t claim_ms() const override { return LeaseLockOptions().lease_ms; }

 private:
  ClusterClient& client_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_CLUSTER_RECORDS_H_

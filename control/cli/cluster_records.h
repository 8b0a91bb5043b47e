// A cluster as sink and source of records.
#ifndef SLUICE_CONTROL_CLI_CLUSTER_RECORDS_H_
#define SLUICE_CONTROL_CLI_CLUSTER_RECORDS_H_

#include <memory>
#include <mutex>
#include <string_view>

#include "control/cli/record_stream.h"
#include "control/client/cluster_client.h"

namespace sluice {

// The client must outlive it.
class ClusterSink final : public RecordSink {
 public:
  explicit ClusterSink(ClusterClient& client) : writer_(client.import()) {}
  absl::Status put(std::string_view key, std::string_view value) override;
  SinkTotals finish() override;

 private:
  std::mutex mutex_;  // the writer is confined to one thread at a time
  std::unique_ptr<ImportWriter> writer_;
};

class ClusterSource final : public RecordSource {
 public:
  explicit ClusterSource(ClusterClient& client) : client_(client) {}
  absl::Status scan(std::string_view prefix, const Each& each) override;

 private:
  ClusterClient& client_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_CLUSTER_RECORDS_H_

#include "control/cli/cluster_records.h"

namespace sluice {

absl::Status ClusterSink::put(std::string_view key, std::string_view value) {
  std::lock_guard lock(mutex_);
  return writer_->put(key, value);
}

SinkTotals ClusterSink::finish() {
  std::lock_guard lock(mutex_);
  const WriteTotals written = writer_->finish();
  SinkTotals totals;
  totals.records = written.records;
  totals.bytes = written.bytes;
  for (const RecordFailure& failure : written.failures)
    totals.failures.add(failure.key, failure.reason);
  totals.failures.count = written.failed;
  return totals;
}

absl::Status ClusterSource::scan(std::string_view prefix, const Each& each) {
  return client_.export_records(prefix, each).status();
}

}  // namespace sluice

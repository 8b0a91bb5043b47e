// Many writes at once: groups records by the first replica of their slot and keeps several groups
// in flight.
#ifndef SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_
#define SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "control/client/cluster_client_impl.h"

namespace sluice {

class ImportWriterImpl final : public ImportWriter {
 public:
  explicit ImportWriterImpl(ClusterClientImpl& client);
  // Waits for what is in flight.
  ~ImportWriterImpl() override;

  absl::Status put(std::string_view key, std::string_view value) override;
  absl::Status erase(std::string_view key) override;
  WriteTotals finish() override;

 private:
  struct Batch;
  absl::Status add(std::string_view key, std::string_view value, bool tombstone);
  void send(std::unique_ptr<Batch> batch);
  void send_once(std::unique_ptr<Batch> batch);
  void answered(std::unique_ptr<Batch> batch, const grpc::Status& status);
  void take_results(Batch& batch);
  void retry_waiting();

  ClusterClientImpl& client_;
  std::map<std::string, std::unique_ptr<Batch>> open_;  // by first replica
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t bytes_in_flight_ = 0;
  size_t batches_in_flight_ = 0;
  std::vector<std::unique_ptr<Batch>>
      again_;  // failed for want of a node; sent from the writer's thread
  WriteTotals totals_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_

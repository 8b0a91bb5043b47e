// Many writes at once: groups records by the first replica of their slot and keeps several groups
// in flight.
//
// Writes of one key are applied in the caller's order: a later one replaces an earlier one in the
// group that is being filled, and a group waits until those sent before it that share a key with it
// have been answered for good, retries included. Groups that share no key do not wait for each
// other. A group is sent with a version, and repeated with the same one; those of it
// that meet something newer go on in the same group, with another version.
#ifndef SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_
#define SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

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
  void close(Batch* batch);
  void send(std::unique_ptr<Batch> batch);
  // True when it may go now; otherwise it is kept until those before it are done.
  bool enqueue(std::unique_ptr<Batch>& batch);
  void send_once(std::unique_ptr<Batch> batch);
  void write(std::unique_ptr<Batch> batch);
  void answered(std::unique_ptr<Batch> batch, const grpc::Status& status, bool written);
  // Returns those that waited for it alone.
  std::vector<std::unique_ptr<Batch>> retire(Batch& batch);
  void take_results(Batch& batch);
  void retry_waiting();

  struct Place {
    Batch* batch;
    int item;
  };
  ClusterClientImpl& client_;
  // Of the writer's thread: what is being filled.
  std::map<std::string, std::unique_ptr<Batch>> open_;  // by first replica
  std::unordered_map<uint64_t, Place> open_keys_;       // by the key's hash

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t bytes_in_flight_ = 0;  // of those that wait for others before them, too
  size_t batches_in_flight_ = 0;
  std::vector<std::unique_ptr<Batch>>
      again_;  // failed for want of a node; sent from the writer's thread
  std::unordered_map<uint64_t, Batch*> last_;  // by the key's hash: the last one sent that has it
  std::unordered_map<Batch*, std::unique_ptr<Batch>> waiting_;  // for others before them
  WriteTotals totals_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_

// Many writes at once: groups records by the replicas of their slots, sends each group as one data
// writing request over the transport, and keeps several in flight. What a request leaves undecided,
// records too large for one, and clusters whose driver does not work here go by gRPC.
//
// Writes of one key are applied in the caller's order: a later one replaces an earlier one in the
// group that is being filled, and a group waits until those sent before it that share a key with it
// have been answered for good, retries included. Groups that share no key do not wait for each
// other. A group is sent with a version, and repeated with the same one.
#ifndef SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_
#define SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "control/client/cluster_client_impl.h"
#include "control/peers/client_exchange.h"
#include "control/peers/directory_router.h"
#include "dataplane/pipeline/request_client.h"

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
  void close_all();
  void close_largest();
  absl::Status open_bulk();
  // Where the key's records go, as of placement_.
  uint32_t group_of(std::string_view key);

  // Of the writer's thread, which is the only one that sends.
  void admit(std::unique_ptr<Batch> batch);
  // Sends what is due; waits for something to be due when `wait`.
  void pump(bool wait);
  void dispatch(std::unique_ptr<Batch> batch);
  void take_version(std::unique_ptr<Batch> batch);
  void add_slots(Batch& batch);
  void write(std::unique_ptr<Batch> batch);
  bool write_bulk(std::unique_ptr<Batch>& batch);

  // Of any thread. Batches that are to be sent next go to ready_.
  bool enqueue(std::unique_ptr<Batch>& batch) SLUICE_REQUIRES(mutex_);
  void answered(std::unique_ptr<Batch> batch, const grpc::Status& status, bool written);
  void bulk_answered(std::unique_ptr<Batch> batch, const RequestClient::Outcome& outcome);
  void end(std::unique_ptr<Batch> batch) SLUICE_REQUIRES(mutex_);
  void retire(Batch& batch) SLUICE_REQUIRES(mutex_);
  void tell() SLUICE_REQUIRES(mutex_);
  void take_results(Batch& batch) SLUICE_REQUIRES(mutex_);

  struct Place {
    Batch* batch;
    size_t item;
  };
  ClusterClientImpl& client_;
  // Of the writer's thread: what is being filled.
  std::map<uint32_t, std::unique_ptr<Batch>> open_;  // by group
  std::unordered_map<uint64_t, Place> open_keys_;    // by the key's hash
  DirectoryRouter router_;
  std::shared_ptr<const SlotPlacement> placement_;  // null while there is no table
  size_t open_bytes_ = 0;                           // of the records in open_
  uint64_t sent_ = 0;                               // batches

  Mutex mutex_;
  Condition changed_;
  size_t bytes_in_flight_ SLUICE_GUARDED_BY(mutex_) =
      0;  // of those that wait for others before them, too
  size_t batches_in_flight_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::deque<std::unique_ptr<Batch>> ready_ SLUICE_GUARDED_BY(mutex_);  // to be sent
  std::atomic<bool> has_ready_{false};
  std::unordered_map<uint64_t, Batch*> last_
      SLUICE_GUARDED_BY(mutex_);  // by the key's hash: the last one sent that has it
  std::unordered_map<Batch*, std::unique_ptr<Batch>> waiting_
      SLUICE_GUARDED_BY(mutex_);  // for others before them
  WriteTotals totals_ SLUICE_GUARDED_BY(mutex_);

  // The transport, last: nothing of the above is touched once it is gone. Null: gRPC alone.
  std::unique_ptr<ClientExchange> exchange_;
  std::unique_ptr<BlockPool> buffers_;
  std::unique_ptr<RequestClient> requests_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_IMPORT_WRITER_H_

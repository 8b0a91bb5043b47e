// Tells a backup's coordinator how far this node is: changes of state at once, numbers a few times
// a second, less often in large clusters. The coordinator stores it; what it could not be told is
// told again, as it is by then. Thread-safe.
#ifndef SLUICE_CONTROL_BACKUP_PROGRESS_REPORT_H_
#define SLUICE_CONTROL_BACKUP_PROGRESS_REPORT_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "control/backup/backup_store.h"
#include "control/peers/node_context.h"

namespace sluice {

// Of a node, to all that it talks with.
struct SentBytes {
  uint64_t all = 0;
  uint64_t local = 0;  // of these: to itself
};

class ProgressReport {
 public:
  // What an earlier life or attempt of this node had sent and counted is gone on from. `nodes`:
  // that report to the same coordinator. `stages` is asked at each report.
  ProgressReport(const NodeContext& context, const BackupHead& head, size_t nodes,
                 std::function<std::vector<StageReport>()> stages);
  // Tells what was not told yet, once.
  ~ProgressReport();
  ProgressReport(const ProgressReport&) = delete;
  ProgressReport& operator=(const ProgressReport&) = delete;

  // Changes the document; it is told soon.
  void change(const std::function<void(NodeProgress&)>& change);
  // What was counted before this role began.
  const NodeProgress& before() const { return before_; }

 private:
  void run();
  absl::Status tell(NodeProgress document, uint64_t number);
  // Waits for the answer, until the report is to end.
  grpc::Status ask(PeerNode& peer, const v1::ProgressRequest& request);

  const NodeContext& context_;
  const std::string backup_;
  const std::string coordinator_;
  const int64_t interval_ns_;
  const std::function<std::vector<StageReport>()> stages_;
  const SentBytes sent_at_start_;
  NodeProgress before_;
  Mutex mutex_;
  Condition wake_;
  NodeProgress document_ SLUICE_GUARDED_BY(mutex_);
  // When the document is due to be told, by the monotonic clock; 0: it was.
  int64_t due_ns_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  bool failing_ = false;  // of the thread alone
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_PROGRESS_REPORT_H_

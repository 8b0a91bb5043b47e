// Keeps this node's progress document of one backup up to date, in as few commits as its readers
// can do with: the end of what the node has to do, and errors, at once; other changes of state
// after a coalescing delay, since more of them follow in a small backup; numbers a few times a
// second. Thread-safe.
#ifndef SLUICE_CONTROL_SERVICE_PROGRESS_REPORT_H_
#define SLUICE_CONTROL_SERVICE_PROGRESS_REPORT_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "control/schedule/backup_store.h"
#include "control/service/node_context.h"

namespace sluice {

class ProgressReport {
 public:
  // What an earlier life or attempt of this node had sent and counted is gone on from. A source
  // ends as sent, a target as consolidated. `stages` is asked at each writing.
  ProgressReport(const NodeContext& context, std::string backup, uint64_t attempt, bool is_target,
                 std::function<std::vector<StageReport>()> stages);
  // Writes what was not written yet.
  ~ProgressReport();
  ProgressReport(const ProgressReport&) = delete;
  ProgressReport& operator=(const ProgressReport&) = delete;

  // Changes the document; it is written soon.
  void change(const std::function<void(NodeProgress&)>& change);
  // What was counted before this role began.
  const NodeProgress& before() const { return before_; }

 private:
  void run();
  bool has_ended(const NodeProgress& progress) const;
  absl::Status write(NodeProgress document);
  uint64_t wire_bytes() const;

  const NodeContext& context_;
  const std::string backup_;
  const bool is_target_;
  const std::function<std::vector<StageReport>()> stages_;
  const uint64_t sent_at_start_;
  NodeProgress before_;
  std::mutex mutex_;
  std::condition_variable wake_;
  NodeProgress document_;
  // When the document is due to be written, by the monotonic clock; 0: it is written.
  int64_t due_ns_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_PROGRESS_REPORT_H_

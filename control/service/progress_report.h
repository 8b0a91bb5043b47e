// Keeps this node's progress document of one backup up to date: changes of state at once, numbers a
// few times a second. Thread-safe.
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
  // What an earlier life or attempt of this node had sent and counted is gone on from.
  // `stages` is asked at each writing.
  ProgressReport(const NodeContext& context, std::string backup, uint64_t attempt,
                 std::function<std::vector<StageReport>()> stages);
  // Writes the last state.
  ~ProgressReport();
  ProgressReport(const ProgressReport&) = delete;
  ProgressReport& operator=(const ProgressReport&) = delete;

  // Changes the document; it is written soon.
  void change(const std::function<void(NodeProgress&)>& change);
  // What was counted before this role began.
  const NodeProgress& before() const { return before_; }

 private:
  void run();
  void write(NodeProgress document);
  uint64_t wire_bytes() const;

  const NodeContext& context_;
  const std::string backup_;
  const std::function<std::vector<StageReport>()> stages_;
  const uint64_t sent_at_start_;
  NodeProgress before_;
  std::mutex mutex_;
  std::condition_variable wake_;
  NodeProgress document_;
  bool urgent_ = true;
  bool dirty_ = true;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_PROGRESS_REPORT_H_

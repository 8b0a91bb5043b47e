// Measures this machine's clock against those of other nodes, sets the node's ClusterClock by it,
// and says in the log when a clock is off and when it is right again.
//
// It asks at most kPeers live nodes, those that follow this one by number, and takes the median.
// Thread-safe.
#ifndef SLUICE_CONTROL_RECORDS_CLOCK_MONITOR_H_
#define SLUICE_CONTROL_RECORDS_CLOCK_MONITOR_H_

#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "control/peers/node_context.h"
#include "control/records/cluster_clock.h"

namespace sluice {

class ClockMonitor {
 public:
  static constexpr size_t kPeers = 8;

  ClockMonitor(const NodeContext& context, ClusterClock& clock);
  ~ClockMonitor();
  ClockMonitor(const ClockMonitor&) = delete;
  ClockMonitor& operator=(const ClockMonitor&) = delete;

  // One measurement: waits for the peers' answers, at most kAnswerMs.
  void measure();
  // Measures from now on: every second, and as soon as nodes come or go.
  void start();

  struct View {
    int64_t offset_ms = 0;  // of this machine's clock: ahead (or behind, negative) of the median
    size_t clocks = 1;      // that the median is of, this one included
    int64_t stamps_ahead_ms = 0;  // of the clock they follow
  };
  View view() const;

 private:
  struct Answer {
    std::string node;
    int64_t ahead_ms = 0;
  };
  std::vector<Answer> ask_peers(uint64_t* steps, size_t* asked) const;
  void report(int64_t median_ms, const std::vector<Answer>& answers);
  void report_one(const std::string& key, int64_t offset_ms, const std::string& whose);
  void run();

  const NodeContext& context_;
  ClusterClock& clock_;
  mutable Mutex mutex_;
  Condition wake_;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  bool complete_ SLUICE_GUARDED_BY(mutex_) =
      false;  // the last measurement had as many answers as it asked for
  View view_ SLUICE_GUARDED_BY(mutex_);
  std::map<std::string, int64_t> reported_;  // offsets that the log speaks of, by whose
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_CLOCK_MONITOR_H_

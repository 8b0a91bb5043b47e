// What a serving node measures of itself: a short probe at its start, then what its real bulk work
// achieves (work_meter.h).
#ifndef SLUICE_CONTROL_NODE_NODE_RATES_H_
#define SLUICE_CONTROL_NODE_NODE_RATES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/stage.h"
#include "control/membership/work_meter.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

class NodeRates {
 public:
  struct Options {
    std::string data_folder;
    double limit = 0;  // bytes a second; 0: none
    double least_work_seconds = kLeastWorkSeconds;
  };
  NodeRates(const Options& options, Clock& clock)
      : options_(options),
        clock_(clock),
        keep_(clock),
        ingest_(clock),
        work_(options.least_work_seconds) {}

  // Well under a second, of disk and processor. `address`: where peers reach the node's data.
  absl::Status probe(const std::string& address);
  // Thread-safe, all.
  WorkMeter& work() { return work_; }
  Stage& keep() { return keep_; }
  Stage& ingest() { return ingest_; }
  // As of now. Confined to one thread, with look_at().
  MeasuredRates rates() const;
  // Counts what the exchange and the ingestion did since the last call.
  void look_at(const Exchange& exchange);

 private:
  const Options options_;
  Clock& clock_;
  Stage keep_;    // checks a restore's blocks and gathers their rows
  Stage ingest_;  // makes them durable
  WorkMeter work_;
  MeasuredRates probe_;
  StageTimes wire_;  // at the last look
  uint64_t messages_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_NODE_RATES_H_

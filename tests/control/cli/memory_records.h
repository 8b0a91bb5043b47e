// A sink and source in memory.
#ifndef SLUICE_TESTS_CONTROL_CLI_MEMORY_RECORDS_H_
#define SLUICE_TESTS_CONTROL_CLI_MEMORY_RECORDS_H_

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "control/cli/record_stream.h"

namespace sluice {

class MemoryRecords : public RecordSink, public RecordSource {
 public:
  absl::Status put(std::string_view key, std::string_view value) override {
    std::lock_guard lock(mutex_);
    if (records_.size() >= fail_after_) return unavailable("the sink is broken");
    records_[std::string(key)] = std::string(value);
    totals_.records += 1;
    totals_.bytes += key.size() + value.size();
    return absl::OkStatus();
  }
  SinkTotals finish() override { return totals_; }

  // In a shuffled order, as slots would.
  absl::Status scan(std::string_view prefix, const Each& each) override {
    std::vector<const std::pair<const std::string, std::string>*> order;
    for (const auto& record : records_) {
      if (record.first.starts_with(prefix)) order.push_back(&record);
    }
    Random(seed_).shuffle(order);
    for (const auto* record : order) SLUICE_RETURN_IF_ERROR(each(record->first, record->second));
    return absl::OkStatus();
  }

  std::map<std::string, std::string>& records() { return records_; }
  void fail_after(size_t records) { fail_after_ = records; }
  void shuffle(uint64_t seed) { seed_ = seed; }

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> records_;
  SinkTotals totals_;
  size_t fail_after_ = ~size_t{0};
  uint64_t seed_ = 1;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CLI_MEMORY_RECORDS_H_

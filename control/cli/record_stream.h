// Where imports put records and exports get them: a cluster, or memory in tests.
#ifndef SLUICE_CONTROL_CLI_RECORD_STREAM_H_
#define SLUICE_CONTROL_CLI_RECORD_STREAM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace sluice {

// A path or key that could not be done, while the others were.
struct StreamFailure {
  std::string path;
  std::string reason;
};

// At most kMax are kept; all are counted.
struct StreamFailures {
  static constexpr size_t kMax = 1000;
  uint64_t count = 0;
  std::vector<StreamFailure> first;

  void add(std::string path, std::string reason) {
    ++count;
    if (first.size() < kMax) first.push_back({std::move(path), std::move(reason)});
  }
};

// What became of the records of a sink. Bytes are those of keys and values.
struct SinkTotals {
  uint64_t records = 0;  // acknowledged by the cluster
  uint64_t bytes = 0;
  StreamFailures failures;  // by key
};

// Thread-safe.
class RecordSink {
 public:
  virtual ~RecordSink() = default;
  // Waits while too much is in flight. OK means accepted: whether it was written is in the totals.
  virtual absl::Status put(std::string_view key, std::string_view value) = 0;
  // Waits for everything put before. Called once, last.
  virtual SinkTotals finish() = 0;
};

// Confined to one thread.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  // Each live record whose key begins with `prefix`, once, in any order. Ends at the first error of
  // `each`, and returns it. The views are valid during the call only.
  using Each = std::function<absl::Status(std::string_view key, std::string_view value)>;
  virtual absl::Status scan(std::string_view prefix, const Each& each) = 0;
};

// What a running import or export tells whoever watches it. Bytes are those of keys and values.
struct StreamProgress {
  std::atomic<uint64_t> records{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<bool> cancelled{false};  // set by the watcher; the stream then ends with CANCELLED

  void count(uint64_t record_bytes) {
    records.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(record_bytes, std::memory_order_relaxed);
  }
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_RECORD_STREAM_H_

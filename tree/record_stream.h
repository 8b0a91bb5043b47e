// Where imports put records and exports get them: a cluster, or memory in tests.
#ifndef SLUICE_TREE_RECORD_STREAM_H_
#define SLUICE_TREE_RECORD_STREAM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

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
  virtual absl::Status erase(std::string_view key) = 0;
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
  // The same with at most the first `bytes` of each value, at the cost of the keys.
  virtual absl::Status scan_heads(std::string_view prefix, uint32_t bytes, const Each& each) = 0;
  // Nothing where there is none.
  virtual absl::StatusOr<std::optional<std::string>> get(std::string_view key) = 0;
};

// What one process has alone while it lives. Thread-safe.
class RecordClaim {
 public:
  virtual ~RecordClaim() = default;
  // Waits a moment where that is not certain now. Not OK when another process has taken the claim,
  // or could have.
  virtual absl::Status check() = 0;
};

// Records that are read, written, and claimed. Thread-safe but for scan().
class RecordStore : public RecordSource {
 public:
  // A stream of writes of its own. The store must outlive it.
  virtual std::unique_ptr<RecordSink> writer() = 0;
  virtual absl::StatusOr<uint64_t> count(std::string_view prefix) = 0;
  // ABORTED when a process that lives, or that lived until a few seconds ago, has it.
  virtual absl::StatusOr<std::unique_ptr<RecordClaim>> claim(const std::string& name) = 0;
  // The longest that a claim outlives its process.
  virtual int64_t claim_ms() const = 0;
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

#endif  // SLUICE_TREE_RECORD_STREAM_H_

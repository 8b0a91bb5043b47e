// A sink and source in memory.
#ifndef SLUICE_TESTS_TREE_MEMORY_RECORDS_H_
#define SLUICE_TESTS_TREE_MEMORY_RECORDS_H_

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "tree/record_stream.h"

namespace sluice {

class MemoryRecords : public RecordSink, public RecordStore {
 public:
  absl::Status put(std::string_view key, std::string_view value) override {
    SLUICE_RETURN_IF_ERROR(store(key, value));
    std::lock_guard lock(mutex_);
    totals_.records += 1;
    totals_.bytes += key.size() + value.size();
    return absl::OkStatus();
  }
  absl::Status erase(std::string_view key) override {
    std::lock_guard lock(mutex_);
    records_.erase(std::string(key));
    return absl::OkStatus();
  }
  SinkTotals finish() override {
    std::lock_guard lock(mutex_);
    return std::exchange(totals_, SinkTotals());
  }

  // Each writer counts for itself; what it was given is there at its finish(), or earlier.
  std::unique_ptr<RecordSink> writer() override { return std::make_unique<Writer>(*this); }
  absl::StatusOr<std::optional<std::string>> get(std::string_view key) override {
    if (before_get_) before_get_(key);
    std::lock_guard lock(mutex_);
    const auto found = records_.find(std::string(key));
    if (found == records_.end()) return std::optional<std::string>();
    return std::optional(found->second);
  }
  absl::StatusOr<uint64_t> count(std::string_view prefix) override {
    std::lock_guard lock(mutex_);
    uint64_t count = 0;
    for (const auto& [key, value] : records_) count += key.starts_with(prefix) ? 1 : 0;
    return count;
  }
  absl::StatusOr<std::unique_ptr<RecordClaim>> claim(const std::string& name) override {
    std::lock_guard lock(mutex_);
    if (claims_.contains(name)) return absl::AbortedError("claimed");
    claims_.insert(name);
    return std::make_unique<Claim>(*this, name);
  }
  int64_t claim_ms() const override { return 0; }

  // In a shuffled order, as slots would.
  absl::Status scan(std::string_view prefix, const Each& each) override {
    std::vector<std::string> keys;
    {
      std::lock_guard lock(mutex_);
      for (const auto& record : records_) {
        if (record.first.starts_with(prefix)) keys.push_back(record.first);
      }
    }
    Random(seed_).shuffle(keys);
    // What goes while the scan is on its way is not seen, or seen still.
    for (size_t at = 0; at < keys.size(); ++at) {
      if (during_scan_) during_scan_(at);
      const auto value = get(keys[at]);
      if (value->has_value()) SLUICE_RETURN_IF_ERROR(each(keys[at], **value));
    }
    return absl::OkStatus();
  }

  absl::Status scan_heads(std::string_view prefix, uint32_t bytes, const Each& each) override {
    return scan(prefix, [&](std::string_view key, std::string_view value) {
      return each(key, value.substr(0, bytes));
    });
  }

  std::map<std::string, std::string>& records() { return records_; }
  void fail_after(size_t records) { fail_after_ = records; }
  // Called with each key before it is written, under the lock, or read.
  void before_put(std::function<void(std::string_view)> hook) { before_put_ = std::move(hook); }
  void before_get(std::function<void(std::string_view)> hook) { before_get_ = std::move(hook); }
  // Called before each record of a scan, which may change what follows.
  void during_scan(std::function<void(size_t)> hook) { during_scan_ = std::move(hook); }
  // Writes of these keys fail, as the totals say.
  void refuse(std::function<bool(std::string_view)> which) { refused_ = std::move(which); }
  void refuse_erase(std::function<bool(std::string_view)> which) {
    refused_erases_ = std::move(which);
  }
  // The claims of all processes end.
  void forget_claims() { claims_.clear(); }
  void lose_claims() { lost_ = true; }
  void shuffle(uint64_t seed) { seed_ = seed; }

 private:
  absl::Status store(std::string_view key, std::string_view value) {
    std::lock_guard lock(mutex_);
    if (records_.size() >= fail_after_) return unavailable("the sink is broken");
    if (before_put_) before_put_(key);
    records_[std::string(key)] = std::string(value);
    return absl::OkStatus();
  }

  class Writer final : public RecordSink {
   public:
    explicit Writer(MemoryRecords& records) : records_(records) {}
    absl::Status put(std::string_view key, std::string_view value) override {
      std::lock_guard lock(mutex_);
      if (records_.refused_ && records_.refused_(key)) {
        totals_.failures.add(std::string(key), "refused");
        return absl::OkStatus();
      }
      SLUICE_RETURN_IF_ERROR(records_.store(key, value));
      ++totals_.records;
      totals_.bytes += key.size() + value.size();
      return absl::OkStatus();
    }
    absl::Status erase(std::string_view key) override {
      std::lock_guard lock(mutex_);
      if (records_.refused_erases_ && records_.refused_erases_(key)) {
        totals_.failures.add(std::string(key), "refused");
        return absl::OkStatus();
      }
      ++totals_.records;
      return records_.erase(key);
    }
    SinkTotals finish() override { return totals_; }

   private:
    MemoryRecords& records_;
    std::mutex mutex_;
    SinkTotals totals_;
  };
  class Claim final : public RecordClaim {
   public:
    Claim(MemoryRecords& records, std::string name) : records_(records), name_(std::move(name)) {}
    ~Claim() override {
      std::lock_guard lock(records_.mutex_);
      records_.claims_.erase(name_);
    }
    absl::Status check() override {
      return records_.lost_ ? absl::AbortedError("lost") : absl::OkStatus();
    }

   private:
    MemoryRecords& records_;
    const std::string name_;
  };

  std::mutex mutex_;
  std::map<std::string, std::string> records_;
  SinkTotals totals_;
  size_t fail_after_ = ~size_t{0};
  uint64_t seed_ = 1;
  std::function<void(std::string_view)> before_put_;
  std::function<void(std::string_view)> before_get_;
  std::function<void(size_t)> during_scan_;
  std::function<bool(std::string_view)> refused_;
  std::function<bool(std::string_view)> refused_erases_;
  std::set<std::string> claims_;
  bool lost_ = false;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TREE_MEMORY_RECORDS_H_

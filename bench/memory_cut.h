// A cut in memory, read as a store's: what is measured with it has no RocksDB in it.
#ifndef SLUICE_BENCH_MEMORY_CUT_H_
#define SLUICE_BENCH_MEMORY_CUT_H_

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/status.h"
#include "dataplane/block/slot_digest.h"
#include "dataplane/store/store.h"

namespace sluice {

// Keys in order, and what is stored under each; all values are the same bytes.
struct MemorySlot {
  std::vector<std::pair<std::string, RecordSummary>> records;
  std::string value;

  // The keys of `slot` among "key-0000000000", "key-0000000001" ..., about `bytes` of records.
  static MemorySlot make(uint32_t slot, uint32_t slot_bits, size_t bytes, size_t value_bytes) {
    MemorySlot made;
    made.value.assign(value_bytes, 'v');
    const RecordSummary summary{
        {Version::make_stamp(1'700'000'000'000, 0), 1}, false, value_bytes, xxh3_128(made.value)};
    for (size_t i = 0; made.records.size() < bytes / (value_bytes + 16); ++i) {
      std::string key = fmt::format("key-{:010}", i);
      if (slot_of(key, slot_bits) == slot) made.records.emplace_back(std::move(key), summary);
    }
    return made;
  }
  uint64_t bytes() const {
    return records.empty() ? 0 : records.size() * (records[0].first.size() + value.size());
  }
  SlotDigest digest() const {
    SlotDigest digest;
    for (const auto& [key, summary] : records) digest.add(key, summary);
    return digest;
  }
};

// The slot must outlive it.
class MemoryScan final : public SlotScan {
 public:
  explicit MemoryScan(const MemorySlot& slot) : slot_(slot) {}
  absl::StatusOr<bool> next(Item* item) override {
    if (at_ == slot_.records.size()) return false;
    item->key = slot_.records[at_].first;
    item->summary = slot_.records[at_].second;
    ++at_;
    return true;
  }
  absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
    std::memcpy(into.data(), slot_.value.data() + offset, into.size());
    return absl::OkStatus();
  }

 private:
  const MemorySlot& slot_;
  size_t at_ = 0;
};

class MemoryCut final : public CutReader {
 public:
  explicit MemoryCut(std::vector<MemorySlot> slots) : slots_(std::move(slots)) {
    for (const MemorySlot& slot : slots_) digests_.push_back(slot.digest());
  }
  std::unique_ptr<SlotScan> scan(uint32_t slot) override {
    return std::make_unique<MemoryScan>(slots_[slot]);
  }
  const std::vector<SlotDigest>& digests() const override { return digests_; }

 private:
  const std::vector<MemorySlot> slots_;
  std::vector<SlotDigest> digests_;
};

}  // namespace sluice

#endif  // SLUICE_BENCH_MEMORY_CUT_H_

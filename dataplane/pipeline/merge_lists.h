// What the two ends of a merge tell each other about the records of slots: their summaries, in
// key order, and which of them are wanted. One message has a section for each of several slots.
// docs/streams.md has both formats to the byte. Readers treat their input as hostile.
#ifndef SLUICE_DATAPLANE_PIPELINE_MERGE_LISTS_H_
#define SLUICE_DATAPLANE_PIPELINE_MERGE_LISTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "dataplane/block/record.h"

namespace sluice {

// So many slots one request may name.
inline constexpr size_t kMaxMergeSlots = 32;

// The part of a message that is about one slot.
struct MergeSection {
  static constexpr size_t kHeaderBytes = 8;
  uint32_t slot = 0;
  bool last = false;  // of the slot: no other message goes on with it
  std::string_view bytes;

  static void write_header(uint8_t* to, uint32_t slot, bool last, uint32_t bytes);
};

// Reads the sections of a message, which must outlive it.
class MergeSectionReader {
 public:
  explicit MergeSectionReader(std::span<const uint8_t> message) : in_(message) {}
  // False at the end; DATA_LOSS for a section that is cut off.
  absl::StatusOr<bool> next(MergeSection* section);

 private:
  ByteReader in_;
};

// Which slots' summaries are asked for.
struct SummaryRequest {
  uint64_t passed = 0;          // of the slot's first records, where there is one slot alone
  std::vector<uint32_t> slots;  // 1 to kMaxMergeSlots, each once
  std::string encode() const;
  static absl::StatusOr<SummaryRequest> decode(std::string_view payload);
};

// Packs one section of summaries into memory it is given. Confined to one thread; no allocation.
class SummaryPageBuilder {
 public:
  // Of which at most kMaxBlockBytes are used; at least kMaxEntryBytes.
  void begin(std::span<uint8_t> memory);
  // False, with nothing added, when it does not fit any more. Keys ascend.
  bool add(std::string_view key, const RecordSummary& summary);
  uint32_t bytes() const { return static_cast<uint32_t>(used_); }

  // Key, its two lengths, stamp, node, size and flag, digest.
  static constexpr size_t kMaxEntryBytes = kMaxKeyBytes + 2 * 2 + 8 + 5 + 4 + 16;

 private:
  std::span<uint8_t> memory_;
  size_t used_ = 0;
  size_t key_bytes_ = 0;
  std::array<uint8_t, kMaxKeyBytes> key_{};  // of the entry before
};

// Reads one such section, which must outlive it. Confined to one thread.
class SummaryPageReader {
 public:
  SummaryPageReader(std::string_view page, uint32_t slot, uint32_t slot_bits)
      : in_(page), slot_(slot), slot_bits_(slot_bits) {}
  // False at the end. DATA_LOSS for what breaks the format, keys that do not ascend or are of
  // another slot.
  absl::StatusOr<bool> next();
  // Of the entry that next() came to; the key until the next call.
  std::string_view key() const { return {key_.data(), key_bytes_}; }
  const RecordSummary& summary() const { return summary_; }

 private:
  absl::Status read_key();

  ByteReader in_;
  const uint32_t slot_;
  const uint32_t slot_bits_;
  size_t key_bytes_ = 0;
  std::array<char, kMaxKeyBytes> key_;
  RecordSummary summary_;
};

// Makes the list of the wanted ones among a copy's records, in key order: runs that are passed over
// and runs that are taken, in turn.
class RunListBuilder {
 public:
  // The list begins with `passed` records that are not wanted.
  void begin(uint64_t passed);
  void add(bool wanted);
  uint64_t taken() const { return taken_; }
  // Of the list if encoded now, at most.
  size_t bytes() const { return bytes_.size() + varint_size(skip_) + varint_size(take_); }
  // Only where something was taken.
  std::string encode() const;

 private:
  std::string bytes_;  // of the runs that are complete
  uint64_t skip_ = 0;
  uint64_t take_ = 0;
  uint64_t taken_ = 0;
};

// Such a list, as it is followed along a scan. Confined to one thread.
class RunList {
 public:
  // DATA_LOSS for what is not the encoding of a list.
  static absl::StatusOr<RunList> decode(std::string_view payload);
  // Nothing wanted is left.
  bool done() const { return skip_ == 0 && take_ == 0 && at_ == bytes_.size(); }
  // Whether the next record is wanted. Not when done().
  bool next();

  // A copy has fewer records.
  static constexpr uint64_t kMaxRecords = uint64_t{1} << 48;

 private:
  void read_runs();

  std::string bytes_;
  size_t at_ = 0;
  uint64_t skip_ = 0;  // left of the run
  uint64_t take_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_MERGE_LISTS_H_

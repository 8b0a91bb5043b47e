// Records of several slots on their way into a cluster: what one data writing request of an import
// carries. They have no versions of their own: all of them get the one that the request's envelope
// names, so that the batch is forwarded as it was packed and its checksum holds.
// docs/formats.md has the layout to the byte.
#ifndef SLUICE_DATAPLANE_BLOCK_RECORD_BATCH_H_
#define SLUICE_DATAPLANE_BLOCK_RECORD_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "dataplane/block/record.h"

namespace sluice {

// Packs one batch into memory it is given. Confined to one thread.
class RecordBatchBuilder {
 public:
  // Begins a batch in `memory`, of which at most kMaxBlockBytes are used.
  void begin(std::span<uint8_t> memory);
  // False, with nothing added, when the record does not fit any more. Key and value sizes must be
  // legal; the version is not looked at.
  bool add(const RecordView& record);
  size_t records() const { return records_; }
  // Bytes of the batch if finished now.
  size_t bytes() const { return used_; }
  // Seals the batch and returns its length.
  uint32_t finish();

  // Bytes that a record takes in a batch, and an empty batch.
  static size_t bytes_of(const RecordView& record);
  static constexpr size_t kHeaderBytes = 24;

 private:
  std::span<uint8_t> memory_;
  size_t used_ = 0;
  uint32_t records_ = 0;
};

// Checks and reads a batch in hostile memory, which must outlive it. Confined to one thread.
class RecordBatchReader {
 public:
  // DATA_LOSS with what is wrong; FAILED_PRECONDITION for a format version this build does not
  // know.
  static absl::StatusOr<RecordBatchReader> open(std::span<const uint8_t> batch);
  uint32_t records() const { return records_; }
  // The next record, with views into the batch and no version. False at the end; DATA_LOSS when the
  // batch breaks the format although its checksum holds.
  absl::StatusOr<bool> next(RecordView* record);

 private:
  RecordBatchReader(uint32_t records, std::string_view entries)
      : records_(records), left_(records), in_(entries) {}

  uint32_t records_;
  uint32_t left_;
  ByteReader in_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_BLOCK_RECORD_BATCH_H_

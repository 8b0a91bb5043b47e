// What says that an archive exists. An archive is one consolidated copy, in parts: one folder on
// each target, with segments (blocks, verbatim, each 4 KiB aligned), an index for each segment, and
// the root manifest, the same file in every part. It appears last, whole or not at all.
// docs/formats.md has the layouts to the byte.
#ifndef SLUICE_DATAPLANE_ARCHIVE_MANIFEST_H_
#define SLUICE_DATAPLANE_ARCHIVE_MANIFEST_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

struct ArchiveIdentity {
  std::string cluster;  // UUID
  std::string backup;   // UUID
  std::string name;     // the operator's name for it
  uint32_t slot_bits = 0;
  uint64_t cut = 0;  // T
  uint64_t table_epoch = 0;
  friend bool operator==(const ArchiveIdentity&, const ArchiveIdentity&) = default;
};

// Where a block is: what an index holds for each.
struct BlockLocation {
  uint32_t segment = 0;
  uint64_t offset = 0;  // 4 KiB aligned
  uint32_t bytes = 0;   // without padding
  uint32_t slot = 0;
  uint32_t sequence = 0;  // within the slot, from 0
  uint32_t entries = 0;
  uint32_t flags = 0;     // of the block header: runs can be seen without reading blocks
  uint64_t checksum = 0;  // the block's own
  friend bool operator==(const BlockLocation&, const BlockLocation&) = default;
};

struct SegmentSummary {
  uint32_t number = 0;
  uint64_t bytes = 0;  // of the segment file, with padding
  uint64_t blocks = 0;
  uint64_t index_bytes = 0;
  Digest128 index_digest;  // XXH3-128 of the index file
};

struct SlotSummary {
  uint32_t slot = 0;
  SlotDigest digest;
};

// A tree of files that the archive holds beside records: in slots with its number (record.h).
struct ArchivedTree {
  uint32_t number = 0;  // 1 to kMaxTreeNumber
  std::string name;
  std::string node;  // whose tree it is
  friend bool operator==(const ArchivedTree&, const ArchivedTree&) = default;
};

// One target's part.
struct PartManifest {
  std::string node;
  std::vector<SegmentSummary> segments;
  std::vector<SlotSummary> slots;  // ascending; slots without records are left out
  // A file of its own too (kPartFile), which says whose part a folder holds. Ends with an XXH3-128
  // over all of it.
  std::string encode() const;
  // Same errors as Manifest::decode().
  static absl::StatusOr<PartManifest> decode(std::string_view bytes);
};

// The root: the same bytes on every target. `required_features` bits that a reader does not know
// make it refuse.
struct Manifest {
  // There are trees.
  static constexpr uint64_t kTrees = 1;

  ArchiveIdentity identity;
  uint64_t required_features = 0;
  uint64_t newest_stamp = 0;        // of any record but those of trees
  std::vector<ArchivedTree> trees;  // by ascending number
  std::vector<PartManifest> parts;
  // Without those of trees.
  uint64_t records() const;    // live
  uint64_t bytes() const;      // keys and values of live records
  Digest128 root() const;      // over the index digests of all segments: one number for all blocks
  std::string encode() const;  // ends with an XXH3-128 over all of it
  // DATA_LOSS when damaged, FAILED_PRECONDITION for another format version or an unknown required
  // feature.
  static absl::StatusOr<Manifest> decode(std::string_view bytes);
};

inline constexpr char kManifestFile[] = "manifest";
inline constexpr char kPartFile[] = "part";
inline constexpr char kJournalFile[] = "journal";  // only until the archive is committed
inline constexpr char kRemovedFile[] = "removed";  // the manifest, once the removal has begun

// Where blocks begin and how far their padding goes.
inline constexpr uint64_t kBlockAlignment = 4096;
inline constexpr uint64_t padded(uint64_t bytes) {
  return (bytes + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
}

// Longer files are refused before they are read.
inline constexpr size_t kMaxManifestBytes = size_t{256} << 20;
inline constexpr size_t kMaxIndexBytes = size_t{256} << 20;
std::string segment_file(uint32_t number);  // "segment-00000"
std::string index_file(uint32_t number);    // "index-00000"

// The index of one segment, as its file holds it.
struct SegmentIndex {
  std::string backup;
  std::string node;
  uint32_t number = 0;
  uint64_t segment_bytes = 0;
  std::vector<BlockLocation>
      blocks;  // ascending offsets, no overlaps; the last one ends the segment

  std::string encode() const;
  // Same errors as Manifest::decode().
  static absl::StatusOr<SegmentIndex> decode(std::string_view bytes);
};

// One block's location as 36 bytes, without the segment's number.
inline constexpr size_t kLocationBytes = 36;
void encode_location(const BlockLocation& location, ByteWriter& out);
bool decode_location(ByteReader& in, BlockLocation* location);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_MANIFEST_H_

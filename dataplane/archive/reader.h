// Reads archives, which are hostile until each checksum has held.
#ifndef SLUICE_DATAPLANE_ARCHIVE_READER_H_
#define SLUICE_DATAPLANE_ARCHIVE_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/archive/part_identity.h"

namespace sluice {

// Some or all parts of one archive. Thread-safe after open.
class ArchiveReader {
 public:
  // One directory for each part; all must hold the same root manifest, and each the part it is for.
  // Loads and checks the indexes. With `expected` each part has to be of that identity, or it is
  // DATA_LOSS saying what is there instead. What is read then are the cluster's records, or the
  // tree of this number: of everything else manifest() and parts() have no slots and blocks.
  static absl::StatusOr<std::unique_ptr<ArchiveReader>> open(
      const std::vector<std::string>& folders, const ArchivePartId* expected = nullptr,
      uint32_t tree = 0);
  virtual ~ArchiveReader() = default;

  virtual uint32_t tree() const = 0;  // 0: the records
  virtual const Manifest& manifest() const = 0;
  virtual const Digest128& manifest_digest() const = 0;  // of its file
  // Names of parts that the manifest has and the folders do not.
  virtual std::vector<std::string> missing_parts() const = 0;
  // Blocks of one part that is there, in segment and offset order; runs are contiguous in (slot,
  // sequence) order.
  struct Part {
    std::string node;
    std::string folder;
    std::vector<BlockLocation> blocks;
  };
  virtual const std::vector<Part>& parts() const = 0;
  // Reads (O_DIRECT where the file system can) and checks one block: index entry, header and
  // payload must agree. `into` begins at a multiple of kBlockAlignment in memory and has room for
  // padded(location.bytes). DATA_LOSS names the file, the offset and the slot.
  virtual absl::Status read_block(size_t part, const BlockLocation& location,
                                  std::span<uint8_t> into) = 0;
};

struct VerifyProblem {
  std::string file;  // path
  uint64_t offset = 0;
  int64_t slot = -1;   // -1: not a block's
  std::string reason;  // "checksum", "missing", "swapped: holds ...", ...
};

struct VerifyReport {
  uint64_t blocks = 0;
  uint64_t bytes = 0;                     // of blocks read
  std::vector<VerifyProblem> bad;         // damage
  std::vector<VerifyProblem> unreadable;  // what the system did not let be read, so not checked
};

// That verify_archive() takes from its arena.
inline constexpr size_t kVerifyBuffers = 9;

// Checks everything there is to check, without a cluster: the manifest in each directory (present,
// identical), indexes, every block, padding, every record, slot digests and counts against the
// manifest, files that do not belong, parts that are missing. Continues after a problem. A status
// only for what makes checking impossible (a directory that is not there, cannot be listed, is not
// an archive or belongs to a future format version). A few blocks are in memory at a time.
// `progress` (may be null) gets bytes done and in all; when it answers false, checking ends with
// CANCELLED. With `expected` there is one directory, which has to hold that part and no other; the
// archive's other parts are then no concern.
absl::StatusOr<VerifyReport> verify_archive(
    const std::vector<std::string>& folders, Arena& arena,
    const std::function<bool(uint64_t done, uint64_t total)>& progress,
    const ArchivePartId* expected = nullptr);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_READER_H_

// Writes one target's part of an archive, and goes on with it after a crash.
//
// Blocks are written verbatim with O_DIRECT from the arena, several in flight (io_uring; plain
// writes where the kernel has none). A slot is durable once finish_slot() and a later sync()
// returned: its blocks are on disk and a journal entry, written after them, lists them. A writer
// opened on a folder with a journal goes on after the last whole entry; what it does not list is
// written again.
#ifndef SLUICE_DATAPLANE_ARCHIVE_WRITER_H_
#define SLUICE_DATAPLANE_ARCHIVE_WRITER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "base/stage.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/archive/write_queue.h"

namespace sluice {

// Thread-safe: any thread may append; blocks of one slot come from one thread at a time, in order.
class ArchiveWriter {
 public:
  struct Options {
    std::string folder;
    ArchiveIdentity identity;
    std::string node;
    uint64_t segment_bytes = uint64_t{1} << 30;  // a new segment begins after it
    size_t depth = 32;                           // writes in flight; append() waits beyond that
    // The slots that the part is to have. What the folder holds of others is given up: the plan
    // gives them to another target by now. Without it, everything durable stays.
    std::optional<std::set<uint32_t>> planned = {};
    // A part that was committed goes on as unfinished, also where the same slots are planned: it
    // was committed by an attempt that did not complete the backup, and another manifest may
    // follow.
    bool reopen_committed = false;
    Stage* disk = nullptr;     // writes in flight; outlives the writer
    WriteFunction write = {};  // replaces all writing of blocks and journal; for tests of faults
  };
  // A part of the same identity that was committed is opened as finished, so that finish() and
  // commit() can be repeated; unless other slots are planned: then its manifest is removed, and it
  // goes on as unfinished. So it must not be opened once its backup is completed. A part of an
  // earlier cut of the same backup is removed. ALREADY_EXISTS for any other archive, finished or
  // not.
  static absl::StatusOr<std::unique_ptr<ArchiveWriter>> open(const Options& options);
  virtual ~ArchiveWriter() = default;

  // Slots that an earlier life made durable, with their digests.
  virtual const std::map<uint32_t, SlotDigest>& durable_at_open() const = 0;

  // Queues one sealed block of `bytes` bytes (header included). The buffer's bytes from there to
  // the next 4 KiB boundary are set to zero and written with it; it goes home when the disk has it.
  // RESOURCE_EXHAUSTED when the disk is full; any error is for good.
  virtual absl::Status append(BlockBuffer block, uint32_t bytes) = 0;
  // All blocks of the slot have been appended since open (or since drop_slot). `newest_stamp`: of
  // its records.
  virtual absl::Status finish_slot(uint32_t slot, const SlotDigest& digest,
                                   uint64_t newest_stamp) = 0;
  // Forgets the blocks of a slot that is not durable yet (a source died in the middle); the space
  // stays unused.
  virtual void drop_slot(uint32_t slot) = 0;
  // Makes all finished slots durable and returns those that became so since the last sync().
  virtual absl::StatusOr<std::vector<uint32_t>> sync() = 0;
  // Syncs, writes the indexes durably and returns the part. Idempotent, also over a restart.
  virtual absl::StatusOr<PartManifest> finish() = 0;
  virtual uint64_t newest_stamp() const = 0;
  // After finish(): stores the root manifest durably (checked to contain this part), then removes
  // the journal. A repeat with the same manifest is OK; ALREADY_EXISTS, and nothing changed, when
  // another one is stored.
  virtual absl::Status commit(const Manifest& manifest) = 0;
};

// Whose unfinished part a folder holds.
struct UnfinishedPart {
  ArchiveIdentity identity;
  std::string node;
};
// NOT_FOUND when there is none, or the part is committed; DATA_LOSS for a damaged journal.
absl::StatusOr<UnfinishedPart> unfinished_part(const std::string& folder);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_WRITER_H_

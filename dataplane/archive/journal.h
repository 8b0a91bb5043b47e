// The journal of an unfinished archive part: which slots are durable, and where their blocks are.
// Append-only; an entry is written after what it lists is on disk. A torn tail is dropped when it
// is opened again.
#ifndef SLUICE_DATAPLANE_ARCHIVE_JOURNAL_H_
#define SLUICE_DATAPLANE_ARCHIVE_JOURNAL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/archive/write_queue.h"
#include "dataplane/archive/writer.h"

namespace sluice {

struct DurableSlot {
  uint32_t slot = 0;
  SlotDigest digest;
  uint64_t newest_stamp = 0;
  std::vector<BlockLocation> blocks;
};

// Whose journal it is, and what it says.
struct JournalContent {
  ArchiveIdentity identity;
  std::string node;
  std::map<uint32_t, DurableSlot> slots;
  size_t whole_bytes = 0;  // up to the first entry that is torn

  // DATA_LOSS when not even the header is whole; FAILED_PRECONDITION for another format version.
  static absl::StatusOr<JournalContent> decode(std::string_view bytes);
};

// Confined to one thread. Locks the file while it lives, so that no two writers work on one folder.
class Journal {
 public:
  // Opens the folder's journal, or makes one. ALREADY_EXISTS when it is another backup's or another
  // node's; FAILED_PRECONDITION when another writer has it open.
  static absl::StatusOr<std::unique_ptr<Journal>> open(const std::string& folder,
                                                       const ArchiveIdentity& identity,
                                                       const std::string& node,
                                                       WriteFunction write);
  // Reads the header alone, without the lock. NOT_FOUND where there is no journal.
  static absl::StatusOr<UnfinishedPart> owner(const std::string& folder);
  // Entries made durable by earlier lives. Moved out by the caller.
  std::map<uint32_t, DurableSlot>& slots() { return content_.slots; }

  // Durable after OK. After an error the journal must be opened again.
  absl::Status append(const std::vector<DurableSlot>& slots);
  // Takes slots back.
  absl::Status append_dropped(const std::vector<uint32_t>& slots);

 private:
  Journal(std::string path, UniqueFd file, JournalContent content, WriteFunction write);
  absl::Status append_entry(std::string_view payload);

  const std::string path_;
  UniqueFd file_;
  JournalContent content_;
  const WriteFunction write_;
  uint64_t end_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_JOURNAL_H_

// Sorts more entries of backups by path than fit into memory, as SortedSpill does.
#ifndef SLUICE_CONTROL_CONTENTS_ENTRY_SPILL_H_
#define SLUICE_CONTROL_CONTENTS_ENTRY_SPILL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "base/sorted_spill.h"
#include "control/contents/entry.h"

namespace sluice {

// Confined to one thread at a time.
class EntrySpill {
 public:
  // Files are made in $TMPDIR, or else /tmp, once there is more than memory is used for.
  explicit EntrySpill(size_t run_bytes = size_t{64} << 20);
  // `side` comes back with the entry.
  absl::Status add(uint8_t side, const BackupEntry& entry) { return add(side, entry, entry.path); }
  // Sorted by another key than its path.
  absl::Status add(uint8_t side, const BackupEntry& entry, std::string_view key);
  // By ascending bytes of their keys; those of one key as they were added. Ends with the
  // visitor's error. Afterwards it is empty.
  using Visit = std::function<absl::Status(uint8_t side, BackupEntry entry)>;
  absl::Status drain(const Visit& visit);

 private:
  SortedSpill spill_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_ENTRY_SPILL_H_

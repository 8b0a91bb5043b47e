// The tree entries of a backup as one archive for tar (tree/pax_writer.h).
//
// Entries come in the order of a walk: a directory, then all that is below it, names in the order
// of their bytes. Of a file with several names the first in this order has the content, and the
// others are hard links to it, so that a link comes after its file. Paths are those of a listing,
// as they are; a tree that was imported without a prefix begins with "./".
//
// Memory: what two EntrySpills and 32 chunks take, whatever the number of files. Entries, and
// content of files up to kSpilledContent bytes, go through $TMPDIR (or /tmp) where they are more
// than 64 MiB. The content of larger files is read when their turn comes; a file with holes of
// several chunks is read twice, as the archive says where its data lies before it has the data.
#ifndef SLUICE_CONTROL_CONTENTS_TAR_EXPORT_H_
#define SLUICE_CONTROL_CONTENTS_TAR_EXPORT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/contents/backup_contents.h"

namespace sluice {

struct TarExportResult {
  uint64_t files = 0;  // names of files, hard links among them
  uint64_t directories = 0;
  uint64_t links = 0;             // names of symbolic links
  uint64_t specials = 0;          // names of pipes and devices
  uint64_t hard_links = 0;        // names beyond the first of each file, counted above too
  uint64_t bytes = 0;             // of content, holes left out, each file once
  uint64_t records_left_out = 0;  // not tree entries, or of a path that no file can have
  // Entries whose place another one has: below what is not a directory, or of the same path.
  uint64_t superseded = 0;
};

// Reads a file of up to this size with its entry, in the order of the parts, and no block for
// itself.
inline constexpr size_t kSpilledContent = size_t{256} << 10;

// The entry at `path` and those below it; empty: all. NOT_FOUND where nothing is there. DATA_LOSS
// for damage, content that does not have its digest, and hard links whose file is not in the
// backup: what was written until then is not an archive, nor is it after any other error. Ends with
// the output's error.
using TarOutput = std::function<absl::Status(std::string_view bytes)>;
absl::StatusOr<TarExportResult> export_tar(BackupContents& contents, const std::string& path,
                                           const TarOutput& output);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_TAR_EXPORT_H_

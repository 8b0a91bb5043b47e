// Whether RocksDB's MANIFEST, the list of its table files, ends where its last record does.
//
// RocksDB takes a record that leads behind the end of the file for one that was being written when
// the power failed: it is dropped without an error, with all that follows. A damaged length looks
// the same, and then table files are missing, and the records in them.
#ifndef SLUICE_DATAPLANE_STORE_MANIFEST_END_H_
#define SLUICE_DATAPLANE_STORE_MANIFEST_END_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice {

// Walks the records' headers alone; their checksums are RocksDB's business. The framing is that of
// https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format.
bool ends_whole(std::string_view manifest);

// The same for the one that is current in `folder`. True where there is none: a new database.
absl::StatusOr<bool> manifest_ends_whole(const std::string& folder);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_MANIFEST_END_H_

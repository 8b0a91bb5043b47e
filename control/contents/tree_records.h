// The records of a tree in an archive. The own record of a file of several chunks has a key behind
// those of its chunks (tree/entry_reader.h); here it has the file's path, as all entries do.
//
// Confined to one thread, as the reader.
#ifndef SLUICE_CONTROL_CONTENTS_TREE_RECORDS_H_
#define SLUICE_CONTROL_CONTENTS_TREE_RECORDS_H_

#include <functional>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/contents/listing.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/record_reader.h"

namespace sluice {

// RecordReader::read() of an entry by its path, or of any record by its key.
absl::StatusOr<std::optional<RecordSummary>> read_entry(ArchiveReader& archive,
                                                        RecordReader& reader, std::string_view key,
                                                        const RecordReader::VisitFragment& visit);

// Each live record from a place on, by slot; `place` is where a later scan goes on behind it.
// `before_block` may be empty. Ends with their errors.
using VisitTreeRecord = std::function<absl::Status(std::string_view key, std::string_view value,
                                                   const ListingPlace& place)>;
absl::Status scan_tree(RecordReader& reader, const ListingPlace& from,
                       const std::function<absl::Status(const ListingPlace& place)>& before_block,
                       const VisitTreeRecord& visit);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_TREE_RECORDS_H_

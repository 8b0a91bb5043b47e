#include "control/contents/tree_records.h"

#include "base/status.h"
#include "control/contents/entry.h"
#include "tree/tree_entry.h"

namespace sluice {

absl::StatusOr<std::optional<RecordSummary>> read_entry(ArchiveReader& archive,
                                                        RecordReader& reader, std::string_view key,
                                                        const RecordReader::VisitFragment& visit) {
  SLUICE_ASSIGN_OR_RETURN(const auto record, reader.read(key, visit));
  const bool other_key =
      !record.has_value() && archive.tree() != 0 && key.find('\0') == std::string_view::npos;
  if (!other_key) return record;
  return reader.read(own_record_key(key), visit);
}

absl::Status scan_tree(RecordReader& reader, const ListingPlace& from,
                       const std::function<absl::Status(const ListingPlace& place)>& before_block,
                       const VisitTreeRecord& visit) {
  ListingPlace place = from;
  RecordScan scan;
  scan.first_slot = from.slot;
  scan.after = from.after;
  scan.value_bytes = kMaxTreeEntryBytes;
  scan.before_block = [&](uint32_t slot) {
    if (slot != place.slot) place = {slot, {}};
    return before_block ? before_block(place) : absl::OkStatus();
  };
  return reader.scan(scan, [&](const ArchivedRecord& record) -> absl::Status {
    place.after = record.key;
    if (record.summary.tombstone) return absl::OkStatus();
    if (record.value.size() != record.summary.value_bytes) {
      return data_loss("a record of a tree has {} bytes", record.summary.value_bytes);
    }
    return visit(entry_key(record.key), record.value, place);
  });
}

}  // namespace sluice

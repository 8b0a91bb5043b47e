#include "tests/simulation/world/archive_content.h"

#include <memory>

#include "base/arena.h"
#include "base/status.h"
#include "dataplane/archive/reader.h"
#include "dataplane/block/block.h"

namespace sluice::simulation {
namespace {

absl::Status read_records(std::span<uint8_t> block, std::map<std::string, Record>& records) {
  SLUICE_ASSIGN_OR_RETURN(auto reader, BlockReader::open(block));
  BlockEntry entry;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) return absl::OkStatus();
    Record& record = records[std::string(entry.key)];
    if (entry.fragment_offset != record.value.size()) return data_loss("{} twice", entry.key);
    record.version = entry.version;
    record.tombstone = entry.tombstone;
    record.value += entry.fragment;
  }
}

}  // namespace

absl::StatusOr<std::map<std::string, Record>> read_archive_content(
    const std::vector<ArchivePlace>& places) {
  std::vector<std::string> folders;
  for (const ArchivePlace& place : places) folders.push_back(place.path);
  SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open(folders));
  if (!archive->missing_parts().empty()) {
    return data_loss("the part of {} is missing", archive->missing_parts().front());
  }
  SLUICE_ASSIGN_OR_RETURN(const auto arena, Arena::create({.bytes = 2 * kBufferBytes}));
  SLUICE_ASSIGN_OR_RETURN(const auto pool, arena->make_pool("reading an archive", 1));
  BlockBuffer buffer = pool->try_take();
  std::map<std::string, Record> records;
  for (size_t part = 0; part < archive->parts().size(); ++part) {
    for (const BlockLocation& location : archive->parts()[part].blocks) {
      SLUICE_RETURN_IF_ERROR(archive->read_block(part, location, buffer.span()));
      SLUICE_RETURN_IF_ERROR(read_records(buffer.span(), records));
    }
  }
  return records;
}

}  // namespace sluice::simulation

// A backup whose parts are directories on this machine.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "control/contents/backup_contents.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/record_reader.h"

namespace sluice {

namespace {

class LocalContents final : public BackupContents {
 public:
  LocalContents(std::unique_ptr<ArchiveReader> archive, std::unique_ptr<RecordReader> reader)
      : archive_(std::move(archive)),
        reader_(std::move(reader)),
        description_(fmt::format("backup {}", archive_->manifest().identity.name)) {}

  const std::string& description() const override { return description_; }
  absl::StatusOr<BackupSlots> slots() override { return slots_of(archive_->manifest()); }

  absl::Status list(const ContentsListing& listing, const VisitEntry& visit) override {
    const MutexLock lock(mutex_);
    ListingVisitor visitor;
    visitor.entry = [&](BackupEntry entry, const ListingPlace&) { return visit(std::move(entry)); };
    return list_archive(*archive_, *reader_, listing, {}, visitor);
  }

  absl::StatusOr<Values> read(const std::vector<std::string>& keys) override {
    const MutexLock lock(mutex_);
    Values values(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      std::string value;
      SLUICE_ASSIGN_OR_RETURN(const auto record,
                              reader_->read(keys[i], [&](const BlockEntry& entry) {
                                if (entry.fragment_offset == 0) value.reserve(entry.value_bytes);
                                value.append(entry.fragment);
                                return absl::OkStatus();
                              }));
      if (record.has_value() && !record->tombstone) values[i] = std::move(value);
    }
    return values;
  }

 private:
  Mutex mutex_;  // the reader is confined to one thread at a time
  const std::unique_ptr<ArchiveReader> archive_;
  const std::unique_ptr<RecordReader> reader_ SLUICE_PT_GUARDED_BY(mutex_);
  const std::string description_;
};

}  // namespace

absl::Status add_slot(const std::string& node, uint32_t slot, const SlotDigest& digest,
                      BackupSlots* slots) {
  if (slot >> slots->slot_bits != 0) {
    return data_loss("slot {} of {}", slot, uint32_t{1} << slots->slot_bits);
  }
  const auto [found, added] = slots->slots.try_emplace(slot, BackupSlots::Slot{node, digest});
  if (added) return absl::OkStatus();
  return data_loss("slot {} is in the parts of {} and {}", slot, found->second.node, node);
}

absl::StatusOr<BackupSlots> slots_of(const Manifest& manifest) {
  BackupSlots slots;
  slots.slot_bits = manifest.identity.slot_bits;
  for (const PartManifest& part : manifest.parts) {
    for (const SlotSummary& slot : part.slots) {
      SLUICE_RETURN_IF_ERROR(add_slot(part.node, slot.slot, slot.digest, &slots));
    }
  }
  return slots;
}

absl::StatusOr<std::unique_ptr<BackupContents>> open_local_contents(
    const std::vector<std::string>& folders) {
  SLUICE_ASSIGN_OR_RETURN(auto archive, ArchiveReader::open(folders));
  if (const auto missing = archive->missing_parts(); !missing.empty()) {
    return failed_precondition(
        "parts of the archive are missing ({}): give the directories of all parts",
        fmt::join(missing, ", "));
  }
  SLUICE_ASSIGN_OR_RETURN(auto reader, RecordReader::open(*archive));
  return std::make_unique<LocalContents>(std::move(archive), std::move(reader));
}

}  // namespace sluice

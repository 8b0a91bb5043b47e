// A backup whose parts are directories on this machine.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "base/text.h"
#include "control/contents/backup_contents.h"
#include "control/contents/tree_records.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/record_reader.h"
#include "dataplane/block/record.h"

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
      SLUICE_ASSIGN_OR_RETURN(
          const auto record, read_entry(*archive_, *reader_, keys[i], [&](const BlockEntry& entry) {
            if (entry.fragment_offset == 0) value.reserve(entry.value_bytes);
            value.append(entry.fragment);
            return absl::OkStatus();
          }));
      if (record.has_value() && !record->tombstone) values[i] = std::move(value);
    }
    return values;
  }

  // With a reader of its own: the visitor may read.
  absl::Status records(const VisitRecord& visit) override {
    SLUICE_ASSIGN_OR_RETURN(const auto reader, RecordReader::open(*archive_));
    return scan_tree(*reader, {}, nullptr,
                     [&](std::string_view key, std::string_view value, const ListingPlace&) {
                       return visit(key, value);
                     });
  }

 private:
  Mutex mutex_;  // the reader is confined to one thread at a time
  const std::unique_ptr<ArchiveReader> archive_;
  const std::unique_ptr<RecordReader> reader_ SLUICE_PT_GUARDED_BY(mutex_);
  const std::string description_;
};

}  // namespace

absl::StatusOr<uint32_t> number_of(const TreeChoice& choice,
                                   const std::vector<ArchivedTree>& trees) {
  if (choice.tree.empty()) return 0;
  std::vector<std::string> all;
  std::vector<std::string> nodes;
  uint32_t number = 0;
  for (const ArchivedTree& tree : trees) {
    all.push_back(fmt::format("{} of {}", tree.name, tree.node));
    if (tree.name != choice.tree) continue;
    if (!choice.node.empty() && tree.node != choice.node) continue;
    nodes.push_back(tree.node);
    number = tree.number;
  }
  if (nodes.size() == 1) return number;
  if (nodes.empty()) {
    return not_found("it has no tree {}{}{}; it has {}", printable(choice.tree),
                     choice.node.empty() ? "" : " of node ", printable(choice.node),
                     all.empty() ? "none" : fmt::format("{}", fmt::join(all, ", ")));
  }
  return failed_precondition("several nodes have a tree {}: name one of them with --node ({})",
                             choice.tree, fmt::join(nodes, ", "));
}

absl::Status add_slot(const std::string& node, uint32_t slot, const SlotDigest& digest,
                      BackupSlots* slots) {
  if (!is_possible_slot(slot, slots->slot_bits)) {
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
    const std::vector<std::string>& folders, const TreeChoice& choice) {
  SLUICE_ASSIGN_OR_RETURN(auto archive, ArchiveReader::open(folders));
  if (!choice.tree.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const uint32_t number, number_of(choice, archive->manifest().trees));
    SLUICE_ASSIGN_OR_RETURN(archive, ArchiveReader::open(folders, nullptr, number));
  }
  if (const auto missing = archive->missing_parts(); !missing.empty()) {
    return failed_precondition(
        "parts of the archive are missing ({}): give the directories of all parts",
        fmt::join(missing, ", "));
  }
  SLUICE_ASSIGN_OR_RETURN(auto reader, RecordReader::open(*archive));
  return std::make_unique<LocalContents>(std::move(archive), std::move(reader));
}

}  // namespace sluice

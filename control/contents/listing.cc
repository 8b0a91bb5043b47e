#include "control/contents/listing.h"

#include <optional>
#include <utility>

#include "base/status.h"
#include "tree/tree_entry.h"

namespace sluice {

ListedPath::ListedPath(std::string_view path) : below_(path) {
  if (!below_.empty() && !below_.ends_with('/')) below_ += '/';
}

ListedPath::Place ListedPath::place_of(std::string_view path) const {
  if (!path.starts_with(below_)) {
    const bool itself = path.size() + 1 == below_.size() && below_.starts_with(path);
    return itself ? Place::kItself : Place::kOutside;
  }
  return path.find('/', below_.size()) == std::string_view::npos ? Place::kChild : Place::kDeeper;
}

std::string_view ListedPath::child_of(std::string_view path) const {
  return path.substr(0, path.find('/', below_.size()));
}

bool PrefixMemory::is_new(std::string_view path) {
  if (paths_.size() >= kRemembered) paths_.clear();
  return paths_.emplace(path).second;
}

namespace {

// Makes entries of what a scan hands out.
class Lister {
 public:
  Lister(const ArchiveReader& archive, const ContentsListing& listing, const ListingPlace& from,
         const ListingVisitor& visitor)
      : archive_(archive),
        listing_(listing),
        visitor_(visitor),
        path_(listing.path),
        place_(from) {}

  RecordScan scan() {
    RecordScan scan;
    scan.first_slot = place_.slot;
    scan.after = place_.after;
    if (!listing_.slots.empty()) {
      scan.has = [this](uint32_t slot) { return listing_.slots.contains(slot); };
    }
    scan.takes = [this](std::string_view key) {
      const std::string_view shown = archive_.tree() != 0 ? entry_key(key) : key;
      return shown.starts_with(listing_.prefix) && path_.takes_key(shown);
    };
    scan.value_bytes = kMaxTreeEntryBytes;
    scan.skip_damage = listing_.skip_damage;
    scan.before_block = [this](uint32_t slot) {
      if (slot != place_.slot) place_ = {slot, {}};
      return visitor_.block ? visitor_.block(place_) : absl::OkStatus();
    };
    return scan;
  }

  absl::Status take(const ArchivedRecord& record) {
    place_.after = record.key;
    ArchivedRecord shown = record;
    if (archive_.tree() != 0) shown.key = entry_key(record.key);
    std::optional<BackupEntry> entry =
        entry_of(shown, {listing_.digests, listing_.heads, listing_.content_bytes});
    if (!entry.has_value()) return absl::OkStatus();
    if (listing_.linked && !entry->linked) return absl::OkStatus();
    // The root of what was imported without a prefix.
    const bool root = entry->path == "." && entry->type == EntryType::kDirectory;
    auto place = path_.place_of(entry->path);
    if (root && listing_.path.empty() && listing_.children) place = ListedPath::Place::kItself;
    if (place == ListedPath::Place::kOutside) return absl::OkStatus();
    entry->itself = place == ListedPath::Place::kItself;
    if (place == ListedPath::Place::kDeeper && listing_.children) {
      const std::string_view child = path_.child_of(entry->path);
      if (!prefixes_.is_new(child)) return absl::OkStatus();
      BackupEntry prefix;
      prefix.path = child;
      prefix.type = EntryType::kPrefix;
      entry = std::move(prefix);
    }
    entry->node = archive_.parts()[record.part].node;
    return visitor_.entry(*std::move(entry), place_);
  }

 private:
  const ArchiveReader& archive_;
  const ContentsListing& listing_;
  const ListingVisitor& visitor_;
  const ListedPath path_;
  ListingPlace place_;
  PrefixMemory prefixes_;
};

}  // namespace

absl::Status list_archive(const ArchiveReader& archive, RecordReader& reader,
                          const ContentsListing& listing, const ListingPlace& from,
                          const ListingVisitor& visitor) {
  Lister lister(archive, listing, from, visitor);
  return reader.scan(lister.scan(),
                     [&](const ArchivedRecord& record) { return lister.take(record); });
}

}  // namespace sluice

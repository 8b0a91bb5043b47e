#include "control/contents/tar_export.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/status.h"
#include "base/text.h"
#include "control/contents/content_reader.h"
#include "control/contents/entry_spill.h"
#include "dataplane/block/record.h"
#include "tree/pax_writer.h"

namespace sluice {

namespace {

// What an item of the walk is. Of the items of a file's names `target` is the first of the names,
// and `node` the key of the entry that has the content.
enum Item : uint8_t {
  kEntry = 0,
  kFirstName = 1,  // a link that comes before its file: it has the content here
  kOtherName = 2,
  kNamed = 3,  // beside the entry of a file that has other names
};

// Items of links, by the path of the file that they name.
enum LinkItem : uint8_t { kLinkedFile = 0, kLink = 1 };

// First names that are left out; more than a few take a tree that was overwritten by another.
constexpr size_t kMaxNamesLeftOut = 65'536;

class TarExporter {
 public:
  TarExporter(BackupContents& contents, const std::string& path, const TarOutput& output)
      : contents_(contents), path_(path), below_(path), output_(output) {}

  absl::StatusOr<TarExportResult> run() {
    SLUICE_RETURN_IF_ERROR(list());
    SLUICE_RETURN_IF_ERROR(resolve_links());
    SLUICE_RETURN_IF_ERROR(write_items());
    SLUICE_RETURN_IF_ERROR(writer_.finish());
    return result_;
  }

 private:
  // What the walk has at one path.
  struct Place {
    std::optional<BackupEntry> entry;
    std::optional<BackupEntry> name;  // kFirstName, kOtherName or kNamed
    uint8_t name_item = 0;
  };

  absl::Status list();
  absl::Status take(BackupEntry entry);
  absl::Status resolve_links();
  absl::Status resolve_link(BackupEntry link);
  absl::Status find_linked(const BackupEntry& link);
  absl::Status write_items();
  void gather(uint8_t item, BackupEntry entry, Place* place);
  absl::Status write_place(Place place);
  absl::Status write_name(const BackupEntry& entry);
  absl::Status leave_out_name(const std::optional<BackupEntry>& name);
  absl::Status write_entry(const std::string& path, const std::string& key,
                           const BackupEntry& entry);
  absl::Status write_file(const std::string& path, const std::string& key, const TreeEntry& entry);
  absl::Status add_item(uint8_t item, const BackupEntry& entry) {
    return items_.add(item, entry, walk_key(entry.path));
  }
  bool in_scope(std::string_view path) const {
    return below_.place_of(path) != ListedPath::Place::kOutside;
  }
  void count(TreeKind kind);
  absl::Status at(std::string_view path, const absl::Status& status) const {
    return with_context(
        status, fmt::format("'{}' in {}", printable(path, kMaxKeyBytes), contents_.description()));
  }

  BackupContents& contents_;
  const std::string& path_;
  const ListedPath below_;
  const TarOutput& output_;
  absl::Status written_;  // the output's error is not about an entry
  PaxWriter writer_{[this](std::string_view bytes) {
    written_ = output_(bytes);
    return written_;
  }};
  EntrySpill items_;
  EntrySpill links_;
  uint64_t link_count_ = 0;
  // While links are resolved: the file that they name, and the first of its names.
  std::optional<BackupEntry> linked_;
  std::string first_name_;
  // While items are written: what is below of this is left out.
  std::string not_a_directory_;
  // First names that were left out, and the name that has the content in their place, if one does.
  std::map<std::string, std::string> names_left_out_;
  TarExportResult result_;
};

absl::Status TarExporter::list() {
  ContentsListing listing;
  listing.path = path_;
  listing.heads = true;
  listing.content_bytes = kSpilledContent;
  bool found = path_.empty();
  SLUICE_RETURN_IF_ERROR(contents_.list(listing, [&](BackupEntry entry) {
    found = true;
    return take(std::move(entry));
  }));
  if (found) return absl::OkStatus();
  return not_found("'{}' is not in {}", printable(path_, kMaxKeyBytes), contents_.description());
}

absl::Status TarExporter::take(BackupEntry entry) {
  if (entry.type == EntryType::kPrefix) return absl::OkStatus();
  if (entry.type == EntryType::kRecord || !is_file_path(entry)) {
    ++result_.records_left_out;
    return absl::OkStatus();
  }
  const auto head = parse_tree_head(entry.value);
  if (!head.ok()) {
    // An earlier version of the program sends no values.
    if (!entry.value.empty()) return at(entry.path, head.status());
    return failed_precondition("node {}: it runs an earlier version of sluice; use --archive",
                               entry.node);
  }
  if (entry.type != EntryType::kHardLink) {
    if (head->extras.linked) {
      SLUICE_RETURN_IF_ERROR(links_.add(kLinkedFile, entry, entry.path + '\0'));
    }
    return add_item(kEntry, entry);
  }
  if (entry.target.empty()) return at(entry.path, data_loss("a hard link that names nothing"));
  ++link_count_;
  return links_.add(kLink, entry, entry.target + '\0' + walk_key(entry.path));
}

absl::Status TarExporter::resolve_links() {
  if (link_count_ == 0) return absl::OkStatus();
  return links_.drain([&](uint8_t item, BackupEntry entry) {
    if (item == kLink) return resolve_link(std::move(entry));
    linked_ = std::move(entry);
    first_name_.clear();
    return absl::OkStatus();
  });
}

// One that is not below the path, or that no flag says links of.
absl::Status TarExporter::find_linked(const BackupEntry& link) {
  linked_.reset();
  first_name_.clear();
  SLUICE_ASSIGN_OR_RETURN(BackupContents::Values values, contents_.read({link.target}));
  const auto gone = [&] {
    return at(link.path, data_loss("its content, which '{}' had, is not in the backup",
                                   printable(link.target, kMaxKeyBytes)));
  };
  if (!values.at(0).has_value() || !parse_tree_entry(*values[0]).ok()) return gone();
  linked_.emplace();
  linked_->path = link.target;
  linked_->value = *std::move(values[0]);
  linked_->whole = true;
  return absl::OkStatus();
}

absl::Status TarExporter::resolve_link(BackupEntry link) {
  if (!linked_.has_value() || linked_->path != link.target) {
    SLUICE_RETURN_IF_ERROR(find_linked(link));
  }
  SLUICE_ASSIGN_OR_RETURN(const TreeEntry file, parse_tree_head(linked_->value));
  SLUICE_ASSIGN_OR_RETURN(const TreeEntry parsed, parse_tree_entry(link.value));
  if (!is_linked_by(file, parsed.header)) {
    return at(link.path, data_loss("its content, which '{}' had, is not in the backup",
                                   printable(link.target, kMaxKeyBytes)));
  }
  const bool first = first_name_.empty();
  link.node = link.target;
  // Of a file's names one alone has the content with it.
  const bool whole = linked_->whole;
  if (whole) {
    SLUICE_ASSIGN_OR_RETURN(const TreeEntry all, parse_tree_entry(linked_->value));
    link.value = linked_->value.substr(0, linked_->value.size() - all.content.size());
  } else {
    link.value = linked_->value;
  }
  link.whole = false;
  if (first) {
    // Links come in the order of the walk.
    const bool file_is_first = in_scope(link.target) && walk_key(link.target) < walk_key(link.path);
    first_name_ = file_is_first ? link.target : link.path;
    if (in_scope(link.target)) {
      BackupEntry named = link;
      named.path = link.target;
      named.target = first_name_;
      SLUICE_RETURN_IF_ERROR(add_item(kNamed, named));
    }
  }
  link.target = first_name_;
  if (link.path != first_name_) return add_item(kOtherName, link);
  link.value = linked_->value;
  link.whole = whole;
  return add_item(kFirstName, link);
}

// Of several entries with one path a directory stays, as there may be something below, and of two
// directories (two trees were imported there) the one that was changed last.
void TarExporter::gather(uint8_t item, BackupEntry entry, Place* place) {
  if (item != kEntry) {
    place->name_item = item;
    place->name = std::move(entry);
    return;
  }
  if (!place->entry.has_value()) {
    place->entry = std::move(entry);
    return;
  }
  ++result_.superseded;
  BackupEntry& before = *place->entry;
  const bool directory = entry.type == EntryType::kDirectory;
  const bool other = (before.type == EntryType::kDirectory) != directory;
  if (other ? directory : entry.mtime_ns > before.mtime_ns) before = std::move(entry);
}

absl::Status TarExporter::write_items() {
  Place place;
  std::string path;
  const absl::Status drained = items_.drain([&](uint8_t item, BackupEntry entry) -> absl::Status {
    if (entry.path != path) {
      SLUICE_RETURN_IF_ERROR(write_place(std::exchange(place, {})));
      path = entry.path;
    }
    gather(item, std::move(entry), &place);
    return absl::OkStatus();
  });
  SLUICE_RETURN_IF_ERROR(drained);
  return write_place(std::move(place));
}

// What was the first name of others has no content now: the next of them gets it.
absl::Status TarExporter::leave_out_name(const std::optional<BackupEntry>& name) {
  if (!name.has_value() || name->target != name->path) return absl::OkStatus();
  if (names_left_out_.size() == kMaxNamesLeftOut) {
    return resource_exhausted(
        "more than {} files with several names lie below what is not a directory; import the tree "
        "with --mirror, and back it up again",
        kMaxNamesLeftOut);
  }
  names_left_out_.emplace(name->path, "");
  return absl::OkStatus();
}

absl::Status TarExporter::write_place(Place place) {
  if (!place.entry.has_value() && !place.name.has_value()) return absl::OkStatus();
  const std::string path = place.entry.has_value() ? place.entry->path : place.name->path;
  const bool below = !not_a_directory_.empty() && path.size() > not_a_directory_.size() &&
                     path.starts_with(not_a_directory_) && path[not_a_directory_.size()] == '/';
  if (below) {
    ++result_.superseded;
    return leave_out_name(place.name);
  }
  if (place.entry.has_value() && place.entry->type == EntryType::kDirectory) {
    if (place.name.has_value() && place.name_item != kNamed) ++result_.superseded;
    SLUICE_RETURN_IF_ERROR(leave_out_name(place.name));
    place.name.reset();
  } else {
    not_a_directory_ = path;
  }
  if (place.name_item == kNamed && place.name.has_value() && place.entry.has_value()) {
    place.name->value = std::move(place.entry->value);
    place.name->whole = place.entry->whole;
  }
  const absl::Status status =
      place.name.has_value() ? write_name(*place.name) : write_entry(path, path, *place.entry);
  SLUICE_RETURN_IF_ERROR(written_);
  return status.ok() ? status : at(path, status);
}

void TarExporter::count(TreeKind kind) {
  switch (kind) {
    case TreeKind::kDirectory:
      ++result_.directories;
      break;
    case TreeKind::kFile:
      ++result_.files;
      break;
    case TreeKind::kLink:
      ++result_.links;
      break;
    default:
      ++result_.specials;
      break;
  }
}

absl::Status TarExporter::write_name(const BackupEntry& entry) {
  std::string first = entry.target;
  if (const auto found = names_left_out_.find(first); found != names_left_out_.end()) {
    if (found->second.empty()) {
      found->second = entry.path;
      return write_entry(entry.path, entry.node, entry);
    }
    first = found->second;
  }
  if (first == entry.path) return write_entry(entry.path, entry.node, entry);
  SLUICE_ASSIGN_OR_RETURN(const TreeEntry head, parse_tree_head(entry.value));
  ++result_.hard_links;
  count(head.header.kind);
  // Its target is not part of the head.
  FileMetadata metadata = metadata_of(head);
  metadata.target.clear();
  return writer_.add_hard_link(entry.path, first, metadata);
}

absl::Status TarExporter::write_entry(const std::string& path, const std::string& key,
                                      const BackupEntry& entry) {
  std::string value = entry.value;
  if (!entry.whole) {
    SLUICE_ASSIGN_OR_RETURN(BackupContents::Values values, contents_.read({key}));
    if (!values.at(0).has_value()) return data_loss("its record is not in the backup");
    value = *std::move(values[0]);
  }
  SLUICE_ASSIGN_OR_RETURN(const TreeEntry parsed, parse_tree_entry(value));
  count(parsed.header.kind);
  if (parsed.header.kind == TreeKind::kFile) return write_file(path, key, parsed);
  const FileMetadata metadata = metadata_of(parsed);
  if (parsed.header.kind == TreeKind::kLink) {
    if (xxh3_128(parsed.content) != parsed.header.digest) {
      return data_loss("its target does not have its digest");
    }
    if (metadata.target.find('\0') != std::string::npos) {
      return data_loss("its target has a NUL byte");
    }
  }
  return writer_.add(path, metadata);
}

absl::Status TarExporter::write_file(const std::string& path, const std::string& key,
                                     const TreeEntry& entry) {
  const TreeHeader& header = entry.header;
  SparseMap map;
  if (!header.sparse) {
    map.add({0, header.size});
  } else if (header.chunks() == 1) {
    for (const Extent& extent : entry.extras.extents) map.add(extent);
  } else {
    SLUICE_RETURN_IF_ERROR(
        read_file_data(contents_, key, entry, [&](uint64_t offset, std::string_view bytes) {
          map.add({offset, bytes.size()});
          return absl::OkStatus();
        }));
  }
  SLUICE_RETURN_IF_ERROR(writer_.begin_file(path, metadata_of(entry), map));
  SLUICE_RETURN_IF_ERROR(
      read_file_data(contents_, key, entry, [&](uint64_t offset, std::string_view bytes) {
        result_.bytes += bytes.size();
        return writer_.write(offset, bytes);
      }));
  return writer_.end_file();
}

}  // namespace

absl::StatusOr<TarExportResult> export_tar(BackupContents& contents, const std::string& path,
                                           const TarOutput& output) {
  return TarExporter(contents, path, output).run();
}

}  // namespace sluice

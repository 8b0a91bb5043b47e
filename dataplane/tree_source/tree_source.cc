#include "dataplane/tree_source/tree_source.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/status.h"
#include "dataplane/block/record.h"
#include "tree/entry_reader.h"
#include "tree/tree_entry.h"

namespace sluice {
namespace {

// Longer than that of any of an entry's records.
constexpr size_t kMaxSuffixBytes = 16;

Version version_of(const FileIdentity& identity) {
  const int64_t ms = std::max<int64_t>(identity.ctime_ns / kMs, 0);
  return {Version::make_stamp(static_cast<uint64_t>(ms), 0), 0};
}

}  // namespace

// Notes what there is in the catalogue.
class TreeSource::Look final : public TreeScanHandler {
 public:
  Look(TreeSource& source, const std::function<bool()>& is_stopped)
      : source_(source), is_stopped_(is_stopped) {}

  bool on_entry(ScannedEntry entry) override {
    if (entry.path.size() + kMaxSuffixBytes > kMaxKeyBytes) {
      source_.note(&TreeReport::unreadable, entry.path,
                   fmt::format("its path has {} bytes; at most {} can be kept", entry.path.size(),
                               kMaxKeyBytes - kMaxSuffixBytes));
      return false;
    }
    const absl::Status noted = source_.options_.catalogue->note(
        entry.path, {entry.metadata.type, entry.identity, entry.metadata.size, std::nullopt});
    if (!noted.ok()) {
      status_ = noted;
      return false;
    }
    count(entry.metadata);
    return true;
  }
  void on_left_out(const std::string&, LeftOut why) override {
    const MutexLock lock(source_.mutex_);
    switch (why) {
      case LeftOut::kExcluded:
        ++source_.report_.excluded;
        break;
      case LeftOut::kOtherFileSystem:
        ++source_.report_.other_file_systems;
        break;
      case LeftOut::kLoop:
        ++source_.report_.loops;
        break;
      case LeftOut::kSocket:
        ++source_.report_.sockets;
        break;
    }
  }
  void on_failed(const std::string& path, std::string reason) override {
    source_.note(&TreeReport::unreadable, path, reason);
  }
  bool stopped() override {
    if (status_.ok() && is_stopped_ && is_stopped_()) status_ = cancelled("cancelled");
    return !status_.ok();
  }
  const absl::Status& status() const { return status_; }

 private:
  void count(const FileMetadata& metadata) {
    const MutexLock lock(source_.mutex_);
    TreeReport& report = source_.report_;
    switch (metadata.type) {
      case FileType::kFile:
        ++report.files;
        report.bytes += metadata.size;
        break;
      case FileType::kDirectory:
        ++report.directories;
        break;
      case FileType::kLink:
        ++report.links;
        break;
      default:
        ++report.specials;
    }
  }

  TreeSource& source_;
  const std::function<bool()>& is_stopped_;
  absl::Status status_;
};

// The records of a shard's entries.
class TreeSource::Scan final : public SlotScan {
 public:
  Scan(TreeSource& source, uint32_t shard)
      : source_(source),
        cursor_(source.options_.catalogue->entries(shard)),
        reader_(source.root_.get(), source.names_, [&source](const FileId& file) {
          return source.options_.catalogue->names_of(file);
        }) {}

  absl::StatusOr<bool> next(Item* item) override {
    for (;;) {
      if (!reading_) {
        SLUICE_ASSIGN_OR_RETURN(const bool more, cursor_->next(&path_, &noted_));
        if (!more) return false;
        begin();
        continue;
      }
      const absl::StatusOr<bool> more = reader_.next();
      if (!more.ok()) {
        fail(more.status());
      } else if (!*more) {
        SLUICE_RETURN_IF_ERROR(end());
      } else {
        *item = record();
        return true;
      }
    }
  }

  absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
    const std::string& value = reader_.value();
    if (offset > value.size() || into.size() > value.size() - offset) {
      return out_of_range("{} bytes from {} of a value of {}", into.size(), offset, value.size());
    }
    std::memcpy(into.data(), value.data() + offset, into.size());
    return absl::OkStatus();
  }

 private:
  void begin() {
    digest_ = {};
    reading_ = true;
    if (const absl::Status begun = reader_.begin(path_, id_of(noted_.identity)); !begun.ok()) {
      fail(begun);
    }
  }

  Item record() {
    Item item;
    item.key = reader_.key();
    item.inline_value = reader_.value();
    item.summary = {version_of(reader_.identity()), false, item.inline_value.size(),
                    xxh3_128(item.inline_value)};
    digest_.add(item.key, item.summary);
    return item;
  }

  void count_read() {
    const MutexLock lock(source_.mutex_);
    source_.report_.bytes_read += reader_.bytes_read();
  }

  // What came of the entry is in the backup; without the record that counts it is nothing.
  void fail(const absl::Status& why) {
    reading_ = false;
    count_read();
    if (!absl::IsNotFound(why)) return source_.note(&TreeReport::failed, path_, message_of(why));
    source_.note(&TreeReport::vanished, path_, message_of(why));
    if (noted_.type == FileType::kDirectory || noted_.identity.links < 2) return;
    const auto names = source_.options_.catalogue->names_of(id_of(noted_.identity));
    if (!names.ok() || !names->has_value() || (*names)->first != path_) return;
    source_.note(
        &TreeReport::failed, path_,
        "it went while the tree was read; further names of the file may be without content");
  }

  absl::Status end() {
    reading_ = false;
    count_read();
    CatalogueEntry read{reader_.type(), reader_.identity(), reader_.size(), std::nullopt};
    if (reader_.changed()) {
      source_.note(&TreeReport::changed, path_, "it changed each time while it was read");
    } else if (read.type == FileType::kDirectory || read.identity.links < 2) {
      // What a file of several names is read as depends on where the others are.
      read.digest = digest_;
    }
    return source_.options_.catalogue->keep(path_, noted_, read);
  }

  TreeSource& source_;
  const std::unique_ptr<TreeCatalogue::Cursor> cursor_;
  EntryReader reader_;
  bool reading_ = false;
  std::string path_;
  CatalogueEntry noted_;
  SlotDigest digest_;  // of the entry's records so far
};

absl::StatusOr<std::unique_ptr<TreeSource>> TreeSource::open(const TreeSourceOptions& options) {
  if (options.number < 1 || options.number > kMaxTreeNumber) {
    return invalid_argument("a tree of number {}", options.number);
  }
  auto source = std::unique_ptr<TreeSource>(new TreeSource(options));
  source->root_.reset(::open(options.root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!source->root_) return errno_status(errno, fmt::format("open directory {}", options.root));
  return source;
}

absl::Status TreeSource::look(bool rescan, const std::function<bool()>& stopped) {
  {
    const MutexLock lock(mutex_);
    report_ = {};
    shards_.clear();
  }
  SLUICE_RETURN_IF_ERROR(options_.catalogue->begin_look(rescan));
  Look look(*this, stopped);
  SLUICE_RETURN_IF_ERROR(TreeScanner(root_.get(), options_.scan, names_, look).run());
  SLUICE_RETURN_IF_ERROR(look.status());
  SLUICE_ASSIGN_OR_RETURN(TreeShards shards, options_.catalogue->end_look());
  const MutexLock lock(mutex_);
  shards_ = std::move(shards);
  return absl::OkStatus();
}

absl::Status TreeSource::take_last_look() {
  SLUICE_ASSIGN_OR_RETURN(TreeShards shards, options_.catalogue->shards());
  const MutexLock lock(mutex_);
  shards_ = std::move(shards);
  return absl::OkStatus();
}

TreeShards TreeSource::shards() const {
  const MutexLock lock(mutex_);
  return shards_;
}

TreeReport TreeSource::report() const {
  const MutexLock lock(mutex_);
  return report_;
}

void TreeSource::note(TreePaths TreeReport::*where, const std::string& path, std::string_view why) {
  const MutexLock lock(mutex_);
  TreePaths& paths = report_.*where;
  // A slot may be scanned more than once.
  if (const auto known = paths.first.find(path); known != paths.first.end()) {
    known->second = why;
    return;
  }
  ++paths.count;
  if (paths.first.size() < TreePaths::kMax) paths.first.emplace(path, why);
}

std::optional<uint32_t> TreeSource::shard_of_slot(uint32_t slot) const {
  if (tree_number_of(slot) != options_.number) return std::nullopt;
  return shard_of(slot);
}

bool TreeSource::has(uint32_t slot) const {
  return tree_number_of(slot) == options_.number && is_possible_slot(slot, options_.slot_bits);
}

std::unique_ptr<SlotScan> TreeSource::scan(uint32_t slot) {
  return std::make_unique<Scan>(*this, shard_of(slot));
}

std::optional<SlotDigest> TreeSource::known_digest(uint32_t slot) const {
  const auto shard = shard_of_slot(slot);
  const MutexLock lock(mutex_);
  const auto found = shard.has_value() ? shards_.find(*shard) : shards_.end();
  if (found == shards_.end() || !found->second.known) return std::nullopt;
  return found->second.digest;
}

}  // namespace sluice

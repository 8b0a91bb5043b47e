#include <fcntl.h>
#include <tbb/parallel_pipeline.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/status.h"
#include "dataplane/archive/folder.h"
#include "dataplane/archive/part_identity.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/segment_reader.h"
#include "dataplane/archive/slot_check.h"

namespace sluice {
namespace {

// One folder and the part that it holds, as far as that can be told.
struct Folder {
  std::string path;
  std::vector<std::string> names;
  std::string manifest_bytes;  // empty when missing or damaged
  bool foreign = false;  // a whole part of another archive: not checked by this one's manifest
  std::optional<PartManifest> part;
  std::map<uint32_t, SegmentIndex> indexes;  // the usable ones
  bool index_lost = false;                   // some segment's blocks are not known
};

struct Place {
  size_t folder;
  BlockLocation location;
};

const std::vector<PartManifest> kNoParts;
constexpr int kMostVerifyThreads = 4;

// A block that is read ahead, and what became of it.
struct Read {
  BlockBuffer buffer;
  absl::Status status;
};

class Verifier {
 public:
  // One of the buffers is for what is looked at besides the blocks in turn.
  Verifier(const std::function<bool(uint64_t, uint64_t)>& progress,
           std::vector<BlockBuffer> buffers, const ArchivePartId* expected)
      : progress_(progress),
        buffer_(std::move(buffers.back())),
        expected_(expected),
        reads_(buffers.size() - 1) {
    for (size_t i = 0; i < reads_.size(); ++i) reads_[i].buffer = std::move(buffers[i]);
  }

  absl::StatusOr<VerifyReport> run(const std::vector<std::string>& folders);

 private:
  absl::Status load_folder(const std::string& path);
  void choose_manifest();
  bool is_expected();
  absl::Status find_part(Folder& folder);
  void guess_part(Folder& folder);
  void check_parts();
  void check_names(const Folder& folder);
  absl::Status load_index(Folder& folder, const SegmentSummary& summary);
  void check_segment(size_t number, const SegmentIndex& index);
  void check_blocks(size_t number, int fd, const std::string& file, const SegmentIndex& index);
  void check_gap(int fd, const std::string& file, uint64_t from, uint64_t to);
  void check_one(size_t folder, int fd, const std::string& file, const BlockLocation& location,
                 const Read& read);
  std::string describe(int fd, const std::string& file, const BlockLocation& location,
                       const absl::Status& status);
  void walk_segment(int fd, const std::string& file);
  void finish_slot(const Folder& folder, uint32_t slot, const SlotCheck& check);
  void check_slots(size_t number);
  void name_displaced();

  void problem(const std::string& file, uint64_t offset, int64_t slot, std::string reason) {
    report_.bad.push_back({file, offset, slot, std::move(reason)});
  }
  void problem(const std::string& file, uint64_t offset, int64_t slot, const absl::Status& status);
  // The directory that is taken for the node's part; null where there is none.
  const Folder* claiming(const std::string& node) const {
    const auto found = std::find_if(folders_.begin(), folders_.end(), [&node](const Folder& each) {
      return each.part.has_value() && each.part->node == node;
    });
    return found == folders_.end() ? nullptr : &*found;
  }

  const std::function<bool(uint64_t, uint64_t)>& progress_;
  BlockBuffer buffer_;
  const ArchivePartId* const expected_;
  std::vector<Read> reads_;
  VerifyReport report_;
  std::vector<Folder> folders_;
  std::optional<Manifest> manifest_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  std::unordered_map<uint64_t, Place> places_;  // by checksum: to tell where a block belongs
  std::map<uint32_t, SlotCheck> slots_;         // of the part being checked
  std::map<uint32_t, uint32_t> slot_blocks_;    // how many blocks each of them has
  std::atomic<bool> cancelled_{false};
  bool displaced_ = false;  // in the segment being checked
  // In segments with displaced blocks: problems of blocks that are not where they belong, with the
  // block's checksum; and where which block was found there.
  using Absent = std::vector<std::pair<size_t, uint64_t>>;
  Absent absent_here_;
  Absent absent_;
  std::unordered_map<uint64_t, std::string> found_;
};

absl::StatusOr<VerifyReport> Verifier::run(const std::vector<std::string>& folders) {
  for (const std::string& path : folders) SLUICE_RETURN_IF_ERROR(load_folder(path));
  choose_manifest();
  if (!is_expected()) return std::move(report_);
  for (Folder& folder : folders_) SLUICE_RETURN_IF_ERROR(find_part(folder));
  for (Folder& folder : folders_) guess_part(folder);
  check_parts();
  for (Folder& folder : folders_) {
    if (!folder.part.has_value()) continue;
    check_names(folder);
    for (const SegmentSummary& segment : folder.part->segments) {
      SLUICE_RETURN_IF_ERROR(load_index(folder, segment));
    }
  }
  for (size_t i = 0; i < folders_.size(); ++i) {
    for (const auto& [number, index] : folders_[i].indexes) {
      total_ += index.segment_bytes;
      for (const BlockLocation& block : index.blocks) places_.insert({block.checksum, {i, block}});
    }
  }
  for (size_t i = 0; i < folders_.size(); ++i) {
    for (const auto& [number, index] : folders_[i].indexes) {
      for (const BlockLocation& block : index.blocks) ++slot_blocks_[block.slot];
    }
    for (const auto& [number, index] : folders_[i].indexes) {
      check_segment(i, index);
      if (cancelled_) return cancelled("the check was cancelled");
    }
    check_slots(i);
  }
  name_displaced();
  return std::move(report_);
}

// What is missing or fails a check is damage; what the system refuses to read is not known to be.
void Verifier::problem(const std::string& file, uint64_t offset, int64_t slot,
                       const absl::Status& status) {
  const bool damage = absl::IsNotFound(status) || absl::IsDataLoss(status);
  (damage ? report_.bad : report_.unreadable)
      .push_back({file, offset, slot,
                  absl::IsNotFound(status) ? "missing" : std::string(message_of(status))});
}

// A file of the archive that has to be there. DATA_LOSS where it is something else, or too long.
absl::StatusOr<std::string> load_file(const std::string& file, size_t limit) {
  SLUICE_ASSIGN_OR_RETURN(const uint64_t size, file_bytes(file));
  if (size > limit) return data_loss("too long: {} bytes, at most {}", size, limit);
  return read_file(file, limit);
}

absl::Status Verifier::load_folder(const std::string& path) {
  Folder folder;
  folder.path = path;
  SLUICE_ASSIGN_OR_RETURN(folder.names, list_folder(path));
  const auto has = [&folder](std::string_view name) {
    return std::find(folder.names.begin(), folder.names.end(), name) != folder.names.end();
  };
  if (std::none_of(folder.names.begin(), folder.names.end(), is_archive_file)) {
    return not_found("{} holds no archive", path);
  }
  const std::string file = path + "/" + kManifestFile;
  if (!has(kManifestFile)) {
    if (has(kJournalFile) && expected_ == nullptr)
      return failed_precondition("{} holds an unfinished backup", path);
    problem(file, 0, -1, has(kRemovedFile) ? "missing: the part's deletion was begun" : "missing");
  } else {
    auto bytes = load_file(file, kMaxManifestBytes);
    const absl::Status status = bytes.ok() ? Manifest::decode(*bytes).status() : bytes.status();
    if (bytes.ok() && absl::IsFailedPrecondition(status)) return with_context(status, file);
    if (status.ok()) {
      folder.manifest_bytes = *std::move(bytes);
    } else {
      problem(file, 0, -1, status);
    }
  }
  folders_.push_back(std::move(folder));
  return absl::OkStatus();
}

// The one that most folders hold; the first of them when there is no most.
void Verifier::choose_manifest() {
  const Folder* best = nullptr;
  std::ptrdiff_t best_count = 0;
  for (const Folder& folder : folders_) {
    if (folder.manifest_bytes.empty()) continue;
    const auto count = std::count_if(
        folders_.begin(), folders_.end(),
        [&folder](const Folder& other) { return other.manifest_bytes == folder.manifest_bytes; });
    if (count > best_count) {
      best = &folder;
      best_count = count;
    }
  }
  if (best == nullptr) return;
  manifest_ = *Manifest::decode(best->manifest_bytes);
  for (Folder& folder : folders_) {
    if (folder.manifest_bytes.empty() || folder.manifest_bytes == best->manifest_bytes) continue;
    std::string reason = fmt::format("differs from the manifest in {}", best->path);
    const Manifest other = *Manifest::decode(folder.manifest_bytes);
    if (other.identity != manifest_->identity) {
      reason += fmt::format(": it is of backup {} ({}) of cluster {}, the other one of {} ({})",
                            other.identity.name, other.identity.backup, other.identity.cluster,
                            manifest_->identity.name, manifest_->identity.backup);
      folder.foreign = true;
    }
    problem(folder.path + "/" + kManifestFile, 0, -1, std::move(reason));
  }
}

// Whether the directory's manifest is the one that was asked for. One that is damaged or missing
// was reported, and says nothing against the rest.
bool Verifier::is_expected() {
  if (expected_ == nullptr || !manifest_.has_value()) return true;
  const ArchiveIdentity& identity = manifest_->identity;
  const ArchivePartId id{identity.cluster, identity.backup, "",
                         xxh3_128(folders_[0].manifest_bytes)};
  const absl::Status status = check_identity(
      folders_[0].path, {FoundPart::State::kFinished, id, identity.name}, *expected_);
  if (!status.ok()) problem(folders_[0].path + "/" + kManifestFile, 0, -1, status);
  return status.ok();
}

absl::Status Verifier::find_part(Folder& folder) {
  const std::string file = folder.path + "/" + kPartFile;
  const auto bytes = load_file(file, kMaxManifestBytes);
  if (!bytes.ok()) {
    problem(file, 0, -1, bytes.status());
    return absl::OkStatus();
  }
  auto part = PartManifest::decode(*bytes);
  if (part.status().code() == absl::StatusCode::kFailedPrecondition) {
    return with_context(part.status(), file);
  }
  if (!part.ok()) {
    problem(file, 0, -1, part.status());
    return absl::OkStatus();
  }
  if (expected_ != nullptr && part->node != expected_->node) {
    problem(file, 0, -1,
            fmt::format("is of the part of node {}, expected that of node {}", part->node,
                        expected_->node));
    folder.foreign = true;
    return absl::OkStatus();
  }
  const PartManifest* named = nullptr;
  for (const PartManifest& each : manifest_.has_value() ? manifest_->parts : kNoParts) {
    if (each.node == part->node) named = &each;
  }
  const bool same = named != nullptr && named->encode() == *bytes;
  // Its manifest was reported; what is in it belongs to that one.
  if (folder.foreign && !same) return absl::OkStatus();
  folder.foreign = false;
  if (const Folder* other = claiming(part->node); other != nullptr) {
    problem(file, 0, -1,
            fmt::format("another directory holds the part of node {} too: {}", part->node,
                        other->path));
    return absl::OkStatus();
  }
  if (manifest_.has_value()) {
    if (named == nullptr) {
      problem(file, 0, -1, fmt::format("the manifest has no part of node {}", part->node));
      return absl::OkStatus();
    }
    if (!same) problem(file, 0, -1, "is not the part that the manifest names");
    part = *named;
  }
  folder.part = *std::move(part);
  return absl::OkStatus();
}

// For a folder whose part file is of no use: the part whose index it holds, or the one that is
// left.
void Verifier::guess_part(Folder& folder) {
  if (folder.part.has_value() || folder.foreign || !manifest_.has_value()) return;
  std::vector<const PartManifest*> left;
  for (const PartManifest& part : manifest_->parts) {
    if (claiming(part.node) != nullptr) continue;
    if (expected_ != nullptr && part.node != expected_->node) continue;
    left.push_back(&part);
    if (part.segments.empty()) continue;
    const auto index =
        read_file(folder.path + "/" + index_file(part.segments[0].number), kMaxIndexBytes);
    if (index.ok() && xxh3_128(*index) == part.segments[0].index_digest) {
      folder.part = part;
      return;
    }
  }
  if (left.size() == 1) folder.part = *left[0];
}

void Verifier::check_parts() {
  if (!manifest_.has_value()) return;
  for (const PartManifest& part : manifest_->parts) {
    if (claiming(part.node) != nullptr) continue;
    if (expected_ != nullptr && part.node != expected_->node) continue;
    problem(folders_[0].path + "/" + kManifestFile, 0, -1,
            fmt::format("the part of node {} is missing", part.node));
  }
}

void Verifier::check_names(const Folder& folder) {
  std::set<std::string> known{kManifestFile, kPartFile, kJournalFile};
  for (const SegmentSummary& segment : folder.part->segments) {
    known.insert(segment_file(segment.number));
    known.insert(index_file(segment.number));
  }
  for (const std::string& name : folder.names) {
    if (!known.contains(name))
      problem(folder.path + "/" + name, 0, -1, "stray: not of this archive");
  }
}

absl::Status Verifier::load_index(Folder& folder, const SegmentSummary& summary) {
  const std::string file = folder.path + "/" + index_file(summary.number);
  const auto bytes = load_file(file, kMaxIndexBytes);
  if (!bytes.ok()) {
    problem(file, 0, -1, bytes.status());
    folder.index_lost = true;
    return absl::OkStatus();
  }
  const bool named =
      bytes->size() == summary.index_bytes && xxh3_128(*bytes) == summary.index_digest;
  auto index = SegmentIndex::decode(*bytes);
  if (index.status().code() == absl::StatusCode::kFailedPrecondition) {
    return with_context(index.status(), file);
  }
  if (!index.ok()) {
    problem(file, 0, -1, std::string(message_of(index.status())));
  } else if (!named) {
    problem(file, 0, -1, "is not the index that the manifest names");
  } else if (index->number != summary.number || index->node != folder.part->node ||
             index->segment_bytes != summary.bytes || index->blocks.size() != summary.blocks ||
             (manifest_.has_value() && index->backup != manifest_->identity.backup)) {
    problem(file, 0, -1, "does not agree with the manifest");
  }
  if (index.ok() && index->number == summary.number) {
    folder.indexes.emplace(summary.number, *std::move(index));
  } else {
    folder.index_lost = true;
  }
  return absl::OkStatus();
}

void Verifier::check_segment(size_t number, const SegmentIndex& index) {
  const std::string file = folders_[number].path + "/" + segment_file(index.number);
  const auto size = file_bytes(file);
  auto fd = open_direct(file, O_RDONLY);
  if (!size.ok() || !fd.ok()) {
    problem(file, 0, -1, size.ok() ? fd.status() : size.status());
    for (const BlockLocation& block : index.blocks) slots_[block.slot].skip_block();
    return;
  }
  displaced_ = *size != index.segment_bytes;
  if (displaced_) {
    problem(file, std::min(*size, index.segment_bytes), -1,
            fmt::format("{}: {} bytes instead of {}",
                        *size < index.segment_bytes ? "truncated" : "too long", *size,
                        index.segment_bytes));
  }
  absent_here_.clear();
  check_blocks(number, fd->get(), file, index);
  if (cancelled_ || !displaced_) return;
  absent_.insert(absent_.end(), absent_here_.begin(), absent_here_.end());
  walk_segment(fd->get(), file);
}

// Blocks are read and checked several at a time; slots are put together from them in order, by one
// thread at a time. A read's place is free again when the one that many blocks before it is done
// with.
void Verifier::check_blocks(size_t number, int fd, const std::string& file,
                            const SegmentIndex& index) {
  const uint32_t slot_bits = manifest_.has_value() ? manifest_->identity.slot_bits : 0;
  size_t next = 0;
  uint64_t end = 0;
  const auto pick = [&](tbb::flow_control& control) {
    if (next == index.blocks.size() || cancelled_) {
      control.stop();
      return next;
    }
    return next++;
  };
  const auto check = [&](size_t at) {
    const BlockLocation& block = index.blocks[at];
    Read& read = reads_[at % reads_.size()];
    read.status = read_padded(fd, block, read.buffer.span(), file);
    if (read.status.ok()) {
      read.status = check_block(block, slot_bits, read.buffer.span().first(padded(block.bytes)));
    }
    return at;
  };
  const auto take = [&](size_t at) {
    if (cancelled_) return;
    const BlockLocation& block = index.blocks[at];
    if (end < block.offset) check_gap(fd, file, end, block.offset);
    check_one(number, fd, file, block, reads_[at % reads_.size()]);
    end = block.offset + padded(block.bytes);
    done_ += padded(block.bytes);
    if (progress_ && !progress_(done_, total_)) cancelled_ = true;
  };
  // Waking other threads for a few blocks costs more than they would save.
  if (index.blocks.size() <= reads_.size()) {
    while (next < index.blocks.size() && !cancelled_) take(check(next++));
    return;
  }
  constexpr auto kInOrder = tbb::filter_mode::serial_in_order;
  tbb::parallel_pipeline(reads_.size(),
                         tbb::make_filter<void, size_t>(kInOrder, pick) &
                             tbb::make_filter<size_t, size_t>(tbb::filter_mode::parallel, check) &
                             tbb::make_filter<size_t, void>(kInOrder, take));
}

// What is between blocks was cleared when the archive was finished.
void Verifier::check_gap(int fd, const std::string& file, uint64_t from, uint64_t to) {
  for (uint64_t at = from; at < to;) {
    const auto room = static_cast<size_t>(std::min<uint64_t>(to - at, kMaxBlockBytes));
    const auto got = read_at(fd, at, buffer_.span().first(room), file);
    if (!got.ok() || *got < room) {
      problem(file, at, -1, got.ok() ? data_loss("truncated") : got.status());
      return;
    }
    if (!is_zero(buffer_.span().first(room)))
      problem(file, at, -1, "bytes between blocks are not zero");
    at += room;
    done_ += room;
  }
}

void Verifier::check_one(size_t folder, int fd, const std::string& file,
                         const BlockLocation& location, const Read& read) {
  SlotCheck& slot = slots_[location.slot];
  if (!read.status.ok()) {
    slot.skip_block();
    if (absl::IsDataLoss(read.status)) {
      const size_t at = report_.bad.size();
      problem(file, location.offset, location.slot, describe(fd, file, location, read.status));
      absent_here_.emplace_back(at, location.checksum);
    } else {
      problem(file, location.offset, location.slot, read.status);
    }
  } else {
    ++report_.blocks;
    report_.bytes += location.bytes;
    const uint64_t newest = manifest_.has_value() ? manifest_->newest_stamp : ~uint64_t{0};
    const absl::Status records =
        slot.add_block(location, read.buffer.span().first(location.bytes), newest);
    if (!records.ok()) {
      problem(file, location.offset, location.slot, records);
    }
  }
  if (slot.blocks() == slot_blocks_[location.slot]) {
    finish_slot(folders_[folder], location.slot, slot);
    slot_blocks_.erase(location.slot);
    slots_.erase(location.slot);
  }
}

// Names the block that stands where another belongs. It may be longer than that one.
std::string Verifier::describe(int fd, const std::string& file, const BlockLocation& location,
                               const absl::Status& status) {
  std::string reason(message_of(status));
  const auto got = read_at(fd, location.offset, buffer_.span().first(kMaxBlockBytes), file);
  if (!got.ok()) return reason;
  const auto reader = BlockReader::open(buffer_.span().first(*got));
  if (!reader.ok() || reader->header().checksum == location.checksum) return reason;
  displaced_ = true;
  const auto place = places_.find(reader->header().checksum);
  if (place == places_.end()) {
    return fmt::format("swapped: holds a block of slot {} that is not of this archive",
                       reader->header().slot);
  }
  return fmt::format("swapped: holds the block of slot {} sequence {}", place->second.location.slot,
                     place->second.location.sequence);
}

// Where the blocks of a segment really are, for naming those that are gone.
void Verifier::walk_segment(int fd, const std::string& file) {
  for (uint64_t at = 0;;) {
    auto got = read_at(fd, at, buffer_.span().first(kBlockAlignment), file);
    if (!got.ok() || *got == 0) return;
    uint64_t step = kBlockAlignment;
    if (peek_block_header(buffer_.span().first(*got)).ok()) {
      got = read_at(fd, at, buffer_.span().first(kMaxBlockBytes), file);
      if (!got.ok()) return;
      const auto reader = BlockReader::open(buffer_.span().first(*got));
      if (reader.ok()) {
        found_.insert({reader->header().checksum, fmt::format("{} offset {}", file, at)});
        step = padded(reader->header().stored_bytes);
      }
    }
    at += step;
  }
}

void Verifier::finish_slot(const Folder& folder, uint32_t slot, const SlotCheck& check) {
  if (check.broken() || folder.index_lost) return;
  const std::string file = folder.path + "/" + kManifestFile;
  const auto& listed = folder.part->slots;
  const auto named =
      std::lower_bound(listed.begin(), listed.end(), slot,
                       [](const SlotSummary& each, uint32_t wanted) { return each.slot < wanted; });
  if (named == listed.end() || named->slot != slot) {
    problem(file, 0, slot, "blocks of a slot that the manifest does not name");
  } else if (!check.whole()) {
    problem(file, 0, slot, "the slot's last value is not whole");
  } else if (check.digest() != named->digest) {
    problem(file, 0, slot,
            fmt::format(
                "slot digest mismatch: {} records and {} tombstones; the manifest says {} and {}",
                check.digest().records, check.digest().tombstones, named->digest.records,
                named->digest.tombstones));
  }
}

void Verifier::check_slots(size_t number) {
  const Folder& folder = folders_[number];
  for (const auto& [slot, check] : slots_) finish_slot(folder, slot, check);
  slots_.clear();
  slot_blocks_.clear();
  if (!folder.part.has_value() || folder.index_lost) return;
  std::set<uint32_t> seen;
  for (const auto& [segment, index] : folder.indexes) {
    for (const BlockLocation& block : index.blocks) seen.insert(block.slot);
  }
  for (const SlotSummary& slot : folder.part->slots) {
    if (seen.contains(slot.slot)) continue;
    problem(folder.path + "/" + kManifestFile, 0, slot.slot, "missing: no blocks of the slot");
  }
}

void Verifier::name_displaced() {
  for (const auto& [at, checksum] : absent_) {
    const auto found = found_.find(checksum);
    report_.bad[at].reason +=
        found == found_.end()
            ? "; the block that belongs here was not found"
            : fmt::format("; the block that belongs here is at {}", found->second);
  }
}

}  // namespace

absl::StatusOr<VerifyReport> verify_archive(
    const std::vector<std::string>& folders, Arena& arena,
    const std::function<bool(uint64_t done, uint64_t total)>& progress,
    const ArchivePartId* expected) {
  if (folders.empty()) return invalid_argument("archive: no directory given");
  if (expected != nullptr && folders.size() != 1) {
    return invalid_argument("archive: {} directories for one expected part", folders.size());
  }
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<BlockPool> pool,
                          arena.make_pool("verify", kVerifyBuffers));
  std::vector<BlockBuffer> buffers;
  for (size_t i = 0; i < kVerifyBuffers; ++i) buffers.push_back(pool->try_take());
  // Threads of its own: more would not make one disk faster, and a node has other work.
  tbb::task_arena threads(std::min(kMostVerifyThreads, tbb::this_task_arena::max_concurrency()));
  absl::StatusOr<VerifyReport> report = absl::UnknownError("");
  threads.execute([&] { report = Verifier(progress, std::move(buffers), expected).run(folders); });
  return report;
}

}  // namespace sluice

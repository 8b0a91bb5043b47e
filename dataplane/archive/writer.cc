#include "dataplane/archive/writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/defect.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/archive/folder.h"
#include "dataplane/archive/journal.h"
#include "dataplane/archive/reopen.h"
#include "dataplane/block/block.h"

namespace sluice {
namespace {

using Slots = std::map<uint32_t, DurableSlot>;

// Where each segment's listed blocks end.
std::map<uint32_t, uint64_t> ends_of(const Slots& slots) {
  std::map<uint32_t, uint64_t> ends;
  for (const auto& [number, slot] : slots) {
    for (const BlockLocation& block : slot.blocks) {
      uint64_t& end = ends[block.segment];
      end = std::max(end, block.offset + padded(block.bytes));
    }
  }
  return ends;
}

// One block behind the other from the segment's beginning to its end, as they were synced.
bool is_exact(const SegmentIndex& index, uint64_t bytes) {
  uint64_t end = 0;
  for (const BlockLocation& block : index.blocks) {
    if (block.offset != end) return false;
    end += padded(block.bytes);
  }
  return end == bytes;
}

class Writer final : public ArchiveWriter {
 public:
  Writer(const Options& options, std::unique_ptr<Journal> journal, Slots durable)
      : options_(options),
        journal_(std::move(journal)),
        durable_(std::move(durable)),
        queue_(options.depth, fmt::format("write blocks to archive directory {}", options.folder),
               options.write, options.disk) {
    for (const auto& [slot, content] : durable_) {
      durable_at_open_[slot] = content.digest;
      newest_stamp_ = std::max(newest_stamp_, content.newest_stamp);
    }
    for (const auto& [number, end] : ends_of(durable_)) {
      segment_number_ = number;
      segment_end_ = end;
    }
  }
  // Of a part that an earlier life committed.
  Writer(const Options& options, CommittedPart committed)
      : Writer(options, nullptr, std::move(committed.slots)) {
    sealed_ = true;
    part_ = std::move(committed.part);
  }

  const std::map<uint32_t, SlotDigest>& durable_at_open() const override {
    return durable_at_open_;
  }
  absl::Status append(BlockBuffer block, uint32_t bytes) override;
  absl::Status finish_slot(uint32_t slot, const SlotDigest& digest, uint64_t newest_stamp) override;
  void drop_slot(uint32_t slot) override;
  absl::StatusOr<std::vector<uint32_t>> sync() override;
  absl::StatusOr<PartManifest> finish() override;
  absl::Status commit(const Manifest& manifest) override;
  uint64_t newest_stamp() const override {
    const MutexLock lock(mutex_);
    return newest_stamp_;
  }

 private:
  std::string path(const std::string& name) const { return options_.folder + "/" + name; }
  absl::Status fail(const absl::Status& status);
  absl::Status place_locked(const BlockHeader& header, BlockLocation* location)
      SLUICE_REQUIRES(mutex_);
  absl::Status open_segment_locked() SLUICE_REQUIRES(mutex_);
  absl::StatusOr<std::vector<uint32_t>> sync_serialized() SLUICE_REQUIRES(sync_mutex_);
  absl::Status sync_segments(const std::set<uint32_t>& dirty, bool names);
  absl::StatusOr<PartManifest> write_part();
  absl::StatusOr<SegmentSummary> seal_segment(SegmentIndex index, std::vector<NewFile>* files);
  absl::Status cut_and_clear(const SegmentIndex& index);
  absl::Status clear_gaps(int fd, const SegmentIndex& index, const std::string& file);

  const Options options_;
  Mutex sync_mutex_ SLUICE_ACQUIRED_BEFORE(mutex_);  // one sync at a time
  std::unique_ptr<Journal> journal_ SLUICE_GUARDED_BY(sync_mutex_);

  mutable Mutex mutex_;
  absl::Status error_ SLUICE_GUARDED_BY(mutex_);
  Slots durable_ SLUICE_GUARDED_BY(mutex_);
  std::map<uint32_t, SlotDigest> durable_at_open_;
  std::map<uint32_t, std::vector<BlockLocation>> open_ SLUICE_GUARDED_BY(mutex_);
  std::map<uint32_t, DurableSlot> finished_ SLUICE_GUARDED_BY(mutex_);  // not yet durable
  uint64_t newest_stamp_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint32_t segment_number_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t segment_end_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<UniqueFd> segment_ SLUICE_GUARDED_BY(mutex_);
  bool new_segments_ SLUICE_GUARDED_BY(mutex_) = false;  // the folder must be synced
  bool sealed_ SLUICE_GUARDED_BY(mutex_) = false;        // finish() was called
  std::optional<PartManifest> part_ SLUICE_GUARDED_BY(mutex_);

  WriteQueue queue_;  // last: its writes end before the rest goes
};

absl::Status Writer::fail(const absl::Status& status) {
  const MutexLock lock(mutex_);
  if (error_.ok()) error_ = status;
  return status;
}

absl::Status Writer::append(BlockBuffer block, uint32_t bytes) {
  SLUICE_ASSIGN_OR_RETURN(
      const BlockHeader header,
      peek_block_header({block.data(), std::min<size_t>(bytes, block.capacity())}));
  const size_t on_disk = padded(bytes);
  if (header.stored_bytes != bytes || on_disk > block.capacity()) {
    return invalid_argument("archive: a block of {} bytes given as {} bytes", header.stored_bytes,
                            bytes);
  }
  if (header.slot_bits != options_.identity.slot_bits) {
    return invalid_argument("archive: a block of {} slot bits in a backup of {}", header.slot_bits,
                            options_.identity.slot_bits);
  }
  std::memset(block.data() + bytes, 0, on_disk - bytes);
  BlockLocation location;
  std::shared_ptr<UniqueFd> segment;
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(place_locked(header, &location));
    segment = segment_;
  }
  const absl::Status status =
      queue_.write(std::move(segment), location.offset, std::move(block), on_disk);
  return status.ok() ? status : fail(status);
}

absl::Status Writer::place_locked(const BlockHeader& header, BlockLocation* location) {
  SLUICE_RETURN_IF_ERROR(error_);
  if (sealed_) return failed_precondition("archive {}: finished", options_.folder);
  if (durable_.contains(header.slot) || finished_.contains(header.slot)) {
    return failed_precondition("archive {}: slot {} is finished", options_.folder, header.slot);
  }
  if (segment_ == nullptr || segment_end_ >= options_.segment_bytes) {
    if (absl::Status status = open_segment_locked(); !status.ok()) return error_ = status;
  }
  std::vector<BlockLocation>& blocks = open_[header.slot];
  *location = {segment_number_,
               segment_end_,
               header.stored_bytes,
               header.slot,
               static_cast<uint32_t>(blocks.size()),
               header.entries,
               header.flags,
               header.checksum};
  blocks.push_back(*location);
  segment_end_ += padded(header.stored_bytes);
  return absl::OkStatus();
}

absl::Status Writer::open_segment_locked() {
  if (segment_end_ >= options_.segment_bytes) {
    ++segment_number_;
    segment_end_ = 0;
  }
  SLUICE_ASSIGN_OR_RETURN(UniqueFd file,
                          open_direct(path(segment_file(segment_number_)), O_WRONLY | O_CREAT));
  segment_ = std::make_shared<UniqueFd>(std::move(file));
  new_segments_ = true;
  return absl::OkStatus();
}

absl::Status Writer::finish_slot(uint32_t slot, const SlotDigest& digest, uint64_t newest_stamp) {
  const MutexLock lock(mutex_);
  SLUICE_RETURN_IF_ERROR(error_);
  const auto open = open_.find(slot);
  if (sealed_ || durable_.contains(slot) || finished_.contains(slot)) {
    return failed_precondition("archive {}: slot {} is finished", options_.folder, slot);
  }
  if ((open == open_.end()) != digest.empty()) {
    return invalid_argument("archive {}: slot {} with {} records and tombstones has {} blocks",
                            options_.folder, slot, digest.records + digest.tombstones,
                            open == open_.end() ? 0 : open->second.size());
  }
  DurableSlot finished{slot, digest, newest_stamp, {}};
  if (open != open_.end()) {
    finished.blocks = std::move(open->second);
    open_.erase(open);
  }
  finished_.emplace(slot, std::move(finished));
  newest_stamp_ = std::max(newest_stamp_, newest_stamp);
  return absl::OkStatus();
}

void Writer::drop_slot(uint32_t slot) {
  const MutexLock lock(mutex_);
  open_.erase(slot);
  finished_.erase(slot);
}

absl::StatusOr<std::vector<uint32_t>> Writer::sync() {
  const MutexLock serial(sync_mutex_);
  auto slots = sync_serialized();
  if (!slots.ok()) return fail(slots.status());
  return slots;
}

absl::StatusOr<std::vector<uint32_t>> Writer::sync_serialized() {
  std::vector<DurableSlot> batch;
  std::set<uint32_t> dirty;
  bool sync_names = false;
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(error_);
    for (auto& [number, slot] : finished_) {
      for (const BlockLocation& block : slot.blocks) dirty.insert(block.segment);
      batch.push_back(slot);
    }
    sync_names = std::exchange(new_segments_, false);
    // Not to be dropped or appended to while this sync makes them durable.
    for (const DurableSlot& slot : batch) durable_[slot.slot] = slot;
    finished_.clear();
  }
  if (batch.empty()) {
    if (sync_names) {
      const MutexLock lock(mutex_);
      new_segments_ = true;
    }
    return std::vector<uint32_t>();
  }
  SLUICE_RETURN_IF_ERROR(queue_.flush());
  SLUICE_RETURN_IF_ERROR(sync_segments(dirty, sync_names));
  SLUICE_RETURN_IF_ERROR(journal_->append(batch));
  std::vector<uint32_t> slots;
  slots.reserve(batch.size());
  for (const DurableSlot& slot : batch) slots.push_back(slot.slot);
  return slots;
}

absl::Status Writer::sync_segments(const std::set<uint32_t>& dirty, bool names) {
  if (defect(Defect::kSegmentsAreNotSynced)) return absl::OkStatus();
  std::vector<Unsynced> unsynced;
  for (const uint32_t number : dirty) {
    const std::string file = path(segment_file(number));
    unsynced.push_back({UniqueFd(::open(file.c_str(), O_WRONLY | O_CLOEXEC)), file});
    if (!unsynced.back().fd) return errno_status(errno, fmt::format("open {}", file));
  }
  if (names) {
    SLUICE_ASSIGN_OR_RETURN(Unsynced folder, open_folder(options_.folder));
    unsynced.push_back(std::move(folder));
  }
  return sync_together(unsynced);
}

absl::StatusOr<PartManifest> Writer::finish() {
  const MutexLock serial(sync_mutex_);
  {
    const MutexLock lock(mutex_);
    if (part_.has_value()) return *part_;
    sealed_ = true;
  }
  auto synced = sync_serialized();
  if (!synced.ok()) return fail(synced.status());
  // Writes of dropped slots may still be under way, and would undo the clearing of their space.
  if (absl::Status status = queue_.flush(); !status.ok()) return fail(status);
  auto part = write_part();
  if (!part.ok()) return fail(part.status());
  const MutexLock lock(mutex_);
  segment_ = nullptr;
  part_ = *std::move(part);
  return *part_;
}

absl::StatusOr<PartManifest> Writer::write_part() {
  PartManifest part;
  part.node = options_.node;
  std::map<uint32_t, SegmentIndex> indexes;
  {
    const MutexLock lock(mutex_);
    for (const auto& [number, slot] : durable_) {
      if (!slot.digest.empty()) part.slots.push_back({number, slot.digest});
      for (const BlockLocation& block : slot.blocks) {
        SegmentIndex& index = indexes[block.segment];
        index.number = block.segment;
        index.blocks.push_back(block);
      }
    }
  }
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, list_folder(options_.folder));
  for (const std::string& name : names) {
    const auto number = numbered(name, kSegmentPrefix);
    // Nothing but dropped slots in it.
    if (number && !indexes.contains(*number)) SLUICE_RETURN_IF_ERROR(remove_file(path(name)));
  }
  std::vector<NewFile> files;
  for (auto& [number, index] : indexes) {
    SLUICE_ASSIGN_OR_RETURN(SegmentSummary summary, seal_segment(std::move(index), &files));
    part.segments.push_back(summary);
  }
  files.push_back({path(kPartFile), part.encode()});
  SLUICE_RETURN_IF_ERROR(write_files_durably(files));
  return part;
}

// The segment itself is durable then, its index with the part.
absl::StatusOr<SegmentSummary> Writer::seal_segment(SegmentIndex index,
                                                    std::vector<NewFile>* files) {
  std::sort(index.blocks.begin(), index.blocks.end(),
            [](const BlockLocation& a, const BlockLocation& b) { return a.offset < b.offset; });
  index.backup = options_.identity.backup;
  index.node = options_.node;
  index.segment_bytes = index.blocks.back().offset + padded(index.blocks.back().bytes);
  if (!is_exact(index, file_bytes(path(segment_file(index.number))).value_or(0))) {
    SLUICE_RETURN_IF_ERROR(cut_and_clear(index));
  }
  std::string bytes = index.encode();
  SegmentSummary summary;
  summary.number = index.number;
  summary.bytes = index.segment_bytes;
  summary.blocks = index.blocks.size();
  summary.index_bytes = bytes.size();
  summary.index_digest = xxh3_128(bytes);
  files->push_back({path(index_file(index.number)), std::move(bytes)});
  return summary;
}

absl::Status Writer::cut_and_clear(const SegmentIndex& index) {
  const std::string file = path(segment_file(index.number));
  UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return errno_status(errno, fmt::format("open {}", file));
  SLUICE_RETURN_IF_ERROR(clear_gaps(fd.get(), index, file));
  if (ftruncate(fd.get(), static_cast<off_t>(index.segment_bytes)) != 0 || fsync(fd.get()) != 0) {
    return errno_status(errno, fmt::format("cut {} to {} bytes", file, index.segment_bytes));
  }
  return absl::OkStatus();
}

// What dropped slots left between the blocks becomes zeros, so that every byte of a segment can be
// verified.
absl::Status Writer::clear_gaps(int fd, const SegmentIndex& index, const std::string& file) {
  const std::string zeros(kBlockAlignment, '\0');
  const WriteFunction write = [](int to, const void* data, size_t bytes, off_t offset) {
    return pwrite(to, data, bytes, offset);
  };
  uint64_t end = 0;
  for (const BlockLocation& block : index.blocks) {
    const uint64_t gap = block.offset - end;
    if (gap > 0 && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             static_cast<off_t>(end), static_cast<off_t>(gap)) != 0) {
      for (uint64_t at = end; at < block.offset; at += kBlockAlignment) {
        SLUICE_RETURN_IF_ERROR(write_fully(write, fd, zeros, at, fmt::format("clear {}", file)));
      }
    }
    end = block.offset + padded(block.bytes);
  }
  return absl::OkStatus();
}

absl::Status Writer::commit(const Manifest& manifest) {
  const MutexLock serial(sync_mutex_);
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(error_);
    if (!part_.has_value()) return failed_precondition("archive {}: not finished", options_.folder);
    if (manifest.identity != options_.identity) {
      return invalid_argument("archive {}: the manifest is of another backup", options_.folder);
    }
    const std::string mine = part_->encode();
    const auto same = [&mine](const PartManifest& part) { return part.encode() == mine; };
    if (std::none_of(manifest.parts.begin(), manifest.parts.end(), same)) {
      return invalid_argument("archive {}: the manifest does not contain this part",
                              options_.folder);
    }
    if (manifest.newest_stamp < newest_stamp_) {
      return invalid_argument("archive {}: the manifest's newest stamp is older than a record's",
                              options_.folder);
    }
  }
  const std::string bytes = manifest.encode();
  const auto stored = read_file(path(kManifestFile), kMaxManifestBytes);
  if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
  if (stored.ok() && *stored != bytes) {
    return already_exists("archive {}: another manifest is stored", options_.folder);
  }
  // What is there may be of a process that ended before its name was durable.
  SLUICE_RETURN_IF_ERROR(stored.ok() ? sync_folder(options_.folder)
                                     : write_file_durably(path(kManifestFile), bytes));
  // Not synced: beside a manifest a journal counts for nothing.
  return remove_file(path(kJournalFile));
}

absl::Status refuse_foreign(const std::string& folder) {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, list_folder(folder));
  const auto has = [&names](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (has(kJournalFile)) return absl::OkStatus();
  if (has(kRemovedFile))
    return already_exists("{} holds a part whose deletion is unfinished", folder);
  for (const std::string& name : names) {
    if (is_archive_file(name) && !is_leftover(name)) {
      return already_exists("{} holds {} of an archive without manifest and journal", folder, name);
    }
  }
  return absl::OkStatus();
}

// Recorded before their space is used again: otherwise the journal would list others' blocks as
// theirs.
absl::Status drop_slots(const std::vector<uint32_t>& dropped, Journal& journal, Slots* slots) {
  if (dropped.empty()) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(journal.append_dropped(dropped));
  for (const uint32_t slot : dropped) slots->erase(slot);
  return absl::OkStatus();
}

// Slots whose blocks are not all within their segment files: a disk that lost what it had
// acknowledged.
absl::Status drop_lost(const std::string& folder, Journal& journal, Slots* slots) {
  std::map<uint32_t, uint64_t> sizes;
  for (const auto& [number, end] : ends_of(*slots)) {
    sizes[number] = file_bytes(folder + "/" + segment_file(number)).value_or(0);
  }
  std::vector<uint32_t> lost;
  for (const auto& [number, slot] : *slots) {
    const bool whole = std::all_of(slot.blocks.begin(), slot.blocks.end(), [&](const auto& block) {
      return block.offset + padded(block.bytes) <= sizes[block.segment];
    });
    if (!whole) lost.push_back(number);
  }
  return drop_slots(lost, journal, slots);
}

absl::Status drop_unplanned(const std::optional<std::set<uint32_t>>& planned, Journal& journal,
                            Slots* slots) {
  std::vector<uint32_t> unplanned;
  for (const auto& [number, slot] : *slots) {
    if (defect(Defect::kUnplannedSlotsStay)) break;
    if (planned && !planned->contains(number)) unplanned.push_back(number);
  }
  return drop_slots(unplanned, journal, slots);
}

// Takes away what no durable slot needs, so that segments go on right after the last listed block.
absl::Status trim(const std::string& folder, const Slots& slots) {
  const auto ends = ends_of(slots);
  SLUICE_ASSIGN_OR_RETURN(const std::vector<std::string> names, list_folder(folder));
  for (const std::string& name : names) {
    const std::string file = fmt::format("{}/{}", folder, name);
    const auto segment = numbered(name, kSegmentPrefix);
    const auto end = segment ? ends.find(*segment) : ends.end();
    if (end != ends.end()) {
      if (truncate(file.c_str(), static_cast<off_t>(end->second)) != 0) {
        return errno_status(errno, fmt::format("cut {} to {} bytes", file, end->second));
      }
    } else if (segment || numbered(name, kIndexPrefix) || name == kPartFile || is_leftover(name)) {
      SLUICE_RETURN_IF_ERROR(remove_file(file));
    }
  }
  return absl::OkStatus();
}

// Exactly what is planned, or all that may be when nothing is said.
bool is_as_planned(const CommittedPart& committed,
                   const std::optional<std::set<uint32_t>>& planned) {
  return !planned || std::equal(planned->begin(), planned->end(), committed.slots.begin(),
                                committed.slots.end(),
                                [](uint32_t slot, const auto& held) { return slot == held.first; });
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArchiveWriter>> ArchiveWriter::open(const Options& options) {
  if (options.identity.slot_bits < 1 || options.identity.slot_bits > kMaxSlotBits) {
    return invalid_argument("archive: {} slot bits", options.identity.slot_bits);
  }
  SLUICE_RETURN_IF_ERROR(make_folders(parent_folder(options.folder)));
  if (mkdir(options.folder.c_str(), 0755) != 0 && errno != EEXIST) {
    return errno_status(errno, fmt::format("mkdir {}", options.folder));
  }
  SLUICE_RETURN_IF_ERROR(remove_earlier_cut(options.folder, options.identity, options.node));
  SLUICE_ASSIGN_OR_RETURN(auto committed,
                          load_committed(options.folder, options.identity, options.node));
  if (committed && !options.reopen_committed && is_as_planned(*committed, options.planned)) {
    return std::unique_ptr<ArchiveWriter>(std::make_unique<Writer>(options, *std::move(committed)));
  }
  WriteFunction write = options.write;
  if (!write) {
    write = [](int fd, const void* data, size_t bytes, off_t at) {
      return pwrite(fd, data, bytes, at);
    };
  }
  if (!committed) SLUICE_RETURN_IF_ERROR(refuse_foreign(options.folder));
  SLUICE_ASSIGN_OR_RETURN(
      std::unique_ptr<Journal> journal,
      committed ? take_back(options.folder, options.identity, options.node, *committed, write)
                : Journal::open(options.folder, options.identity, options.node, write));
  Slots slots = std::move(journal->slots());
  SLUICE_RETURN_IF_ERROR(drop_lost(options.folder, *journal, &slots));
  SLUICE_RETURN_IF_ERROR(drop_unplanned(options.planned, *journal, &slots));
  SLUICE_RETURN_IF_ERROR(trim(options.folder, slots));
  return std::unique_ptr<ArchiveWriter>(
      std::make_unique<Writer>(options, std::move(journal), std::move(slots)));
}

}  // namespace sluice

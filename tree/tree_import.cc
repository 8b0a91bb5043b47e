#include "tree/tree_import.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "base/guard.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/text.h"
#include "dataplane/block/record.h"
#include "tree/file_groups.h"
#include "tree/link_groups.h"
#include "tree/tree_entry.h"
#include "tree/tree_file.h"
#include "tree/tree_generations.h"
#include "tree/tree_mirror.h"

namespace sluice {
namespace {

constexpr size_t kQueuedFiles = 1024;
constexpr int kAttempts = 3;  // at a file that changes while it is read
static_assert(kAttempts <= 1 << kAttemptBits);
// The scan puts directories, links and devices itself and hands files to reader threads through a
// bounded queue.
class TreeImporter final : public TreeScanHandler, public ImportJob {
 public:
  TreeImporter(const TreeImportOptions& options, RecordStore& store, StreamProgress& progress)
      : options_(options),
        store_(store),
        progress_(progress),
        generations_(store, options.prefix),
        entries_(store.writer()) {}

  absl::StatusOr<TreeImportResult> run();

  bool on_entry(ScannedEntry entry) override;
  void on_left_out(const std::string& path, LeftOut why) override;
  void on_failed(const std::string& path, std::string reason) override { fail(path, reason); }
  bool stopped() override;

  void put(RecordSink& sink, std::string_view key, std::string_view value) override;
  void fail(const std::string& path, std::string reason) override;
  void stop(const absl::Status& status) override;
  void note_written(uint64_t records, uint64_t bytes) override {
    count(&TreeImportResult::records, records);
    count(&TreeImportResult::bytes, bytes);
  }

 private:
  void scan();
  void import_other(const ScannedEntry& entry);
  void import_linked(const ScannedEntry& entry);
  void put_hard_link(const std::string& path, const LinkGroups::First& first);
  void read_files();
  void read_files_until_done();
  // A file of one chunk and one name is put at once, others wait in the group.
  void import_found(FoundFile file, FileGroup* group);
  void import_file(FoundFile file, FileGroup* group);
  // Not OK when it cannot be imported; ABORTED when another attempt should be made.
  absl::Status read_file(const FoundFile& found, FileGroup* group);
  absl::Status put_small(const TreeFile& file, GroupFile entry, FileGroup* group);
  void import_group(FileGroup group);
  // Counts what was written, and writes the names that waited for it.
  void put_other_names(const FileGroup& group);
  // What to do now about those of a group that changed or failed.
  FileGroup import_again(FileGroup& group, bool last_attempt);

  bool push(FoundFile file);
  // With `wait`, nothing means that there are no more.
  std::optional<FoundFile> pop(bool wait);
  std::string key_of(const std::string& path) const { return options_.prefix + path; }
  absl::Status check_key(const std::string& path, size_t suffix = 0) const;
  void count(uint64_t TreeImportResult::*what, uint64_t by = 1) {
    const MutexLock lock(mutex_);
    result_.*what += by;
  }
  void take_failures(SinkTotals& totals) SLUICE_REQUIRES(mutex_);
  absl::StatusOr<TreeImportResult> finish();

  const TreeImportOptions& options_;
  RecordStore& store_;
  StreamProgress& progress_;
  TreeGenerations generations_;
  std::unique_ptr<RecordSink> entries_;  // what is one record
  UniqueFd root_;
  OwnerNames names_;
  LinkGroups links_;

  Mutex mutex_;
  Condition changed_;
  std::deque<FoundFile> files_ SLUICE_GUARDED_BY(mutex_);
  bool walked_ SLUICE_GUARDED_BY(mutex_) = false;
  absl::Status status_ SLUICE_GUARDED_BY(mutex_);
  TreeImportResult result_ SLUICE_GUARDED_BY(mutex_);
};

void TreeImporter::fail(const std::string& path, std::string reason) {
  const MutexLock lock(mutex_);
  result_.failures.add(path, std::move(reason));
}

void TreeImporter::stop(const absl::Status& status) {
  const MutexLock lock(mutex_);
  if (status_.ok()) status_ = status;
  changed_.notify_all();
}

bool TreeImporter::stopped() {
  if (progress_.cancelled) stop(cancelled("cancelled"));
  const MutexLock lock(mutex_);
  return !status_.ok();
}

bool TreeImporter::push(FoundFile file) {
  MutexLock lock(mutex_);
  changed_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) {
    return files_.size() < kQueuedFiles || !status_.ok();
  });
  if (!status_.ok()) return false;
  files_.push_back(std::move(file));
  changed_.notify_all();
  return true;
}

std::optional<FoundFile> TreeImporter::pop(bool wait) {
  MutexLock lock(mutex_);
  if (!wait && files_.empty()) return std::nullopt;
  changed_.wait(
      lock, [&]() SLUICE_REQUIRES(mutex_) { return !files_.empty() || walked_ || !status_.ok(); });
  if (files_.empty() || !status_.ok()) return std::nullopt;
  FoundFile file = std::move(files_.front());
  files_.pop_front();
  changed_.notify_all();
  return file;
}

void TreeImporter::put(RecordSink& sink, std::string_view key, std::string_view value) {
  if (absl::Status status = sink.put(key, value); !status.ok()) {
    stop(with_context(status, printable(key)));
    return;
  }
  progress_.count(key.size() + value.size());
}

absl::Status TreeImporter::check_key(const std::string& path, size_t suffix) const {
  const size_t bytes = options_.prefix.size() + path.size() + suffix;
  if (bytes <= kMaxKeyBytes) return absl::OkStatus();
  return invalid_argument("its key would have {} bytes: at most {}", bytes, kMaxKeyBytes);
}

void TreeImporter::on_left_out(const std::string&, LeftOut why) {
  switch (why) {
    case LeftOut::kExcluded:
      return count(&TreeImportResult::excluded);
    case LeftOut::kOtherFileSystem:
      return count(&TreeImportResult::other_file_systems);
    case LeftOut::kLoop:
      return count(&TreeImportResult::loops);
    case LeftOut::kSocket:
      return count(&TreeImportResult::sockets);
  }
}

bool TreeImporter::on_entry(ScannedEntry entry) {
  if (const absl::Status fits = check_key(entry.path); !fits.ok()) {
    fail(entry.path, std::string(message_of(fits)));
    return false;
  }
  const bool file = entry.metadata.type == FileType::kFile;
  if (entry.metadata.type != FileType::kDirectory && entry.identity.links > 1) {
    import_linked(entry);
  } else if (file) {
    push({entry.path, std::nullopt, "", {}});
  } else {
    import_other(entry);
  }
  return true;
}

void TreeImporter::import_linked(const ScannedEntry& entry) {
  const LinkGroups::Met met = links_.meet(entry.identity, entry.path);
  if (met.link.has_value()) put_hard_link(entry.path, *met.link);
  if (met.alone) count(&TreeImportResult::split_links);
  if (!met.import_it) return;
  if (entry.metadata.type != FileType::kFile) return import_other(entry);
  push({entry.path, met.alone ? std::nullopt : std::optional(id_of(entry.identity)), "", {}});
}

// Directories, links, pipes and devices.
void TreeImporter::import_other(const ScannedEntry& entry) {
  const bool directory = entry.metadata.type == FileType::kDirectory;
  const bool linked = !directory && entry.identity.links > 1;
  Digest128 digest;
  std::string value =
      encode_special(entry.metadata, linked ? number_of(id_of(entry.identity)) : 0, &digest);
  if (linked) {
    push({entry.path, id_of(entry.identity), std::move(value), digest});
  } else {
    put(*entries_, key_of(entry.path), value);
    generations_.note_imported(entry.path, 0);
  }
  count(directory                                ? &TreeImportResult::directories
        : entry.metadata.type == FileType::kLink ? &TreeImportResult::links
                                                 : &TreeImportResult::specials);
}

void TreeImporter::put_hard_link(const std::string& path, const LinkGroups::First& first) {
  put(*entries_, key_of(path), encode_hard_link(path, first.path, first.digest, first.number));
  generations_.note_imported(path, 0);
  const MutexLock lock(mutex_);
  if (first.file) ++result_.files;
  ++result_.hard_links;
}

void TreeImporter::scan() {
  TreeScanner scanner(root_.get(), options_.scan, names_, *this);
  if (const absl::Status scanned = scanner.run(); !scanned.ok()) stop(scanned);
}

void TreeImporter::read_files_until_done() {
  FileGroup group;
  while (!stopped()) {
    std::optional<FoundFile> file = pop(group.files.empty());
    const bool none = !file.has_value();
    if (!none) import_found(*std::move(file), &group);
    if (none && group.files.empty()) return;
    if (none || group.full()) import_group(std::exchange(group, FileGroup()));
  }
}

void TreeImporter::read_files() {
  const absl::Status status = guarded("reading files", [this] { read_files_until_done(); });
  if (!status.ok()) stop(status);
}

void TreeImporter::import_found(FoundFile file, FileGroup* group) {
  group->found.push_back(std::move(file));
  while (!group->found.empty() && !stopped()) {
    FoundFile next = std::move(group->found.back());
    group->found.pop_back();
    import_file(std::move(next), group);
  }
}

void TreeImporter::import_file(FoundFile file, FileGroup* group) {
  if (!file.value.empty()) {
    GroupFile entry;
    entry.value = std::move(file.value);
    entry.entry.header.digest = file.digest;
    entry.found = std::move(file);
    return group->add(std::move(entry), 0);
  }
  while (!stopped()) {
    absl::Status status;
    for (int attempt = 0; attempt < kAttempts && !stopped(); ++attempt) {
      status = read_file(file, group);
      if (!absl::IsAborted(status)) break;
    }
    if (status.ok() || stopped()) return;
    fail(file.path, absl::IsAborted(status)
                        ? fmt::format("changed while it was read, {} times", kAttempts)
                        : std::string(message_of(status)));
    // Another of its names may be readable still.
    std::optional<std::string> next;
    if (file.linked.has_value()) next = links_.failed(*file.linked);
    if (!next.has_value()) return;
    file.path = *std::move(next);
  }
}

absl::Status TreeImporter::read_file(const FoundFile& found, FileGroup* group) {
  SLUICE_ASSIGN_OR_RETURN(const TreeFile file, TreeFile::open(root_.get(), found.path, names_));
  GroupFile entry;
  entry.found = found;
  entry.identity = file.identity();
  if (found.linked.has_value() && id_of(file.identity()) != *found.linked) {
    // Another file has taken this name: it is imported by itself, and a name that waits for the one
    // that had it in its place.
    entry.found.linked.reset();
    if (auto next = links_.failed(*found.linked); next.has_value())
      group->found.push_back({*std::move(next), found.linked, "", {}});
  }
  SLUICE_ASSIGN_OR_RETURN(entry.entry, describe(file));
  entry.entry.extras.linked = entry.found.linked.has_value();
  if (entry.found.linked.has_value())
    entry.entry.extras.file_number = number_of(*entry.found.linked);
  const TreeHeader& header = entry.entry.header;
  if (header.chunks() == 1) return put_small(file, std::move(entry), group);
  const auto last = static_cast<uint32_t>(std::min<uint64_t>(header.chunks() - 1, UINT32_MAX));
  SLUICE_RETURN_IF_ERROR(check_key(found.path, tree_chunk_key("", 1, last).size()));
  const uint64_t bytes =
      header.sparse ? uint64_t{header.sparse_chunks} * header.chunk_bytes : header.size;
  group->add(std::move(entry), bytes);
  return absl::OkStatus();
}

absl::Status TreeImporter::put_small(const TreeFile& file, GroupFile entry, FileGroup* group) {
  std::string value;
  SLUICE_ASSIGN_OR_RETURN(const bool same, read_whole(file, &entry.entry, &value));
  if (!same) return aborted("changed");
  if (entry.found.linked.has_value()) {
    const uint64_t bytes = value.size();
    entry.value = std::move(value);
    group->add(std::move(entry), bytes);
    return absl::OkStatus();
  }
  put(*entries_, key_of(entry.found.path), value);
  generations_.note_imported(entry.found.path, 0);
  count(&TreeImportResult::files);
  return absl::OkStatus();
}

void TreeImporter::put_other_names(const FileGroup& group) {
  for (const GroupFile& file : group.files) {
    if (file.state != GroupFile::State::kGood || stopped()) continue;
    // What is not a file was counted when it was found.
    if (file.entry.header.chunk_bytes != 0) count(&TreeImportResult::files);
    if (!file.found.linked.has_value()) continue;
    const LinkGroups::First first{file.found.path, file.entry.header.digest,
                                  number_of(*file.found.linked),
                                  file.entry.header.chunk_bytes != 0};
    for (const std::string& name : links_.imported(*file.found.linked, first))
      put_hard_link(name, first);
  }
}

FileGroup TreeImporter::import_again(FileGroup& group, bool last_attempt) {
  FileGroup again;
  for (GroupFile& file : group.files) {
    if (file.state == GroupFile::State::kGood) continue;
    if (file.state == GroupFile::State::kChanged && !last_attempt) {
      // What it is now: large still, small, or gone.
      import_found(std::move(file.found), &again);
      continue;
    }
    if (file.state == GroupFile::State::kChanged) {
      fail(file.found.path, fmt::format("changed while it was read, {} times", kAttempts));
      generations_.note_imported(file.found.path, 0);  // so that its chunks are looked at
    }
    if (!file.found.linked.has_value()) continue;
    while (auto next = links_.failed(*file.found.linked)) {
      if (!last_attempt) {
        const bool is_file = file.entry.header.chunk_bytes != 0;
        import_found({*std::move(next), file.found.linked, is_file ? "" : file.value,
                      file.entry.header.digest},
                     &again);
        break;
      }
      fail(*next, "its other names could not be imported");
    }
  }
  return again;
}

void TreeImporter::import_group(FileGroup group) {
  for (int attempt = 0; !group.files.empty() && !stopped(); ++attempt) {
    FileGroupWriter(*this, store_, options_.prefix, root_.get(), names_, generations_)
        .write(group, attempt);
    put_other_names(group);
    group = import_again(group, attempt + 1 == kAttempts);
  }
}

void TreeImporter::take_failures(SinkTotals& totals) {
  result_.records += totals.records;
  result_.bytes += totals.bytes;
  for (StreamFailure& failure : totals.failures.first) {
    result_.failures.add(failure.path.substr(options_.prefix.size()), std::move(failure.reason));
  }
  result_.failures.count += totals.failures.count - totals.failures.first.size();
}

absl::StatusOr<TreeImportResult> TreeImporter::run() {
  root_.reset(open(options_.root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_) return errno_status(errno, fmt::format("open directory {}", options_.root));
  generations_.look_for_earlier();
  std::vector<std::thread> readers;
  const absl::Status status = guarded("reading the tree", [&] {
    for (int i = 0; i < std::max(1, options_.readers); ++i)
      readers.push_back(guarded_thread("reading files", [this] { read_files(); }));
    scan();
  });
  if (!status.ok()) stop(status);
  {
    const MutexLock lock(mutex_);
    walked_ = true;
    changed_.notify_all();
  }
  for (std::thread& reader : readers) reader.join();
  return finish();
}

absl::StatusOr<TreeImportResult> TreeImporter::finish() {
  SinkTotals totals = entries_->finish();
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(status_);
    take_failures(totals);
  }
  const auto cancelled = [this] { return progress_.cancelled.load(); };
  TreeMirror mirror(root_.get(), options_.prefix, options_.scan, store_, generations_);
  if (options_.mirror) SLUICE_RETURN_IF_ERROR(mirror.remove_gone(cancelled));
  // What is left over costs room and is removed by the next import: not a failure of this one.
  const absl::Status collected = generations_.collect(cancelled);
  if (absl::IsCancelled(collected)) return collected;
  const MutexLock lock(mutex_);
  result_.removed = generations_.removed();
  result_.mirrored = mirror.removed();
  result_.mirror_failures = mirror.failures();
  result_.leftovers = generations_.leftovers() || !collected.ok();
  std::sort(result_.failures.first.begin(), result_.failures.first.end(),
            [](const StreamFailure& a, const StreamFailure& b) { return a.path < b.path; });
  return std::move(result_);
}

}  // namespace

absl::StatusOr<TreeImportResult> import_tree(const TreeImportOptions& options, RecordStore& store,
                                             StreamProgress& progress) {
  return TreeImporter(options, store, progress).run();
}

}  // namespace sluice

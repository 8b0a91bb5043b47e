#include "tree/tree_import.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/descriptor.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/text.h"
#include "dataplane/block/record.h"
#include "tree/tree_entry.h"
#include "tree/tree_generations.h"

namespace sluice {
namespace {

constexpr size_t kQueuedFiles = 1024;
constexpr int kAttempts = 3;  // at a file that changes while it is read
static_assert(kAttempts <= 1 << kAttemptBits);
// Of large files that are written together: each step waits until the one before it is durable.
constexpr uint64_t kGroupBytes = uint64_t{32} << 20;
constexpr size_t kGroupFiles = 256;

std::string reason_of(int error) { return std::strerror(error); }

TreeHeader header_of(TreeKind kind, const struct stat& info) {
  TreeHeader header;
  header.kind = kind;
  header.mode = static_cast<uint16_t>(info.st_mode & 07777);
  header.mtime_seconds = info.st_mtim.tv_sec;
  header.mtime_nanoseconds = static_cast<uint32_t>(info.st_mtim.tv_nsec);
  header.uid = info.st_uid;
  header.gid = info.st_gid;
  return header;
}

// Reads until `size` bytes or the end of the file; the bytes read, or -errno.
ssize_t read_up_to(int fd, char* into, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read_some(fd, into + done, size - done);
    if (got < 0) return got;
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

// Name by name: no link is followed, also not one that takes a directory's place meanwhile, and a
// path may be longer than the kernel takes at once.
UniqueFd open_below(int root, std::string_view path, int flags) {
  UniqueFd directory;
  while (true) {
    const size_t slash = path.find('/');
    const std::string name(path.substr(0, slash));
    const int at = directory ? directory.get() : root;
    if (slash == std::string_view::npos)
      return UniqueFd(openat(at, name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC));
    UniqueFd next(openat(at, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next) return next;
    directory = std::move(next);
    path.remove_prefix(slash + 1);
  }
}

bool same_time(const struct stat& info, const TreeHeader& header) {
  return info.st_mtim.tv_sec == header.mtime_seconds &&
         info.st_mtim.tv_nsec == static_cast<int64_t>(header.mtime_nanoseconds);
}

// A file of several chunks.
struct LargeFile {
  std::string path;
  TreeHeader header;
  enum class State { kGood, kChanged, kFailed } state = State::kGood;
};

struct LargeGroup {
  std::vector<LargeFile> files;
  uint64_t bytes = 0;
  bool full() const { return bytes >= kGroupBytes || files.size() >= kGroupFiles; }
};

// The walk puts folders and links itself and hands files to reader threads through a bounded queue.
class TreeImporter {
 public:
  TreeImporter(const TreeImportOptions& options, RecordStore& store, StreamProgress& progress)
      : options_(options),
        store_(store),
        progress_(progress),
        generations_(store, options.prefix),
        entries_(store.writer()) {}

  absl::StatusOr<TreeImportResult> run();

 private:
  void walk();
  void walk_folder(const std::string& path, std::vector<std::string>* subfolders);
  void visit(int folder, const std::string& path, const std::string& name,
             std::vector<std::string>* subfolders);
  void import_link(int folder, const std::string& path, const std::string& name,
                   const struct stat& info);
  void read_files();
  void read_files_until_done();
  // A file of one chunk is put at once, a larger one waits in the group.
  void import_file(const std::string& path, LargeGroup* group);
  bool put_small(const std::string& path, int fd, const TreeHeader& header);
  void import_group(LargeGroup group);
  void put_generations(LargeGroup& group, uint64_t generation);
  void put_chunks(LargeGroup& group);
  void put_chunks_of(LargeFile& file, RecordSink& sink);
  void put_files(LargeGroup& group);
  // Takes the totals of one step; files with records that were not written fail.
  void take_step(LargeGroup& group, RecordSink& sink);

  bool push(std::string path);
  // With `wait`, nothing means that there are no more.
  std::optional<std::string> pop(bool wait);
  void put(RecordSink& sink, std::string_view key, std::string_view value);
  std::string key_of(const std::string& path) const { return options_.prefix + path; }
  // Reports and is false when the key would be too long.
  bool check_key(const std::string& path, size_t suffix = 0);
  void fail(const std::string& path, std::string reason);
  void stop(const absl::Status& status);
  bool stopped();
  void take_failures(SinkTotals& totals) SLUICE_REQUIRES(mutex_);

  const TreeImportOptions& options_;
  RecordStore& store_;
  StreamProgress& progress_;
  TreeGenerations generations_;
  std::unique_ptr<RecordSink> entries_;  // what is one record
  UniqueFd root_;

  Mutex mutex_;
  Condition changed_;
  std::deque<std::string> files_ SLUICE_GUARDED_BY(mutex_);
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

bool TreeImporter::push(std::string path) {
  MutexLock lock(mutex_);
  changed_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) {
    return files_.size() < kQueuedFiles || !status_.ok();
  });
  if (!status_.ok()) return false;
  files_.push_back(std::move(path));
  changed_.notify_all();
  return true;
}

std::optional<std::string> TreeImporter::pop(bool wait) {
  MutexLock lock(mutex_);
  if (!wait && files_.empty()) return std::nullopt;
  changed_.wait(
      lock, [&]() SLUICE_REQUIRES(mutex_) { return !files_.empty() || walked_ || !status_.ok(); });
  if (files_.empty() || !status_.ok()) return std::nullopt;
  std::string path = std::move(files_.front());
  files_.pop_front();
  changed_.notify_all();
  return path;
}

void TreeImporter::put(RecordSink& sink, std::string_view key, std::string_view value) {
  if (absl::Status status = sink.put(key, value); !status.ok()) {
    stop(with_context(status, printable(key)));
    return;
  }
  progress_.count(key.size() + value.size());
}

bool TreeImporter::check_key(const std::string& path, size_t suffix) {
  const size_t bytes = options_.prefix.size() + path.size() + suffix;
  if (bytes <= kMaxKeyBytes) return true;
  fail(path, fmt::format("its key would have {} bytes: at most {}", bytes, kMaxKeyBytes));
  return false;
}

void TreeImporter::import_link(int folder, const std::string& path, const std::string& name,
                               const struct stat& info) {
  char target[4097];
  const ssize_t size = readlinkat(folder, name.c_str(), target, sizeof target);
  if (size < 0) return fail(path, reason_of(errno));
  if (size == 0 || size > 4096) return fail(path, fmt::format("its target has {} bytes", size));
  TreeHeader header = header_of(TreeKind::kLink, info);
  header.size = static_cast<uint64_t>(size);
  header.digest = xxh3_128(target, header.size);
  put(*entries_, key_of(path), header.encode().append(target, header.size));
  generations_.note_imported(path, 0);
  const MutexLock lock(mutex_);
  ++result_.links;
}

void TreeImporter::visit(int folder, const std::string& path, const std::string& name,
                         std::vector<std::string>* subfolders) {
  struct stat info {};
  if (fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
    return fail(path, reason_of(errno));
  if (!check_key(path)) return;
  if (S_ISDIR(info.st_mode)) {
    subfolders->push_back(path);
  } else if (S_ISREG(info.st_mode)) {
    push(path);
  } else if (S_ISLNK(info.st_mode)) {
    import_link(folder, path, name, info);
  } else {
    const MutexLock lock(mutex_);
    ++result_.skipped;
  }
}

void TreeImporter::walk_folder(const std::string& path, std::vector<std::string>* subfolders) {
  struct stat info {};
  UniqueFd fd = open_below(root_.get(), path, O_RDONLY | O_DIRECTORY);
  const int error = errno;
  // A folder that cannot be read is kept as such, without what is in it.
  const UniqueFd place = fd ? UniqueFd() : open_below(root_.get(), path, O_PATH | O_DIRECTORY);
  if (!fd && !place) return fail(path, reason_of(errno));
  if (fstat(fd ? fd.get() : place.get(), &info) != 0) return fail(path, reason_of(errno));
  put(*entries_, key_of(path), header_of(TreeKind::kFolder, info).encode());
  generations_.note_imported(path, 0);
  {
    const MutexLock lock(mutex_);
    ++result_.folders;
  }
  if (!fd) return fail(path, reason_of(error));
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(fdopendir(fd.get()), closedir);
  if (folder == nullptr) return fail(path, reason_of(errno));
  const int folder_fd = fd.release();  // closedir closes it

  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) fail(path, reason_of(errno));
  std::sort(names.begin(), names.end());
  const std::string before = path == "." ? "" : path + "/";
  for (const std::string& name : names) {
    if (stopped()) return;
    visit(folder_fd, before + name, name, subfolders);
  }
}

// Depth is on the heap and one folder is open at a time, so a tree may be as deep as keys allow.
void TreeImporter::walk() {
  std::vector<std::string> folders = {"."};
  while (!folders.empty() && !stopped()) {
    const std::string path = std::move(folders.back());
    folders.pop_back();
    std::vector<std::string> subfolders;
    walk_folder(path, &subfolders);
    folders.insert(folders.end(), std::make_move_iterator(subfolders.rbegin()),
                   std::make_move_iterator(subfolders.rend()));
  }
}

void TreeImporter::read_files_until_done() {
  LargeGroup group;
  while (!stopped()) {
    std::optional<std::string> path = pop(group.files.empty());
    if (path.has_value()) import_file(*path, &group);
    if (!path.has_value() && group.files.empty()) return;
    if (!path.has_value() || group.full()) import_group(std::exchange(group, LargeGroup()));
  }
}

void TreeImporter::read_files() {
  const absl::Status status = guarded("reading files", [this] { read_files_until_done(); });
  if (!status.ok()) stop(status);
}

void TreeImporter::import_file(const std::string& path, LargeGroup* group) {
  const UniqueFd fd = open_below(root_.get(), path, O_RDONLY | O_NONBLOCK);
  if (!fd) return fail(path, reason_of(errno));
  for (int attempt = 0; attempt < kAttempts && !stopped(); ++attempt) {
    struct stat info {};
    if (fstat(fd.get(), &info) != 0) return fail(path, reason_of(errno));
    if (!S_ISREG(info.st_mode))
      return fail(path, "changed while it was read: it is no longer a file");
    TreeHeader header = header_of(TreeKind::kFile, info);
    header.size = static_cast<uint64_t>(info.st_size);
    header.chunk_bytes = kTreeChunkBytes;
    if (header.chunks() > 1) {
      const auto last = static_cast<uint32_t>(std::min<uint64_t>(header.chunks() - 1, UINT32_MAX));
      if (!check_key(path, tree_chunk_key("", 1, last).size())) return;
      group->bytes += header.size;
      group->files.push_back({path, header});
      return;
    }
    if (put_small(path, fd.get(), header)) return;
  }
  if (!stopped()) fail(path, fmt::format("changed while it was read, {} times", kAttempts));
}

// False when the file changed and another attempt should be made.
bool TreeImporter::put_small(const std::string& path, int fd, const TreeHeader& header) {
  std::string value(TreeHeader::kBytes + header.size + 1, '\0');
  char* content = value.data() + TreeHeader::kBytes;
  const ssize_t got =
      lseek(fd, 0, SEEK_SET) != 0 ? -errno : read_up_to(fd, content, header.size + 1);
  struct stat after {};
  if (got < 0 || fstat(fd, &after) != 0) {
    fail(path, reason_of(got < 0 ? static_cast<int>(-got) : errno));
    return true;
  }
  if (static_cast<uint64_t>(got) != header.size || !same_time(after, header)) return false;
  TreeHeader whole = header;
  whole.digest = digest_of_chunks({xxh3_128(content, header.size)});
  value.resize(TreeHeader::kBytes + header.size);
  value.replace(0, TreeHeader::kBytes, whole.encode());
  put(*entries_, key_of(path), value);
  generations_.note_imported(path, 0);
  const MutexLock lock(mutex_);
  ++result_.files;
  return true;
}

void TreeImporter::take_step(LargeGroup& group, RecordSink& sink) {
  SinkTotals totals = sink.finish();
  std::unordered_map<std::string, std::string> reasons;  // by the file's key
  for (StreamFailure& failure : totals.failures.first) {
    std::string_view key = failure.path;
    std::string_view path;
    uint64_t generation = 0;
    uint32_t chunk = 0;
    const std::string before = generation_prefix(options_.prefix);
    std::string file = failure.path;
    if (key.starts_with(before) &&
        split_generation_key(key.substr(before.size()), &path, &generation)) {
      file = key_of(std::string(path));
    } else if (split_chunk_key(key, &path, &generation, &chunk)) {
      file = std::string(path);
    }
    reasons.emplace(std::move(file), failure.reason);
  }
  // Beyond those that are kept nobody knows which it were.
  const bool all = totals.failures.count > totals.failures.first.size();
  for (LargeFile& file : group.files) {
    const auto reason = reasons.find(key_of(file.path));
    if (reason == reasons.end() && !all) continue;
    if (file.state != LargeFile::State::kFailed) {
      fail(file.path, reason != reasons.end() ? reason->second : totals.failures.first[0].reason);
    }
    file.state = LargeFile::State::kFailed;
  }
  const MutexLock lock(mutex_);
  result_.records += totals.records;
  result_.bytes += totals.bytes;
}

void TreeImporter::put_generations(LargeGroup& group, uint64_t generation) {
  const auto sink = store_.writer();
  for (LargeFile& file : group.files) {
    file.header.generation = generation;
    TreeHeader record = file.header;
    record.kind = TreeKind::kGeneration;
    put(*sink, generation_key(options_.prefix, file.path, generation), record.encode());
    generations_.note_record();
  }
  take_step(group, *sink);
}

void TreeImporter::put_chunks_of(LargeFile& file, RecordSink& sink) {
  TreeHeader& header = file.header;
  const auto failed = [&](int error) {
    fail(file.path, reason_of(error));
    file.state = LargeFile::State::kFailed;
  };
  const UniqueFd fd = open_below(root_.get(), file.path, O_RDONLY | O_NONBLOCK);
  if (!fd) return failed(errno);
  struct stat now {};
  if (fstat(fd.get(), &now) != 0) return failed(errno);
  // Nothing else is read, as a pipe might give nothing and not end.
  if (!S_ISREG(now.st_mode)) {
    file.state = LargeFile::State::kChanged;
    return;
  }
  std::vector<Digest128> digests;
  std::string value;
  for (uint64_t number = 0; number < header.chunks() && !stopped(); ++number) {
    const size_t size = header.chunk_size(number);
    value.assign(TreeHeader::kBytes + size, '\0');
    char* content = value.data() + TreeHeader::kBytes;
    const ssize_t got = read_up_to(fd.get(), content, size);
    if (got < 0) return failed(static_cast<int>(-got));
    if (fstat(fd.get(), &now) != 0) return failed(errno);
    if (static_cast<size_t>(got) != size || static_cast<uint64_t>(now.st_size) != header.size ||
        !same_time(now, header)) {
      file.state = LargeFile::State::kChanged;
      return;
    }
    digests.push_back(xxh3_128(content, size));
    TreeHeader chunk = header;
    chunk.kind = TreeKind::kChunk;
    chunk.chunk = static_cast<uint32_t>(number);
    chunk.digest = digests.back();
    value.replace(0, TreeHeader::kBytes, chunk.encode());
    put(sink, tree_chunk_key(key_of(file.path), header.generation, chunk.chunk), value);
  }
  header.digest = digest_of_chunks(digests);
}

void TreeImporter::put_chunks(LargeGroup& group) {
  const auto sink = store_.writer();
  for (LargeFile& file : group.files) {
    if (file.state == LargeFile::State::kGood) put_chunks_of(file, *sink);
  }
  take_step(group, *sink);
}

void TreeImporter::put_files(LargeGroup& group) {
  if (stopped()) return;
  // Without the claim another import may have removed the chunks as left over.
  if (const absl::Status claimed = generations_.check(); !claimed.ok())
    return stop(with_context(claimed, "this import was stopped for too long; run it again"));
  const auto sink = store_.writer();
  for (const LargeFile& file : group.files) {
    if (file.state == LargeFile::State::kGood) put(*sink, key_of(file.path), file.header.encode());
  }
  take_step(group, *sink);
  uint64_t files = 0;
  for (const LargeFile& file : group.files) {
    if (file.state != LargeFile::State::kGood) continue;
    generations_.note_imported(file.path, file.header.generation);
    ++files;
  }
  const MutexLock lock(mutex_);
  result_.files += files;
}

void TreeImporter::import_group(LargeGroup group) {
  if (const absl::Status begun = generations_.begin(); !begun.ok()) return stop(begun);
  for (int attempt = 0; !group.files.empty() && !stopped(); ++attempt) {
    put_generations(group, generations_.of_attempt(attempt));
    put_chunks(group);
    put_files(group);
    LargeGroup again;
    for (LargeFile& file : group.files) {
      if (file.state != LargeFile::State::kChanged) continue;
      if (attempt + 1 == kAttempts) {
        fail(file.path, fmt::format("changed while it was read, {} times", kAttempts));
        generations_.note_imported(file.path, 0);  // so that its chunks are looked at
        continue;
      }
      // What it is now: large still, small, or gone.
      import_file(file.path, &again);
    }
    group = std::move(again);
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
  {
    generations_.look_for_earlier();
    std::vector<std::thread> readers;
    const absl::Status status = guarded("reading the tree", [&] {
      for (int i = 0; i < std::max(1, options_.readers); ++i)
        readers.push_back(guarded_thread("reading files", [this] { read_files(); }));
      walk();
    });
    if (!status.ok()) stop(status);
    {
      const MutexLock lock(mutex_);
      walked_ = true;
      changed_.notify_all();
    }
    for (std::thread& reader : readers) reader.join();
  }
  SinkTotals totals = entries_->finish();
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(status_);
    take_failures(totals);
  }
  // What is left over costs room and is removed by the next import: no failure of this one.
  const absl::Status collected =
      generations_.collect([this] { return progress_.cancelled.load(); });
  if (absl::IsCancelled(collected)) return collected;
  const MutexLock lock(mutex_);
  result_.removed = generations_.removed();
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

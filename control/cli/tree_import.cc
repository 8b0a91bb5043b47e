#include "control/cli/tree_import.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/file.h"
#include "base/status.h"
#include "control/cli/base64.h"
#include "control/cli/tree_entry.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr size_t kQueuedFiles = 1024;
constexpr int kAttempts = 3;  // at a file that changes while it is read

std::string reason_of(int error) { return std::strerror(error); }

TreeHeader header_of(TreeKind kind, const struct stat& info) {
  TreeHeader header;
  header.kind = kind;
  header.mode = static_cast<uint16_t>(info.st_mode & 07777);
  header.mtime_seconds = info.st_mtim.tv_sec;
  header.mtime_nanoseconds = static_cast<uint32_t>(info.st_mtim.tv_nsec);
  return header;
}

// Reads until `size` bytes or the end of the file; the bytes read, or -errno.
ssize_t read_up_to(int fd, char* into, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read(fd, into + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

// The walk puts folders and links itself and hands files to reader threads through a bounded queue.
class TreeImporter {
 public:
  TreeImporter(const TreeImportOptions& options, RecordSink& sink, StreamProgress& progress)
      : options_(options), sink_(sink), progress_(progress) {}

  absl::StatusOr<TreeImportResult> run();

 private:
  void walk();
  void walk_folder(const std::string& path, std::vector<std::string>* subfolders);
  void visit(int folder, const std::string& path, const std::string& name,
             std::vector<std::string>* subfolders);
  void import_link(int folder, const std::string& path, const std::string& name,
                   const struct stat& info);
  void read_files();
  void import_file(const std::string& path);
  // False when the file changed and another attempt should be made; failures are reported in here.
  bool try_import_file(const std::string& path, int fd, bool last_attempt);
  bool put_chunks(const std::string& path, int fd, TreeHeader header, bool* reported);

  bool push(std::string path);
  std::optional<std::string> pop();
  void put(std::string_view key, std::string_view value);
  std::string key_of(const std::string& path) const { return options_.prefix + path; }
  // Reports and is false when the key would be too long.
  bool check_key(const std::string& path, size_t suffix = 0);
  void fail(const std::string& path, std::string reason);
  void stop(const absl::Status& status);
  bool stopped();

  const TreeImportOptions& options_;
  RecordSink& sink_;
  StreamProgress& progress_;
  UniqueFd root_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> files_;
  bool walked_ = false;
  absl::Status status_;
  TreeImportResult result_;
};

void TreeImporter::fail(const std::string& path, std::string reason) {
  std::lock_guard lock(mutex_);
  result_.failures.add(path, std::move(reason));
}

void TreeImporter::stop(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = status;
  changed_.notify_all();
}

bool TreeImporter::stopped() {
  if (progress_.cancelled) stop(cancelled("cancelled"));
  std::lock_guard lock(mutex_);
  return !status_.ok();
}

bool TreeImporter::push(std::string path) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return files_.size() < kQueuedFiles || !status_.ok(); });
  if (!status_.ok()) return false;
  files_.push_back(std::move(path));
  changed_.notify_all();
  return true;
}

std::optional<std::string> TreeImporter::pop() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !files_.empty() || walked_ || !status_.ok(); });
  if (files_.empty() || !status_.ok()) return std::nullopt;
  std::string path = std::move(files_.front());
  files_.pop_front();
  changed_.notify_all();
  return path;
}

void TreeImporter::put(std::string_view key, std::string_view value) {
  if (absl::Status status = sink_.put(key, value); !status.ok()) {
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
  put(key_of(path), header.encode().append(target, header.size));
  std::lock_guard lock(mutex_);
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
    std::lock_guard lock(mutex_);
    ++result_.skipped;
  }
}

void TreeImporter::walk_folder(const std::string& path, std::vector<std::string>* subfolders) {
  struct stat info {};
  if (fstatat(root_.get(), path.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return fail(path, reason_of(errno));
  }
  put(key_of(path), header_of(TreeKind::kFolder, info).encode());
  {
    std::lock_guard lock(mutex_);
    ++result_.folders;
  }
  UniqueFd fd(openat(root_.get(), path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail(path, reason_of(errno));
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

void TreeImporter::read_files() {
  while (std::optional<std::string> path = pop()) {
    if (stopped()) return;
    import_file(*path);
  }
}

void TreeImporter::import_file(const std::string& path) {
  UniqueFd fd(openat(root_.get(), path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return fail(path, reason_of(errno));
  for (int attempt = 1; attempt <= kAttempts && !stopped(); ++attempt) {
    if (try_import_file(path, fd.get(), attempt == kAttempts)) return;
  }
}

// Further chunks go first and the file's own record last, so that a file is never listed before it
// is whole.
bool TreeImporter::put_chunks(const std::string& path, int fd, TreeHeader header, bool* reported) {
  std::string first;
  std::vector<Digest128> digests;
  const uint64_t chunks = header.chunks();
  for (uint64_t number = 0; number < chunks && !stopped(); ++number) {
    const size_t size = header.chunk_size(number);
    std::string value(TreeHeader::kBytes + size, '\0');
    char* content = value.data() + TreeHeader::kBytes;
    const ssize_t got = read_up_to(fd, content, size);
    if (got < 0) {
      fail(path, reason_of(static_cast<int>(-got)));
      *reported = true;
      return false;
    }
    if (static_cast<size_t>(got) != size) return false;
    digests.push_back(xxh3_128(content, size));
    if (number == 0) {
      first = std::move(value);
      continue;
    }
    TreeHeader chunk = header;
    chunk.kind = TreeKind::kChunk;
    chunk.chunk = static_cast<uint32_t>(number);
    chunk.digest = digests.back();
    value.replace(0, TreeHeader::kBytes, chunk.encode());
    put(tree_chunk_key(key_of(path), chunk.chunk), value);
  }
  char beyond = 0;
  struct stat after {};
  if (read_up_to(fd, &beyond, 1) != 0 || fstat(fd, &after) != 0) return false;
  if (after.st_mtim.tv_sec != header.mtime_seconds ||
      after.st_mtim.tv_nsec != static_cast<int64_t>(header.mtime_nanoseconds)) {
    return false;
  }
  if (stopped()) return true;
  header.digest = digest_of_chunks(digests);
  first.replace(0, TreeHeader::kBytes, header.encode());
  put(key_of(path), first);
  return true;
}

bool TreeImporter::try_import_file(const std::string& path, int fd, bool last_attempt) {
  struct stat before {};
  if (lseek(fd, 0, SEEK_SET) != 0 || fstat(fd, &before) != 0) {
    fail(path, reason_of(errno));
    return true;
  }
  if (!S_ISREG(before.st_mode)) {
    fail(path, "changed while it was read: it is no file any more");
    return true;
  }
  TreeHeader header = header_of(TreeKind::kFile, before);
  header.size = static_cast<uint64_t>(before.st_size);
  header.chunk_bytes = kTreeChunkBytes;
  if (header.chunks() > 1 && !check_key(path, tree_chunk_key("", 1).size())) return true;

  bool reported = false;
  if (put_chunks(path, fd, header, &reported)) {
    std::lock_guard lock(mutex_);
    ++result_.files;
    return true;
  }
  if (reported) return true;
  if (last_attempt) fail(path, fmt::format("changed while it was read, {} times", kAttempts));
  return false;
}

absl::StatusOr<TreeImportResult> TreeImporter::run() {
  root_.reset(open(options_.root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_) return errno_status(errno, fmt::format("open folder {}", options_.root));
  {
    std::vector<std::jthread> readers;
    for (int i = 0; i < std::max(1, options_.readers); ++i)
      readers.emplace_back([this] { read_files(); });
    walk();
    std::lock_guard lock(mutex_);
    walked_ = true;
    changed_.notify_all();
  }
  SinkTotals totals = sink_.finish();
  SLUICE_RETURN_IF_ERROR(status_);
  result_.records = totals.records;
  result_.bytes = totals.bytes;
  for (StreamFailure& failure : totals.failures.first) {
    result_.failures.add(failure.path.substr(options_.prefix.size()), std::move(failure.reason));
  }
  result_.failures.count += totals.failures.count - totals.failures.first.size();
  std::sort(result_.failures.first.begin(), result_.failures.first.end(),
            [](const StreamFailure& a, const StreamFailure& b) { return a.path < b.path; });
  return std::move(result_);
}

}  // namespace

absl::StatusOr<TreeImportResult> import_tree(const TreeImportOptions& options, RecordSink& sink,
                                             StreamProgress& progress) {
  return TreeImporter(options, sink, progress).run();
}

}  // namespace sluice

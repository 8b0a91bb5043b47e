#include "tree/tree_export.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/random.h"
#include "base/status.h"
#include "base/text.h"
#include "tree/tree_entry.h"

namespace sluice {
namespace {

constexpr size_t kOpenFolders = 256;  // parents kept open between files
constexpr int kFetches = 8;           // of a file that is replaced while it is read
constexpr mode_t kWorkMode = 0700;    // of folders until the end, so that files can be made in them

timespec time_of(const TreeHeader& header) {
  timespec time{};
  time.tv_sec = header.mtime_seconds;
  time.tv_nsec = header.mtime_nanoseconds;
  return time;
}

// Connections and the export's own files need descriptors too.
size_t max_open_folders() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
  return std::clamp<size_t>(limit.rlim_cur / 8, 1, kOpenFolders);
}

// Whether a chunk is the given one of a file.
bool belongs(const TreeHeader& chunk, const TreeHeader& file, uint32_t number) {
  return chunk.kind == TreeKind::kChunk && chunk.chunk == number &&
         chunk.generation == file.generation && chunk.size == file.size &&
         chunk.chunk_bytes == file.chunk_bytes;
}

absl::Status write_at(int fd, std::string_view content, uint64_t offset) {
  while (!content.empty()) {
    const ssize_t done = pwrite(fd, content.data(), content.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno_status(errno, "write");
    content.remove_prefix(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  return absl::OkStatus();
}

// A generation of a file's chunks that is being put together. Only one that the file's record names
// is placed.
struct Assembly {
  std::string staged;  // its name in the staging folder
  std::map<uint32_t, Digest128> chunks;
  uint64_t records = 0;  // with the generation's own
  uint64_t bytes = 0;
};
struct AssemblyKey {
  AssemblyKey(std::string_view file_path, const TreeHeader& header)
      : path(file_path),
        generation(header.generation),
        size(header.size),
        chunk_bytes(header.chunk_bytes) {}
  std::string path;
  uint64_t generation = 0;
  uint64_t size = 0;
  uint32_t chunk_bytes = 0;
  friend auto operator<=>(const AssemblyKey&, const AssemblyKey&) = default;
};

// A file of several chunks, with the key of its own record.
struct ChunkedFile {
  std::string key;
  TreeHeader header;
};

// "." is shorter than any of its children, but not than all names.
bool deeper_first(const std::string& a, const std::string& b) {
  const bool a_root = a == ".";
  const bool b_root = b == ".";
  if (a_root != b_root) return b_root;
  return a.size() != b.size() ? a.size() > b.size() : a > b;
}

struct PendingFolder {
  std::string path;
  TreeHeader header;
};
struct PendingLink {
  std::string path;
  std::string target;
  TreeHeader header;
};

class TreeExporter {
 public:
  TreeExporter(const TreeExportOptions& options, RecordSource& source, StreamProgress& progress)
      : options_(options), source_(source), progress_(progress) {}
  ~TreeExporter() {
    remove_staging();
    close_folders();
  }
  TreeExporter(const TreeExporter&) = delete;
  TreeExporter& operator=(const TreeExporter&) = delete;

  absl::Status open();
  absl::Status accept(std::string_view key, std::string_view value);
  absl::StatusOr<TreeExportResult> finish();

 private:
  // Any entry but chunks and generations.
  absl::Status take_entry(std::string_view key, std::string_view path, const TreeEntry& entry);
  absl::Status take_file(std::string_view key, std::string_view path, const TreeEntry& entry);
  absl::Status take_chunk(std::string_view path, const TreeEntry& entry);
  void take_generation(std::string_view path, const TreeHeader& header, size_t bytes);
  void note_failure(std::string_view path, const absl::Status& status);
  absl::Status check_going_on(std::string_view path, const absl::Status& status);
  absl::Status accept_chunk(std::string_view below, const TreeEntry& entry);
  absl::Status accept_generation(std::string_view below, const TreeHeader& header, size_t bytes);
  // Renames a staged file to its place, with its mode and time.
  absl::Status place(const std::string& staged, std::string_view path, const TreeHeader& header);
  absl::Status place_large(std::string_view path, TreeHeader header);
  // Places large files that were not whole when the scan saw them, by asking for what is missing:
  // an import may have replaced them meanwhile.
  void finish_large_files();
  absl::Status finish_large_file(const std::string& path, ChunkedFile file);
  // OK with the number of the first chunk that is not there, or of all chunks.
  absl::StatusOr<uint64_t> fetch_chunks(const std::string& path, const ChunkedFile& file);
  void drop_assemblies();
  bool is_whole(std::string_view path, const TreeHeader& header) const;
  absl::Status make_link(const PendingLink& link);
  absl::Status finish_folder(const PendingFolder& folder);
  absl::Status set_mode_and_time(int fd, const TreeHeader& header);

  absl::Status make_workable(int place, const std::string& path);
  void close_folders();
  // The folder at a path below the export's, made where it is not there; never through a link.
  absl::StatusOr<UniqueFd> open_folder(std::string_view path);
  // The open folder of a path's parent, and its last name. The descriptor stays this object's.
  absl::StatusOr<int> open_parent(std::string_view path, std::string* name);
  std::string stage_name() { return fmt::format("{}", staged_++); }
  void remove_staging();

  const TreeExportOptions& options_;
  RecordSource& source_;
  StreamProgress& progress_;
  UniqueFd root_;
  UniqueFd staging_;
  std::string staging_name_;
  uint64_t staged_ = 0;
  const size_t max_parents_ = max_open_folders();
  std::unordered_map<std::string, UniqueFd> parents_;
  std::map<AssemblyKey, Assembly> assemblies_;
  std::map<std::string, ChunkedFile> large_files_;    // by path; not placed yet
  std::unordered_map<std::string, uint64_t> placed_;  // generations of large files, by path
  std::vector<PendingFolder> folders_;
  std::vector<PendingLink> links_;
  std::map<std::string, mode_t> opened_;  // folders made workable, with the mode they had
  TreeExportResult result_;
};

absl::Status TreeExporter::open() {
  SLUICE_RETURN_IF_ERROR(make_folders(options_.folder));
  UniqueFd place(::open(options_.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place) return errno_status(errno, fmt::format("open directory {}", options_.folder));
  SLUICE_RETURN_IF_ERROR(with_context(make_workable(place.get(), "."), options_.folder));
  root_.reset(openat(place.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_) return errno_status(errno, fmt::format("open directory {}", options_.folder));
  staging_name_ = fmt::format(".sluice-export-{:016x}", entropy());
  if (mkdirat(root_.get(), staging_name_.c_str(), kWorkMode) != 0) {
    return errno_status(errno, fmt::format("make a directory in {}", options_.folder));
  }
  staging_.reset(
      openat(root_.get(), staging_name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!staging_) return errno_status(errno, fmt::format("open a directory in {}", options_.folder));
  return absl::OkStatus();
}

void TreeExporter::remove_staging() {
  if (!staging_) return;
  if (DIR* folder = fdopendir(dup(staging_.get())); folder != nullptr) {
    rewinddir(folder);
    while (const dirent* entry = readdir(folder)) unlinkat(staging_.get(), entry->d_name, 0);
    closedir(folder);
  }
  staging_.reset();
  unlinkat(root_.get(), staging_name_.c_str(), AT_REMOVEDIR);
}

// Who is not root, or is root without its capabilities, needs rights in a folder to make something
// in it, also where it is its own. Until
// close_folders() it has them; an export that was here before may have made it read-only.
absl::Status TreeExporter::make_workable(int place, const std::string& path) {
  if (faccessat(place, ".", R_OK | W_OK | X_OK, AT_EACCESS) == 0) return absl::OkStatus();
  struct stat info {};
  if (fstat(place, &info) != 0) return errno_status(errno, "look at the directory");
  if (info.st_uid != geteuid()) return absl::OkStatus();
  // Through /proc, as a descriptor without rights to read takes no fchmod.
  const std::string here = fmt::format("/proc/self/fd/{}", place);
  if (chmod(here.c_str(), (info.st_mode & 07777) | kWorkMode) != 0)
    return errno_status(errno, "make the directory writable");
  opened_.emplace(path, info.st_mode & 07777);
  return absl::OkStatus();
}

// What no entry of the export gives a mode gets back the one it had.
void TreeExporter::close_folders() {
  // Deepest first: the way to a folder may make those above it workable once more.
  while (!opened_.empty()) {
    const auto deepest = std::min_element(
        opened_.begin(), opened_.end(),
        [](const auto& a, const auto& b) { return deeper_first(a.first, b.first); });
    const auto [path, mode] = *deepest;
    const auto fd = open_folder(path);
    opened_.erase(path);
    if (fd.ok()) fchmod(fd->get(), mode);
  }
}

absl::StatusOr<UniqueFd> TreeExporter::open_folder(std::string_view path) {
  UniqueFd folder(fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
  std::string done;
  while (folder && !path.empty() && path != ".") {
    const size_t slash = path.find('/');
    const std::string name(path.substr(0, slash));
    path = slash == std::string_view::npos ? "" : path.substr(slash + 1);
    if (mkdirat(folder.get(), name.c_str(), kWorkMode) != 0 && errno != EEXIST) {
      return errno_status(errno, fmt::format("make directory '{}'", name));
    }
    done += (done.empty() ? "" : "/") + name;
    const UniqueFd place(
        openat(folder.get(), name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!place && (errno == ELOOP || errno == ENOTDIR)) {
      return failed_precondition("'{}' is there and is not a directory (links are not followed)",
                                 name);
    }
    if (!place) return errno_status(errno, fmt::format("open directory '{}'", name));
    SLUICE_RETURN_IF_ERROR(make_workable(place.get(), done));
    folder = UniqueFd(openat(place.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return errno_status(errno, fmt::format("open directory '{}'", name));
  }
  if (!folder) return errno_status(errno, "open a directory");
  return folder;
}

absl::StatusOr<int> TreeExporter::open_parent(std::string_view path, std::string* name) {
  const size_t slash = path.rfind('/');
  *name = std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
  if (slash == std::string_view::npos) return root_.get();
  const std::string parent(path.substr(0, slash));
  if (const auto found = parents_.find(parent); found != parents_.end()) return found->second.get();
  SLUICE_ASSIGN_OR_RETURN(UniqueFd folder, open_folder(parent));
  if (parents_.size() >= max_parents_) parents_.clear();
  return parents_.emplace(parent, std::move(folder)).first->second.get();
}

// Whose program a set-user-ID bit starts is up to the file's owner: for another owner than the
// recorded one it would give away rights that nobody granted.
absl::Status TreeExporter::set_mode_and_time(int fd, const TreeHeader& header) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return errno_status(errno, "look at the file");
  mode_t mode = header.mode;
  if (info.st_uid != header.uid || info.st_gid != header.gid) mode &= ~(S_ISUID | S_ISGID);
  if (mode != header.mode) ++result_.set_id_dropped;
  const timespec times[2] = {{0, UTIME_NOW}, time_of(header)};
  if (fchmod(fd, mode) != 0 || futimens(fd, times) != 0) {
    return errno_status(errno, "set mode and time");
  }
  return absl::OkStatus();
}

absl::Status TreeExporter::place(const std::string& staged, std::string_view path,
                                 const TreeHeader& header) {
  std::string name;
  SLUICE_ASSIGN_OR_RETURN(const int parent, open_parent(path, &name));
  UniqueFd fd(openat(staging_.get(), staged.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return errno_status(errno, "set mode and time");
  SLUICE_RETURN_IF_ERROR(set_mode_and_time(fd.get(), header));
  if (renameat(staging_.get(), staged.c_str(), parent, name.c_str()) != 0) {
    return errno_status(errno, "rename into place");
  }
  ++result_.files;
  return absl::OkStatus();
}

absl::Status TreeExporter::take_file(std::string_view key, std::string_view path,
                                     const TreeEntry& entry) {
  const TreeHeader& header = entry.header;
  if (header.chunks() > 1) {
    large_files_[std::string(path)] = {std::string(key), header};
    return is_whole(path, header) ? place_large(path, header) : absl::OkStatus();
  }
  if (digest_of_chunks({xxh3_128(entry.content)}) != header.digest) {
    return data_loss("its content does not have the digest of its header");
  }
  const std::string staged = stage_name();
  UniqueFd fd(
      openat(staging_.get(), staged.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return errno_status(errno, "create a file");
  SLUICE_RETURN_IF_ERROR(write_at(fd.get(), entry.content, 0));
  return place(staged, path, header);
}

absl::Status TreeExporter::take_chunk(std::string_view path, const TreeEntry& entry) {
  const TreeHeader& header = entry.header;
  const Digest128 digest = xxh3_128(entry.content);
  if (digest != header.digest) {
    return data_loss("chunk {} does not have the digest of its header", header.chunk);
  }
  Assembly& assembly = assemblies_[AssemblyKey(path, header)];
  if (assembly.staged.empty()) assembly.staged = stage_name();
  UniqueFd fd(openat(staging_.get(), assembly.staged.c_str(),
                     O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return errno_status(errno, "create a file");
  SLUICE_RETURN_IF_ERROR(
      write_at(fd.get(), entry.content, uint64_t{header.chunk} * uint64_t{header.chunk_bytes}));
  assembly.chunks[header.chunk] = digest;
  ++assembly.records;
  assembly.bytes += TreeHeader::kBytes + entry.content.size();
  const auto file = large_files_.find(std::string(path));
  if (file == large_files_.end() || !is_whole(path, file->second.header)) return absl::OkStatus();
  return place_large(path, file->second.header);
}

void TreeExporter::take_generation(std::string_view path, const TreeHeader& header, size_t bytes) {
  const AssemblyKey key(path, header);
  if (const auto placed = placed_.find(key.path); placed != placed_.end()) {
    if (placed->second == header.generation) {
      ++result_.records;
      result_.bytes += bytes;
    } else {
      ++result_.other_records;
    }
    return;
  }
  Assembly& assembly = assemblies_[key];
  ++assembly.records;
  assembly.bytes += bytes;
}

bool TreeExporter::is_whole(std::string_view path, const TreeHeader& header) const {
  const auto found = assemblies_.find(AssemblyKey(path, header));
  return found != assemblies_.end() && found->second.chunks.size() == header.chunks();
}

// By value: what it is taken from goes in here.
absl::Status TreeExporter::place_large(std::string_view path, TreeHeader header) {
  const auto assembly = assemblies_.extract(AssemblyKey(path, header));
  large_files_.erase(std::string(path));
  placed_[std::string(path)] = header.generation;
  const Assembly& parts = assembly.mapped();
  std::vector<Digest128> digests;
  for (const auto& [number, digest] : parts.chunks) digests.push_back(digest);
  absl::Status status;
  if (digest_of_chunks(digests) != header.digest)
    status = data_loss("its chunks do not belong together: import it again");
  if (status.ok()) status = place(parts.staged, path, header);
  if (!status.ok()) {
    unlinkat(staging_.get(), parts.staged.c_str(), 0);
    return status;
  }
  result_.records += parts.records + 1;
  result_.bytes += parts.bytes + TreeHeader::kBytes;
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> TreeExporter::fetch_chunks(const std::string& path,
                                                    const ChunkedFile& file) {
  const TreeHeader& header = file.header;
  for (uint64_t number = 0; number < header.chunks(); ++number) {
    if (progress_.cancelled) return cancelled("cancelled");
    const Assembly& assembly = assemblies_[AssemblyKey(path, header)];
    const auto chunk = static_cast<uint32_t>(number);
    if (assembly.chunks.contains(chunk)) continue;
    SLUICE_ASSIGN_OR_RETURN(const auto value,
                            source_.get(tree_chunk_key(file.key, header.generation, chunk)));
    if (!value.has_value()) return number;
    const auto parsed = parse_tree_entry(*value);
    if (absl::IsNotFound(parsed.status())) return number;
    SLUICE_ASSIGN_OR_RETURN(const TreeEntry entry, parsed);
    if (!belongs(entry.header, header, chunk))
      return data_loss("chunk {} is another one's", number);
    // The last one places the file.
    SLUICE_RETURN_IF_ERROR(take_chunk(path, entry));
  }
  return header.chunks();
}

absl::Status TreeExporter::finish_large_file(const std::string& path, ChunkedFile file) {
  for (int attempt = 0; attempt < kFetches; ++attempt) {
    SLUICE_ASSIGN_OR_RETURN(const uint64_t missing, fetch_chunks(path, file));
    if (missing == file.header.chunks()) return absl::OkStatus();
    SLUICE_ASSIGN_OR_RETURN(const auto value, source_.get(file.key));
    large_files_.erase(path);
    if (!value.has_value()) return absl::OkStatus();  // it was deleted meanwhile
    SLUICE_ASSIGN_OR_RETURN(const TreeEntry entry, parse_tree_entry(*value));
    const uint64_t generation = entry.header.generation;
    if (generation == file.header.generation) {
      return data_loss("chunk {} of its {} chunks is missing", missing, file.header.chunks());
    }
    SLUICE_RETURN_IF_ERROR(take_entry(file.key, path, entry));
    if (!large_files_.contains(path)) return absl::OkStatus();
    file.header = entry.header;
  }
  return unavailable("it was replaced {} times while it was read", kFetches);
}

void TreeExporter::finish_large_files() {
  while (!large_files_.empty() && !progress_.cancelled) {
    const auto [path, file] = *large_files_.begin();
    const absl::Status status = finish_large_file(path, file);
    large_files_.erase(path);
    if (!status.ok()) note_failure(path, status);
  }
  drop_assemblies();
}

void TreeExporter::drop_assemblies() {
  for (const auto& [key, assembly] : assemblies_) {
    result_.other_records += assembly.records;
    if (!assembly.staged.empty()) unlinkat(staging_.get(), assembly.staged.c_str(), 0);
  }
  assemblies_.clear();
}

absl::Status TreeExporter::take_entry(std::string_view key, std::string_view path,
                                      const TreeEntry& entry) {
  const TreeHeader& header = entry.header;
  // The root of a tree that was imported with a prefix like "docs/", when exported without it.
  if (header.kind == TreeKind::kFolder && path.ends_with("/.")) path.remove_suffix(2);
  if (path != ".") SLUICE_RETURN_IF_ERROR(check_tree_path(path));
  switch (header.kind) {
    case TreeKind::kFolder: {
      SLUICE_ASSIGN_OR_RETURN(const UniqueFd folder, open_folder(path));
      folders_.push_back({std::string(path), header});
      return absl::OkStatus();
    }
    case TreeKind::kLink:
      if (path == ".") return invalid_argument("the root as a link");
      if (xxh3_128(entry.content) != header.digest)
        return data_loss("its target does not have its digest");
      if (entry.content.find('\0') != std::string_view::npos)
        return data_loss("its target has a NUL byte");
      links_.push_back({std::string(path), std::string(entry.content), header});
      return absl::OkStatus();
    case TreeKind::kFile:
      if (path == ".") return invalid_argument("the root as a file");
      return take_file(key, path, entry);
    case TreeKind::kChunk:
    case TreeKind::kGeneration:
      break;
  }
  return internal_error("an entry of a kind that parsing let through");
}

// Where there is room for nothing more, going on would say so once for each file.
absl::Status TreeExporter::check_going_on(std::string_view path, const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) return with_context(status, printable(path));
  note_failure(path, status);
  return absl::OkStatus();
}

void TreeExporter::note_failure(std::string_view path, const absl::Status& status) {
  (absl::IsDataLoss(status) ? result_.damaged : result_.failures)
      .add(std::string(path), std::string(message_of(status)));
}

absl::Status TreeExporter::accept(std::string_view key, std::string_view value) {
  if (progress_.cancelled) return cancelled("cancelled");
  if (!key.starts_with(options_.prefix)) return internal_error("a key without the prefix");
  const std::string_view below = key.substr(options_.prefix.size());
  const absl::StatusOr<TreeEntry> entry = parse_tree_entry(value);
  if (absl::IsNotFound(entry.status())) {
    ++result_.other_records;
    return absl::OkStatus();
  }
  progress_.count(key.size() + value.size());
  if (!entry.ok()) return check_going_on(below, entry.status());
  const TreeHeader& header = entry->header;
  if (header.kind == TreeKind::kGeneration) return accept_generation(below, header, value.size());
  if (header.kind == TreeKind::kChunk) return accept_chunk(below, *entry);
  if (below.find('\0') != std::string_view::npos)
    return check_going_on(below, data_loss("its key is that of a chunk"));
  const absl::Status status = take_entry(key, below, *entry);
  if (!status.ok()) return check_going_on(below, status);
  if (header.generation == 0) {
    ++result_.records;
    result_.bytes += key.size() + value.size();
  }
  return absl::OkStatus();
}

absl::Status TreeExporter::accept_chunk(std::string_view below, const TreeEntry& entry) {
  std::string_view path;
  uint64_t generation = 0;
  uint32_t chunk = 0;
  if (!split_chunk_key(below, &path, &generation, &chunk) || chunk != entry.header.chunk ||
      generation != entry.header.generation) {
    return check_going_on(below,
                          data_loss("its key is not the one of chunk {}", entry.header.chunk));
  }
  absl::Status status = check_tree_path(path);
  if (status.ok()) status = take_chunk(path, entry);
  return status.ok() ? status : check_going_on(path, status);
}

// The prefix of the import may be longer than the export's: the key is prefix, NUL, the rest of the
// path, NUL, generation.
absl::Status TreeExporter::accept_generation(std::string_view below, const TreeHeader& header,
                                             size_t bytes) {
  const size_t nul = below.find('\0');
  std::string_view rest;
  uint64_t generation = 0;
  if (nul == std::string_view::npos ||
      !split_generation_key(below.substr(nul + 1), &rest, &generation) ||
      generation != header.generation) {
    return check_going_on(below, data_loss("its key is not the one of its generation"));
  }
  take_generation(std::string(below.substr(0, nul)).append(rest), header, bytes);
  return absl::OkStatus();
}

absl::Status TreeExporter::make_link(const PendingLink& link) {
  std::string name;
  SLUICE_ASSIGN_OR_RETURN(const int parent, open_parent(link.path, &name));
  const std::string staged = stage_name();
  const timespec times[2] = {{0, UTIME_NOW}, time_of(link.header)};
  if (symlinkat(link.target.c_str(), staging_.get(), staged.c_str()) != 0 ||
      utimensat(staging_.get(), staged.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0 ||
      renameat(staging_.get(), staged.c_str(), parent, name.c_str()) != 0) {
    return errno_status(errno, "make the link");
  }
  ++result_.links;
  return absl::OkStatus();
}

absl::Status TreeExporter::finish_folder(const PendingFolder& folder) {
  SLUICE_ASSIGN_OR_RETURN(const UniqueFd fd, open_folder(folder.path));
  SLUICE_RETURN_IF_ERROR(set_mode_and_time(fd.get(), folder.header));
  ++result_.folders;
  return absl::OkStatus();
}

absl::StatusOr<TreeExportResult> TreeExporter::finish() {
  finish_large_files();
  for (const PendingLink& link : links_) {
    if (absl::Status status = make_link(link); !status.ok()) {
      result_.failures.add(link.path, std::string(message_of(status)));
    }
  }
  parents_.clear();
  remove_staging();
  for (const PendingFolder& folder : folders_) opened_.erase(folder.path);
  // A folder's time and mode are set when nothing is made in it any more, and while the folders
  // above can still be entered.
  std::sort(folders_.begin(), folders_.end(), [](const PendingFolder& a, const PendingFolder& b) {
    return deeper_first(a.path, b.path);
  });
  for (const PendingFolder& folder : folders_) {
    if (absl::Status status = finish_folder(folder); !status.ok()) {
      result_.failures.add(folder.path, std::string(message_of(status)));
    }
  }
  close_folders();
  if (progress_.cancelled) return cancelled("cancelled");
  if (syncfs(root_.get()) != 0) return errno_status(errno, fmt::format("sync {}", options_.folder));
  return std::move(result_);
}

}  // namespace

absl::StatusOr<TreeExportResult> export_tree(const TreeExportOptions& options, RecordSource& source,
                                             StreamProgress& progress) {
  TreeExporter exporter(options, source, progress);
  SLUICE_RETURN_IF_ERROR(exporter.open());
  SLUICE_RETURN_IF_ERROR(source.scan(
      options.prefix,
      [&](std::string_view key, std::string_view value) { return exporter.accept(key, value); }));
  return exporter.finish();
}

}  // namespace sluice

#include "control/cli/tree_export.h"

#include <dirent.h>
#include <fcntl.h>
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
#include "control/cli/tree_entry.h"

namespace sluice {
namespace {

constexpr size_t kOpenFolders = 256;  // parents kept open between files
constexpr mode_t kWorkMode = 0700;    // of folders until the end, so that files can be made in them

timespec time_of(const TreeHeader& header) {
  timespec time{};
  time.tv_sec = header.mtime_seconds;
  time.tv_nsec = header.mtime_nanoseconds;
  return time;
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

// A file of several chunks that is being put together. Chunks of an earlier import of the same path
// differ in size or time and so gather elsewhere, where they never become whole.
struct Assembly {
  std::string staged;  // its name in the staging folder
  std::optional<TreeHeader> head;
  std::map<uint32_t, Digest128> chunks;
};
struct AssemblyKey {
  std::string path;
  uint64_t size = 0;
  uint32_t chunk_bytes = 0;
  int64_t mtime_seconds = 0;
  uint32_t mtime_nanoseconds = 0;
  friend auto operator<=>(const AssemblyKey&, const AssemblyKey&) = default;
};

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
  TreeExporter(const TreeExportOptions& options, StreamProgress& progress)
      : options_(options), progress_(progress) {}
  ~TreeExporter() { remove_staging(); }
  TreeExporter(const TreeExporter&) = delete;
  TreeExporter& operator=(const TreeExporter&) = delete;

  absl::Status open();
  absl::Status accept(std::string_view key, std::string_view value);
  absl::StatusOr<TreeExportResult> finish();

 private:
  absl::Status take_entry(std::string_view path, const TreeEntry& entry);
  absl::Status take_file(std::string_view path, const TreeEntry& entry);
  absl::Status take_chunk(std::string_view path, const TreeEntry& entry);
  // Renames a staged file to its place, with its mode and time.
  absl::Status place(const std::string& staged, std::string_view path, const TreeHeader& header);
  absl::Status finish_assembly(const AssemblyKey& key, const Assembly& assembly);
  void finish_assemblies();
  absl::Status make_link(const PendingLink& link);
  absl::Status finish_folder(const PendingFolder& folder);

  // The folder at a path below the export's, made where it is not there; never through a link.
  absl::StatusOr<UniqueFd> open_folder(std::string_view path);
  // The open folder of a path's parent, and its last name. The descriptor stays this object's.
  absl::StatusOr<int> open_parent(std::string_view path, std::string* name);
  std::string stage_name() { return fmt::format("{}", staged_++); }
  void remove_staging();

  const TreeExportOptions& options_;
  StreamProgress& progress_;
  UniqueFd root_;
  UniqueFd staging_;
  std::string staging_name_;
  uint64_t staged_ = 0;
  std::unordered_map<std::string, UniqueFd> parents_;
  std::map<AssemblyKey, Assembly> assemblies_;
  std::vector<PendingFolder> folders_;
  std::vector<PendingLink> links_;
  TreeExportResult result_;
};

absl::Status TreeExporter::open() {
  SLUICE_RETURN_IF_ERROR(make_folders(options_.folder));
  root_.reset(::open(options_.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_) return errno_status(errno, fmt::format("open folder {}", options_.folder));
  staging_name_ = fmt::format(".sluice-export-{:016x}", entropy());
  if (mkdirat(root_.get(), staging_name_.c_str(), kWorkMode) != 0) {
    return errno_status(errno, fmt::format("make a folder in {}", options_.folder));
  }
  staging_.reset(
      openat(root_.get(), staging_name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!staging_) return errno_status(errno, fmt::format("open a folder in {}", options_.folder));
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

absl::StatusOr<UniqueFd> TreeExporter::open_folder(std::string_view path) {
  UniqueFd folder(dup(root_.get()));
  while (folder && !path.empty() && path != ".") {
    const size_t slash = path.find('/');
    const std::string name(path.substr(0, slash));
    path = slash == std::string_view::npos ? "" : path.substr(slash + 1);
    if (mkdirat(folder.get(), name.c_str(), kWorkMode) != 0 && errno != EEXIST) {
      return errno_status(errno, fmt::format("make folder '{}'", name));
    }
    UniqueFd next(
        openat(folder.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next && (errno == ELOOP || errno == ENOTDIR)) {
      return failed_precondition("'{}' is there and no folder (links are not followed)", name);
    }
    if (!next) return errno_status(errno, fmt::format("open folder '{}'", name));
    folder = std::move(next);
  }
  if (!folder) return errno_status(errno, "open a folder");
  return folder;
}

absl::StatusOr<int> TreeExporter::open_parent(std::string_view path, std::string* name) {
  const size_t slash = path.rfind('/');
  *name = std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
  if (slash == std::string_view::npos) return root_.get();
  const std::string parent(path.substr(0, slash));
  if (const auto found = parents_.find(parent); found != parents_.end()) return found->second.get();
  SLUICE_ASSIGN_OR_RETURN(UniqueFd folder, open_folder(parent));
  if (parents_.size() >= kOpenFolders) parents_.clear();
  return parents_.emplace(parent, std::move(folder)).first->second.get();
}

absl::Status TreeExporter::place(const std::string& staged, std::string_view path,
                                 const TreeHeader& header) {
  std::string name;
  SLUICE_ASSIGN_OR_RETURN(const int parent, open_parent(path, &name));
  UniqueFd fd(openat(staging_.get(), staged.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  const timespec times[2] = {{0, UTIME_NOW}, time_of(header)};
  if (!fd || fchmod(fd.get(), header.mode) != 0 || futimens(fd.get(), times) != 0) {
    return errno_status(errno, "set mode and time");
  }
  if (renameat(staging_.get(), staged.c_str(), parent, name.c_str()) != 0) {
    return errno_status(errno, "rename into place");
  }
  ++result_.files;
  return absl::OkStatus();
}

absl::Status TreeExporter::take_file(std::string_view path, const TreeEntry& entry) {
  const TreeHeader& header = entry.header;
  if (header.chunks() > 1) return take_chunk(path, entry);
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
  const AssemblyKey key{std::string(path), header.size, header.chunk_bytes, header.mtime_seconds,
                        header.mtime_nanoseconds};
  Assembly& assembly = assemblies_[key];
  if (assembly.staged.empty()) assembly.staged = stage_name();
  const Digest128 digest = xxh3_128(entry.content);
  if (header.kind == TreeKind::kChunk && digest != header.digest) {
    return data_loss("chunk {} does not have the digest of its header", header.chunk);
  }
  UniqueFd fd(openat(staging_.get(), assembly.staged.c_str(),
                     O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return errno_status(errno, "create a file");
  SLUICE_RETURN_IF_ERROR(
      write_at(fd.get(), entry.content, uint64_t{header.chunk} * uint64_t{header.chunk_bytes}));
  assembly.chunks[header.chunk] = digest;
  if (header.kind == TreeKind::kFile) assembly.head = header;
  if (!assembly.head || assembly.chunks.size() != header.chunks()) return absl::OkStatus();
  const absl::Status status = finish_assembly(key, assembly);
  assemblies_.erase(key);
  return status;
}

absl::Status TreeExporter::finish_assembly(const AssemblyKey& key, const Assembly& assembly) {
  std::vector<Digest128> digests;
  for (const auto& [number, digest] : assembly.chunks) digests.push_back(digest);
  if (digest_of_chunks(digests) != assembly.head->digest) {
    unlinkat(staging_.get(), assembly.staged.c_str(), 0);
    return data_loss("its chunks do not belong together: import it again");
  }
  return place(assembly.staged, key.path, *assembly.head);
}

absl::Status TreeExporter::take_entry(std::string_view path, const TreeEntry& entry) {
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
      return take_file(path, entry);
    case TreeKind::kChunk:
      return take_chunk(path, entry);
  }
  return internal_error("an entry of a kind that parsing let through");
}

absl::Status TreeExporter::accept(std::string_view key, std::string_view value) {
  if (progress_.cancelled) return cancelled("cancelled");
  if (!key.starts_with(options_.prefix)) return internal_error("a key without the prefix");
  std::string_view path;
  uint32_t chunk = 0;
  const bool named = split_tree_key(key.substr(options_.prefix.size()), &path, &chunk);
  const absl::StatusOr<TreeEntry> entry = parse_tree_entry(value);
  if (absl::IsNotFound(entry.status())) {
    ++result_.other_records;
    return absl::OkStatus();
  }
  absl::Status status = entry.status();
  if (status.ok() && (!named || chunk != entry->header.chunk)) {
    status = data_loss("its key is not the one of chunk {}", entry->header.chunk);
  }
  if (status.ok()) status = take_entry(path, *entry);
  if (status.ok()) {
    ++result_.records;
    result_.bytes += key.size() + value.size();
    progress_.count(key.size() + value.size());
  } else if (absl::IsResourceExhausted(status)) {
    return with_context(status, path);
  } else {
    (absl::IsDataLoss(status) ? result_.damaged : result_.failures)
        .add(std::string(path), std::string(message_of(status)));
  }
  return absl::OkStatus();
}

void TreeExporter::finish_assemblies() {
  for (const auto& [key, assembly] : assemblies_) {
    if (!assembly.head) {
      result_.other_records += assembly.chunks.size();
      continue;
    }
    uint32_t missing = 0;
    for (const auto& [number, digest] : assembly.chunks) {
      if (number != missing) break;
      ++missing;
    }
    result_.damaged.add(key.path,
                        fmt::format("{} of its {} chunks are missing, the first is chunk {}",
                                    assembly.head->chunks() - assembly.chunks.size(),
                                    assembly.head->chunks(), missing));
  }
  assemblies_.clear();
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
  const timespec times[2] = {{0, UTIME_NOW}, time_of(folder.header)};
  if (fchmod(fd.get(), folder.header.mode) != 0 || futimens(fd.get(), times) != 0) {
    return errno_status(errno, "set the folder's mode and time");
  }
  ++result_.folders;
  return absl::OkStatus();
}

absl::StatusOr<TreeExportResult> TreeExporter::finish() {
  finish_assemblies();
  for (const PendingLink& link : links_) {
    if (absl::Status status = make_link(link); !status.ok()) {
      result_.failures.add(link.path, std::string(message_of(status)));
    }
  }
  parents_.clear();
  remove_staging();
  // Longer paths first: a folder's time and mode are set when nothing is made in it any more, and
  // while the folders above can still be entered. "." is shorter than any of its children, but not
  // than all names.
  std::sort(folders_.begin(), folders_.end(), [](const PendingFolder& a, const PendingFolder& b) {
    const bool a_root = a.path == ".";
    const bool b_root = b.path == ".";
    if (a_root != b_root) return b_root;
    return a.path.size() != b.path.size() ? a.path.size() > b.path.size() : a.path > b.path;
  });
  for (const PendingFolder& folder : folders_) {
    if (absl::Status status = finish_folder(folder); !status.ok()) {
      result_.failures.add(folder.path, std::string(message_of(status)));
    }
  }
  if (syncfs(root_.get()) != 0) return errno_status(errno, fmt::format("sync {}", options_.folder));
  return std::move(result_);
}

}  // namespace

absl::StatusOr<TreeExportResult> export_tree(const TreeExportOptions& options, RecordSource& source,
                                             StreamProgress& progress) {
  TreeExporter exporter(options, progress);
  SLUICE_RETURN_IF_ERROR(exporter.open());
  SLUICE_RETURN_IF_ERROR(source.scan(
      options.prefix,
      [&](std::string_view key, std::string_view value) { return exporter.accept(key, value); }));
  return exporter.finish();
}

}  // namespace sluice

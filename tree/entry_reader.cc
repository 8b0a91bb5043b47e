#include "tree/entry_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/status.h"
#include "tree/beneath.h"
#include "tree/tree_entry.h"

namespace sluice {
namespace {

// The keys of later chunks would not stand behind those of earlier ones: 15 TiB.
constexpr uint64_t kMaxChunksInOrder = uint64_t{1} << 24;
constexpr int kDirectoryFlags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

std::string_view parent_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? "." : path.substr(0, slash);
}

// Chunks of one state of a file have one number.
uint64_t generation_of(const FileIdentity& identity, uint64_t size) {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put(identity.device);
  out.put(identity.inode);
  out.put(static_cast<uint64_t>(identity.ctime_ns));
  out.put(size);
  constexpr uint64_t kMask = (uint64_t{1} << (kGenerationBits - kAttemptBits)) - 1;
  return (xxh3_64(bytes) & kMask) << kAttemptBits;
}

}  // namespace

static_assert(kReadAttempts < (1 << kAttemptBits));

absl::Status EntryReader::open_parent(std::string_view path) {
  const std::string_view parent = parent_of(path);
  if (!parent_ || parent_path_ != parent) {
    parent_path_.reset();
    parent_ = open_beneath(root_, parent, O_PATH | O_DIRECTORY);
    if (!parent_) {
      // Something else may have taken the directory's name.
      if (errno == ENOTDIR || errno == ELOOP) return not_found("its directory is gone");
      return errno_status(errno, "open its directory");
    }
    parent_path_ = parent;
  }
  name_ = path == "." ? "." : path.substr(path.rfind('/') + 1);
  return absl::OkStatus();
}

// Where the path leads, or, where the file is read by this name and has left it, another name.
absl::Status EntryReader::find(const FileId& noted, struct stat* info) {
  constexpr int kFlags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  absl::Status found = open_parent(path_);
  if (found.ok() && fstatat(parent_.get(), name_.c_str(), info, kFlags) != 0) {
    found = errno_status(errno, "stat");
  }
  if (found.ok() && id_of(identity_of(*info)) == noted) return found;
  if (!found.ok() && !absl::IsNotFound(found)) return found;
  SLUICE_ASSIGN_OR_RETURN(const auto names, names_of_(noted));
  if (!names.has_value() || names->first != path_ || names->other == path_) return found;
  struct stat other {};
  if (open_parent(names->other).ok() &&
      fstatat(parent_.get(), name_.c_str(), &other, kFlags) == 0 &&
      id_of(identity_of(other)) == noted) {
    *info = other;
    return absl::OkStatus();
  }
  // A file has taken its place: that one is read.
  if (found.ok()) return open_parent(path_);
  return found;
}

absl::Status EntryReader::begin(std::string_view path, const FileId& noted) {
  path_ = path;
  left_ = Left::kNothing;
  changed_ = linked_ = false;
  bytes_read_ = 0;
  attempt_ = 0;
  generation_ = 0;
  file_.reset();
  chunks_.reset();
  struct stat info {};
  SLUICE_RETURN_IF_ERROR(find(noted, &info));
  const FileMetadata metadata = metadata_of(info);
  type_ = metadata.type;
  identity_ = identity_of(info);
  size_ = metadata.size;
  if (type_ == FileType::kSocket) return failed_precondition("it is a socket");
  key_ = path_;
  if (type_ == FileType::kDirectory) return begin_directory();
  if (identity_.links > 1) {
    SLUICE_ASSIGN_OR_RETURN(const bool further, is_further_name(identity_));
    if (further) {
      left_ = Left::kOne;
      return absl::OkStatus();
    }
  }
  if (type_ == FileType::kFile) return begin_file();
  SLUICE_ASSIGN_OR_RETURN(const FileMetadata special,
                          read_special(parent_.get(), name_, info, owners_));
  value_ = encode_special(special, linked_ ? number_of(id_of(identity_)) : 0, nullptr);
  left_ = Left::kOne;
  return absl::OkStatus();
}

absl::Status EntryReader::begin_directory() {
  const UniqueFd fd(openat(parent_.get(), name_.c_str(), O_RDONLY | kDirectoryFlags));
  const UniqueFd place(fd ? -1 : openat(parent_.get(), name_.c_str(), O_PATH | kDirectoryFlags));
  struct stat info {};
  if ((!fd && !place) || fstat(fd ? fd.get() : place.get(), &info) != 0)
    return errno_status(errno, "open it");
  FileMetadata metadata = metadata_of(info);
  identity_ = identity_of(info);
  owners_.name(&metadata);
  SLUICE_ASSIGN_OR_RETURN(metadata.attributes, fd ? read_attributes(fd.get())
                                                  : read_attributes_at(parent_.get(), name_));
  value_ = encode_special(metadata, 0, nullptr);
  left_ = Left::kOne;
  return absl::OkStatus();
}

// Sets the value where another name has the content, and still is one of the same file.
absl::StatusOr<bool> EntryReader::is_further_name(const FileIdentity& identity) {
  SLUICE_ASSIGN_OR_RETURN(const auto names, names_of_(id_of(identity)));
  if (!names.has_value()) return false;
  linked_ = names->first == path_;
  if (linked_) return false;
  const UniqueFd other = open_beneath(root_, names->first, O_PATH);
  struct stat info {};
  if (!other || fstat(other.get(), &info) != 0 || id_of(identity_of(info)) != id_of(identity))
    return false;
  value_ = encode_hard_link(path_, names->first, {}, number_of(id_of(identity)));
  return true;
}

absl::Status EntryReader::open_file() {
  chunks_.reset();
  file_.reset();
  auto file = TreeFile::open(parent_.get(), name_, owners_);
  // Something else has taken its name.
  if (absl::IsAborted(file.status())) return not_found("{}", message_of(file.status()));
  SLUICE_RETURN_IF_ERROR(file.status());
  file_ = *std::move(file);
  identity_ = file_->identity();
  size_ = file_->metadata().size;
  SLUICE_ASSIGN_OR_RETURN(entry_, describe(*file_));
  entry_.extras.linked = linked_;
  if (linked_) entry_.extras.file_number = number_of(id_of(identity_));
  if (entry_.header.chunks() == 1) return absl::OkStatus();
  if (entry_.header.chunks() > kMaxChunksInOrder)
    return invalid_argument("it has {} bytes of data; at most {} can be kept", size_,
                            kMaxChunksInOrder * kTreeChunkBytes);
  // Chunks of later attempts stand behind those of earlier ones.
  if (generation_ == 0) generation_ = generation_of(identity_, size_);
  entry_.header.generation = generation_ | static_cast<uint64_t>(attempt_ + 1);
  chunks_ = std::make_unique<ChunkReader>(*file_, entry_);
  same_ = true;
  return absl::OkStatus();
}

// Reads a file of one chunk, at once and as often as it takes.
absl::Status EntryReader::begin_file() {
  for (;; ++attempt_) {
    SLUICE_RETURN_IF_ERROR(open_file());
    if (entry_.header.chunks() > 1) {
      left_ = Left::kChunks;
      return absl::OkStatus();
    }
    SLUICE_ASSIGN_OR_RETURN(const bool same, read_whole(*file_, &entry_, &value_));
    bytes_read_ += value_.size();
    if (!same && attempt_ + 1 < kReadAttempts) continue;
    changed_ = !same;
    if (changed_) mark_changed(&entry_, &value_);
    left_ = Left::kOne;
    return absl::OkStatus();
  }
}

absl::StatusOr<bool> EntryReader::next() {
  switch (std::exchange(left_, Left::kNothing)) {
    case Left::kNothing:
      return false;
    case Left::kOne:
      return true;
    case Left::kChunks:
      return next_chunk();
    case Left::kAgain:
      return read_again();
    case Left::kOwnRecord:
      changed_ = !same_;
      entry_.header.digest = chunks_->digest();
      entry_.extras.changed = changed_;
      key_ = own_record_key(path_);
      value_ = encode_tree_entry(entry_.header, entry_.extras);
      return true;
  }
  return false;
}

// Of a file that will be read once more, what is left is not looked at.
absl::StatusOr<bool> EntryReader::next_chunk() {
  key_ = tree_chunk_key(path_, entry_.header.generation, chunks_->number());
  SLUICE_ASSIGN_OR_RETURN(const bool same, chunks_->next(&value_));
  bytes_read_ += value_.size();
  same_ = same_ && same;
  if (!same_ && attempt_ + 1 < kReadAttempts) {
    left_ = Left::kAgain;
  } else {
    left_ = chunks_->done() ? Left::kOwnRecord : Left::kChunks;
  }
  return true;
}

absl::StatusOr<bool> EntryReader::read_again() {
  ++attempt_;
  SLUICE_RETURN_IF_ERROR(begin_file());
  if (std::exchange(left_, Left::kNothing) == Left::kChunks) return next_chunk();
  // It has become small; chunks came before, so its record has the key behind them all the same.
  key_ = own_record_key(path_);
  return true;
}

}  // namespace sluice

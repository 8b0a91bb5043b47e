// What a file system says of a file, directory, link, pipe or device, apart from its content.
#ifndef SLUICE_TREE_FILE_METADATA_H_
#define SLUICE_TREE_FILE_METADATA_H_

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"

namespace sluice {

enum class FileType : uint8_t {
  kDirectory,
  kFile,
  kLink,
  kPipe,
  kCharacterDevice,
  kBlockDevice,
  kSocket,
};

struct ExtendedAttribute {
  std::string name;
  std::string value;
  friend bool operator==(const ExtendedAttribute&, const ExtendedAttribute&) = default;
};

// Names and values of one entry together. Linux allows more on some file systems; what has more is
// reported and left out.
inline constexpr size_t kMaxAttributeBytes = size_t{1} << 20;
inline constexpr size_t kMaxAttributeName = 255;

struct FileMetadata {
  FileType type = FileType::kFile;
  uint16_t mode = 0;  // the twelve permission bits
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string user;  // names of uid and gid; empty where the system has none
  std::string group;
  int64_t mtime_seconds = 0;  // since the Unix epoch
  uint32_t mtime_nanoseconds = 0;
  uint64_t size = 0;
  uint32_t device_major = 0;  // of kCharacterDevice and kBlockDevice
  uint32_t device_minor = 0;
  std::vector<ExtendedAttribute> attributes;  // by name, each once
  std::string target;                         // of a kLink
};

// Tells names of one inode from others, and one state of it from a later one.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t links = 0;
  int64_t ctime_ns = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

// What restoring an attribute's name needs, and how it is counted where it cannot be set.
enum class AttributeKind : uint8_t { kExtended, kAcl, kCapability };
AttributeKind attribute_kind(std::string_view name);

// All but names, attributes and the link's target.
FileMetadata metadata_of(const struct stat& info);
FileIdentity identity_of(const struct stat& info);

// Of an open file or directory. Empty where the file system keeps none; an attribute that goes
// meanwhile is left out. RESOURCE_EXHAUSTED over kMaxAttributeBytes.
absl::StatusOr<std::vector<ExtendedAttribute>> read_attributes(int fd);
// Of a link, pipe or device, by its directory and name; never follows the link. Needs /proc.
absl::StatusOr<std::vector<ExtendedAttribute>> read_attributes_at(int directory,
                                                                  const std::string& name);

// The names that this system gives owners, and the reverse. Looks each up once (bounded).
// Thread-safe.
class OwnerNames {
 public:
  void name(FileMetadata* metadata);
  // `otherwise` where the system does not know the name.
  uint32_t uid_of(const std::string& user, uint32_t otherwise);
  uint32_t gid_of(const std::string& group, uint32_t otherwise);

 private:
  static constexpr size_t kMaxKnown = 65'536;
  Mutex mutex_;
  std::unordered_map<uint32_t, std::string> users_ SLUICE_GUARDED_BY(mutex_);
  std::unordered_map<uint32_t, std::string> groups_ SLUICE_GUARDED_BY(mutex_);
  std::unordered_map<std::string, int64_t> uids_ SLUICE_GUARDED_BY(mutex_);  // -1: not known
  std::unordered_map<std::string, int64_t> gids_ SLUICE_GUARDED_BY(mutex_);
};

// All of a link, pipe or device, by its directory and name; `info` is what fstatat() says of it.
// Errors as of read_attributes(), and INVALID_ARGUMENT for a target that no link can have.
absl::StatusOr<FileMetadata> read_special(int directory, const std::string& name,
                                          const struct stat& info, OwnerNames& names);

}  // namespace sluice

#endif  // SLUICE_TREE_FILE_METADATA_H_

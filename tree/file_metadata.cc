#include "tree/file_metadata.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <utility>

#include "base/status.h"

namespace sluice {
namespace {

constexpr int kSizeRaces = 8;  // attributes that grow while they are read
constexpr size_t kOwnerBytes = size_t{1} << 16;
constexpr size_t kMaxOwnerName = 255;

FileType type_of(mode_t mode) {
  if (S_ISDIR(mode)) return FileType::kDirectory;
  if (S_ISLNK(mode)) return FileType::kLink;
  if (S_ISFIFO(mode)) return FileType::kPipe;
  if (S_ISCHR(mode)) return FileType::kCharacterDevice;
  if (S_ISBLK(mode)) return FileType::kBlockDevice;
  if (S_ISSOCK(mode)) return FileType::kSocket;
  return FileType::kFile;
}

using AttributeCall = std::function<ssize_t(char*, size_t)>;

// Asks for the size, then for the bytes, until both agree. `absent` is an errno that means nothing.
absl::StatusOr<std::string> read_sized(const AttributeCall& call, int absent) {
  for (int attempt = 0; attempt < kSizeRaces; ++attempt) {
    const ssize_t size = call(nullptr, 0);
    if (size == 0 || (size < 0 && (errno == absent || errno == ENOTSUP))) return std::string();
    if (size < 0) return errno_status(errno, "read its extended attributes");
    std::string bytes(static_cast<size_t>(size), '\0');
    const ssize_t got = call(bytes.data(), bytes.size());
    if (got < 0 && errno == ERANGE) continue;
    if (got < 0 && errno == absent) return std::string();
    if (got < 0) return errno_status(errno, "read its extended attributes");
    bytes.resize(static_cast<size_t>(got));
    return bytes;
  }
  return unavailable("its extended attributes change while they are read");
}

absl::StatusOr<std::vector<ExtendedAttribute>> read_all(
    const AttributeCall& list, const std::function<ssize_t(const char*, char*, size_t)>& get) {
  std::vector<ExtendedAttribute> attributes;
  SLUICE_ASSIGN_OR_RETURN(const std::string names, read_sized(list, ENODATA));
  size_t bytes = names.size();
  for (size_t at = 0; at < names.size();) {
    const std::string name = names.c_str() + at;
    at += name.size() + 1;
    bool gone = false;
    const auto value = read_sized(
        [&](char* into, size_t size) {
          const ssize_t got = get(name.c_str(), into, size);
          gone = got < 0 && errno == ENODATA;
          return got;
        },
        ENODATA);
    if (!value.ok()) return with_context(value.status(), name);
    if (gone) continue;
    bytes += value->size();
    if (bytes > kMaxAttributeBytes) {
      return resource_exhausted("its extended attributes have over {} bytes", kMaxAttributeBytes);
    }
    attributes.push_back({name, *value});
  }
  std::sort(attributes.begin(), attributes.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return attributes;
}

// A name as long as a record takes; longer ones are of no system that names owners by number too.
std::string bounded(const char* name) {
  std::string text = name == nullptr ? "" : name;
  return text.size() > kMaxOwnerName ? std::string() : text;
}

template <typename Key, typename Value>
const Value& remember(std::unordered_map<Key, Value>& known, const Key& key, size_t limit,
                      const std::function<Value()>& look_up) {
  if (const auto found = known.find(key); found != known.end()) return found->second;
  if (known.size() >= limit) known.clear();
  return known.emplace(key, look_up()).first->second;
}

}  // namespace

AttributeKind attribute_kind(std::string_view name) {
  if (name.starts_with("system.posix_acl_") || name == "system.nfs4_acl" ||
      name == "system.richacl") {
    return AttributeKind::kAcl;
  }
  return name == "security.capability" ? AttributeKind::kCapability : AttributeKind::kExtended;
}

FileMetadata metadata_of(const struct stat& info) {
  FileMetadata metadata;
  metadata.type = type_of(info.st_mode);
  metadata.mode = static_cast<uint16_t>(info.st_mode & 07777);
  metadata.uid = info.st_uid;
  metadata.gid = info.st_gid;
  metadata.mtime_seconds = info.st_mtim.tv_sec;
  metadata.mtime_nanoseconds = static_cast<uint32_t>(info.st_mtim.tv_nsec);
  if (metadata.type == FileType::kFile) metadata.size = static_cast<uint64_t>(info.st_size);
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
    metadata.device_major = major(info.st_rdev);
    metadata.device_minor = minor(info.st_rdev);
  }
  return metadata;
}

FileIdentity identity_of(const struct stat& info) {
  return {info.st_dev, info.st_ino, info.st_nlink,
          int64_t{info.st_ctim.tv_sec} * 1'000'000'000 + info.st_ctim.tv_nsec};
}

absl::StatusOr<std::vector<ExtendedAttribute>> read_attributes(int fd) {
  return read_all(
      [&](char* into, size_t size) { return flistxattr(fd, into, size); },
      [&](const char* name, char* into, size_t size) { return fgetxattr(fd, name, into, size); });
}

absl::StatusOr<std::vector<ExtendedAttribute>> read_attributes_at(int directory,
                                                                  const std::string& name) {
  // There is no listxattrat() before Linux 6.13.
  const std::string path = fmt::format("/proc/self/fd/{}/{}", directory, name);
  return read_all([&](char* into, size_t size) { return llistxattr(path.c_str(), into, size); },
                  [&](const char* attribute, char* into, size_t size) {
                    return lgetxattr(path.c_str(), attribute, into, size);
                  });
}

void OwnerNames::name(FileMetadata* metadata) {
  const MutexLock lock(mutex_);
  std::string buffer;
  metadata->user = remember<uint32_t, std::string>(users_, metadata->uid, kMaxKnown, [&] {
    buffer.resize(kOwnerBytes);
    passwd entry{};
    passwd* found = nullptr;
    const int error = getpwuid_r(metadata->uid, &entry, buffer.data(), buffer.size(), &found);
    return error == 0 && found != nullptr ? bounded(found->pw_name) : std::string();
  });
  metadata->group = remember<uint32_t, std::string>(groups_, metadata->gid, kMaxKnown, [&] {
    buffer.resize(kOwnerBytes);
    ::group entry{};
    ::group* found = nullptr;
    const int error = getgrgid_r(metadata->gid, &entry, buffer.data(), buffer.size(), &found);
    return error == 0 && found != nullptr ? bounded(found->gr_name) : std::string();
  });
}

uint32_t OwnerNames::uid_of(const std::string& user, uint32_t otherwise) {
  if (user.empty()) return otherwise;
  const MutexLock lock(mutex_);
  const int64_t uid = remember<std::string, int64_t>(uids_, user, kMaxKnown, [&]() -> int64_t {
    std::string buffer(kOwnerBytes, '\0');
    passwd entry{};
    passwd* found = nullptr;
    const int error = getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found);
    return error == 0 && found != nullptr ? int64_t{found->pw_uid} : -1;
  });
  return uid < 0 ? otherwise : static_cast<uint32_t>(uid);
}

uint32_t OwnerNames::gid_of(const std::string& group, uint32_t otherwise) {
  if (group.empty()) return otherwise;
  const MutexLock lock(mutex_);
  const int64_t gid = remember<std::string, int64_t>(gids_, group, kMaxKnown, [&]() -> int64_t {
    std::string buffer(kOwnerBytes, '\0');
    ::group entry{};
    ::group* found = nullptr;
    const int error = getgrnam_r(group.c_str(), &entry, buffer.data(), buffer.size(), &found);
    return error == 0 && found != nullptr ? int64_t{found->gr_gid} : -1;
  });
  return gid < 0 ? otherwise : static_cast<uint32_t>(gid);
}

absl::StatusOr<FileMetadata> read_special(int directory, const std::string& name,
                                          const struct stat& info, OwnerNames& names) {
  constexpr size_t kMaxTarget = 4096;
  FileMetadata metadata = metadata_of(info);
  names.name(&metadata);
  if (metadata.type == FileType::kLink) {
    std::string target(kMaxTarget + 1, '\0');
    const ssize_t size = readlinkat(directory, name.c_str(), target.data(), target.size());
    if (size < 0) return errno_status(errno, "read its target");
    if (size == 0 || static_cast<size_t>(size) > kMaxTarget)
      return invalid_argument("its target has {} bytes", size);
    target.resize(static_cast<size_t>(size));
    metadata.target = std::move(target);
  }
  SLUICE_ASSIGN_OR_RETURN(metadata.attributes, read_attributes_at(directory, name));
  return metadata;
}

}  // namespace sluice

#include "tree/set_metadata.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/status.h"

namespace sluice {
namespace {

// Through /proc, which takes a descriptor that is open as a place only, and one of a link.
std::string place_of(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

struct Owner {
  uid_t uid;
  gid_t gid;
};

Owner owner_of(const FileMetadata& metadata, OwnerNames* names) {
  if (names == nullptr) return {metadata.uid, metadata.gid};
  return {names->uid_of(metadata.user, metadata.uid), names->gid_of(metadata.group, metadata.gid)};
}

// Also says in `info` who owns it afterwards.
bool set_owner(int fd, const Owner& owner, struct stat* info) {
  const auto [uid, gid] = owner;
  if (info->st_uid == uid && info->st_gid == gid) return true;
  if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) == 0) {
    info->st_uid = uid;
    info->st_gid = gid;
    return true;
  }
  // Who is not root may give to groups of their own.
  const bool group_set =
      info->st_gid == gid || fchownat(fd, "", static_cast<uid_t>(-1), gid, AT_EMPTY_PATH) == 0;
  if (group_set) info->st_gid = gid;
  return group_set && info->st_uid == uid;
}

void remove_others(int fd, const FileMetadata& metadata) {
  const auto there = read_attributes_at(fd, ".");
  if (!there.ok()) return;
  for (const ExtendedAttribute& attribute : *there) {
    const bool kept = std::any_of(metadata.attributes.begin(), metadata.attributes.end(),
                                  [&](const auto& one) { return one.name == attribute.name; });
    if (!kept) removexattr(place_of(fd).c_str(), attribute.name.c_str());
  }
}

struct Failed {
  bool xattr = false;
  bool acl = false;
  bool capability = false;
};

void set_attributes(int fd, const FileMetadata& metadata, bool capabilities, Failed* failed) {
  for (const ExtendedAttribute& attribute : metadata.attributes) {
    const AttributeKind kind = attribute_kind(attribute.name);
    if ((kind == AttributeKind::kCapability) != capabilities) continue;
    if (setxattr(place_of(fd).c_str(), attribute.name.c_str(), attribute.value.data(),
                 attribute.value.size(), 0) == 0) {
      continue;
    }
    bool& which = kind == AttributeKind::kAcl          ? failed->acl
                  : kind == AttributeKind::kCapability ? failed->capability
                                                       : failed->xattr;
    which = true;
  }
}

}  // namespace

absl::Status set_metadata_of(int fd, const FileMetadata& metadata, OwnerNames* names, bool replace,
                             NotSet* not_set) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return errno_status(errno, "read its metadata");
  const Owner owner = owner_of(metadata, names);
  if (!set_owner(fd, owner, &info)) ++not_set->owner;
  if (replace && metadata.type == FileType::kDirectory) remove_others(fd, metadata);
  Failed failed;
  set_attributes(fd, metadata, false, &failed);
  const std::string place = place_of(fd);
  if (metadata.type != FileType::kLink) {
    // Whose program such a bit starts is up to the file's owner: for another one it would give away
    // rights that nobody granted.
    mode_t mode = metadata.mode;
    if (info.st_uid != owner.uid || info.st_gid != owner.gid) mode &= ~(S_ISUID | S_ISGID);
    if (mode != metadata.mode) ++not_set->set_id;
    if (chmod(place.c_str(), mode) != 0) return errno_status(errno, "set its mode");
  }
  set_attributes(fd, metadata, true, &failed);
  not_set->xattr += failed.xattr ? 1 : 0;
  not_set->acl += failed.acl ? 1 : 0;
  not_set->capability += failed.capability ? 1 : 0;
  timespec times[2] = {{0, UTIME_NOW}, {}};
  times[1].tv_sec = metadata.mtime_seconds;
  times[1].tv_nsec = metadata.mtime_nanoseconds;
  if (utimensat(AT_FDCWD, place.c_str(), times, 0) != 0) return errno_status(errno, "set its time");
  return absl::OkStatus();
}

}  // namespace sluice

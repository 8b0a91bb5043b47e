#include "tree/link_groups.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/checksum.h"

namespace sluice {

uint64_t number_of(const FileId& id) {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put(id.first);
  out.put(id.second);
  return std::max<uint64_t>(xxh3_64(bytes), 1);
}

LinkGroups::Met LinkGroups::meet(const FileIdentity& identity, const std::string& path) {
  const MutexLock lock(mutex_);
  Met met;
  const auto found = files_.find(id_of(identity));
  if (found == files_.end()) {
    met.import_it = true;
    met.alone = files_.size() >= kMaxFiles;
    if (met.alone) return met;
    files_[id_of(identity)].left = identity.links - 1;
    return met;
  }
  File& file = found->second;
  if (file.left > 0) --file.left;
  if (file.waiting_for_first) {
    file.waiting.push_back(path);
    return met;
  }
  met.link = file.first;
  if (file.left == 0) files_.erase(found);
  return met;
}

std::vector<std::string> LinkGroups::imported(const FileId& id, const First& first) {
  const MutexLock lock(mutex_);
  const auto found = files_.find(id);
  if (found == files_.end()) return {};
  File& file = found->second;
  file.waiting_for_first = false;
  file.first = first;
  std::vector<std::string> waiting = std::move(file.waiting);
  file.waiting.clear();
  if (file.left == 0) files_.erase(found);
  return waiting;
}

std::optional<std::string> LinkGroups::failed(const FileId& id) {
  const MutexLock lock(mutex_);
  const auto found = files_.find(id);
  if (found == files_.end()) return std::nullopt;
  File& file = found->second;
  if (file.waiting.empty()) {
    // A name that is still to come is then the first one.
    files_.erase(found);
    return std::nullopt;
  }
  std::string next = std::move(file.waiting.front());
  file.waiting.erase(file.waiting.begin());
  return next;
}

}  // namespace sluice

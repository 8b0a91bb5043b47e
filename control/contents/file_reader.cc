#include "control/contents/file_reader.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/status.h"
#include "control/contents/content_reader.h"

namespace sluice {

ValueCache::Value ValueCache::find(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto found = places_.find(name);
  if (found == places_.end()) return nullptr;
  items_.splice(items_.begin(), items_, found->second);
  return found->second->second;
}

void ValueCache::add(const std::string& name, Value value) {
  const MutexLock lock(mutex_);
  const auto found = places_.find(name);
  if (found != places_.end()) {
    bytes_ -= found->second->second->size();
    items_.erase(found->second);
    places_.erase(found);
  }
  if (value->size() > limit_) return;
  bytes_ += value->size();
  items_.emplace_front(name, std::move(value));
  places_[name] = items_.begin();
  while (bytes_ > limit_) {
    bytes_ -= items_.back().second->size();
    places_.erase(items_.back().first);
    items_.pop_back();
  }
}

absl::StatusOr<std::unique_ptr<FileReader>> FileReader::open(BackupContents& contents,
                                                             ValueCache& cache,
                                                             const std::string& backup,
                                                             const std::string& key) {
  std::unique_ptr<FileReader> reader(new FileReader(contents, cache, backup, key));
  SLUICE_RETURN_IF_ERROR(reader->load());
  return reader;
}

// Of a file of one piece the cache has the value of its own record.
std::string FileReader::name_of(uint64_t number) const {
  std::string name = backup_ + '\0';
  if (header_.chunks() == 1) return name + key_;
  return name + tree_chunk_key(key_, header_.generation, static_cast<uint32_t>(number));
}

absl::Status FileReader::load() {
  SLUICE_ASSIGN_OR_RETURN(BackupContents::Values values, contents_.read({key_}));
  if (!values.at(0).has_value()) return not_found("its record is not in the backup");
  const auto value = std::make_shared<const std::string>(*std::move(values[0]));
  const auto entry = parse_tree_entry(*value);
  if (!entry.ok()) {
    record_ = true;
    header_.size = value->size();
    cache_.add(name_of(0), value);
    return absl::OkStatus();
  }
  if (entry->header.kind != TreeKind::kFile) {
    return failed_precondition("not a file: it has no content");
  }
  header_ = entry->header;
  if (header_.chunks() > 1) return absl::OkStatus();
  if (digest_of_chunks({digest_of_content(entry->extras.extents, entry->content)}) !=
      header_.digest) {
    return data_loss("its content does not have the digest of its entry");
  }
  cache_.add(name_of(0), value);
  return absl::OkStatus();
}

absl::StatusOr<ValueCache::Value> FileReader::fetch_locked(uint64_t first, size_t count) {
  std::vector<std::string> keys;
  for (uint64_t number = first; keys.size() < count; ++number) {
    keys.push_back(header_.chunks() == 1
                       ? key_
                       : tree_chunk_key(key_, header_.generation, static_cast<uint32_t>(number)));
  }
  SLUICE_ASSIGN_OR_RETURN(BackupContents::Values values, contents_.read(keys));
  ValueCache::Value wanted;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (header_.chunks() > 1) {
      const absl::Status status = parse_chunk(header_, first + i, values.at(i)).status();
      // What comes after it is asked for again when it is needed.
      if (!status.ok() && i > 0) break;
      SLUICE_RETURN_IF_ERROR(status);
    } else if (!values.at(i).has_value()) {
      return data_loss("its record is not in the backup");
    }
    // What the cache holds is what it counts.
    values[i]->shrink_to_fit();
    auto value = std::make_shared<const std::string>(*std::move(values[i]));
    cache_.add(name_of(first + i), value);
    if (i == 0) wanted = std::move(value);
  }
  return wanted;
}

absl::StatusOr<ValueCache::Value> FileReader::piece_locked(uint64_t number) {
  const bool next = number == last_ + 1 || (number == 0 && last_ == 0);
  const bool same = number == last_;
  last_ = number;
  if (ValueCache::Value held = cache_.find(name_of(number)); held != nullptr) return held;
  if (next) {
    ahead_ = std::min(2 * ahead_, kReadAhead);
  } else if (!same) {
    ahead_ = 1;
  }
  const size_t count = std::min<uint64_t>(ahead_, header_.chunks() - number);
  absl::StatusOr<ValueCache::Value> value = fetch_locked(number, count);
  // One of the others may be the one that is damaged.
  if (!value.ok() && count > 1) value = fetch_locked(number, 1);
  return value;
}

absl::StatusOr<FileReader::Range> FileReader::range_locked(uint64_t number) {
  if (!header_.sparse) {
    const uint64_t begin = number * header_.chunk_bytes;
    return Range{begin, begin + header_.chunk_size(number)};
  }
  if (const auto known = ranges_.find(number); known != ranges_.end()) return known->second;
  SLUICE_ASSIGN_OR_RETURN(const ValueCache::Value value, piece_locked(number));
  SLUICE_ASSIGN_OR_RETURN(const TreeEntry entry, parse_tree_entry(*value));
  const std::vector<Extent>& extents = entry.extras.extents;
  if (extents.empty()) return data_loss("chunk {} has no data", number);
  const Range range = {extents.front().offset, extents.back().offset + extents.back().length};
  if (ranges_.size() == kKnownChunks) ranges_.clear();
  ranges_[number] = range;
  return range;
}

// A search that looks first at the chunk that was used last, and at the one behind it.
absl::StatusOr<uint64_t> FileReader::find_locked(uint64_t offset) {
  const uint64_t chunks = header_.chunks();
  if (chunks == 1) return 0;
  if (!header_.sparse) return std::min(offset / header_.chunk_bytes, chunks);
  uint64_t first = 0;
  uint64_t end = chunks;
  const uint64_t hint = std::min(last_, chunks - 1);
  uint64_t probe = hint;
  while (first < end) {
    SLUICE_ASSIGN_OR_RETURN(const Range range, range_locked(probe));
    if (range.end <= offset) {
      first = probe + 1;
    } else if (range.begin <= offset) {
      return probe;
    } else {
      end = probe;
    }
    const bool followed = range.end <= offset && probe == hint && probe + 1 < end;
    probe = followed ? probe + 1 : first + (end - first) / 2;
  }
  return first;
}

absl::StatusOr<Extent> FileReader::extent_locked(uint64_t offset) {
  if (!header_.sparse) return Extent{0, header_.size};
  SLUICE_ASSIGN_OR_RETURN(const uint64_t number, find_locked(offset));
  if (number < header_.chunks()) {
    SLUICE_ASSIGN_OR_RETURN(const ValueCache::Value value, piece_locked(number));
    SLUICE_ASSIGN_OR_RETURN(const TreeEntry entry, parse_tree_entry(*value));
    for (const Extent& extent : entry.extras.extents) {
      if (extent.offset + extent.length > offset) return extent;
    }
  }
  return Extent{header_.size, 0};
}

absl::StatusOr<uint64_t> FileReader::find_data(uint64_t offset) {
  if (offset >= header_.size) return header_.size;
  const MutexLock lock(mutex_);
  SLUICE_ASSIGN_OR_RETURN(const Extent extent, extent_locked(offset));
  return std::max(offset, extent.offset);
}

absl::StatusOr<uint64_t> FileReader::find_hole(uint64_t offset) {
  const MutexLock lock(mutex_);
  // Extents of two chunks may touch.
  while (offset < header_.size) {
    SLUICE_ASSIGN_OR_RETURN(const Extent extent, extent_locked(offset));
    if (extent.offset > offset) return offset;
    offset = extent.offset + extent.length;
  }
  return header_.size;
}

absl::StatusOr<std::string> FileReader::read(uint64_t offset, size_t length) {
  if (offset >= header_.size) return std::string();
  const uint64_t end = std::min<uint64_t>(header_.size, offset + length);
  const MutexLock lock(mutex_);
  std::string bytes(end - offset, '\0');
  uint64_t at = offset;
  SLUICE_ASSIGN_OR_RETURN(uint64_t number, find_locked(at));
  for (; at < end && number < header_.chunks(); ++number) {
    SLUICE_ASSIGN_OR_RETURN(const ValueCache::Value value, piece_locked(number));
    if (record_) {
      bytes.assign(*value, offset, end - offset);
      break;
    }
    SLUICE_ASSIGN_OR_RETURN(const TreeEntry entry, parse_tree_entry(*value));
    std::string_view content = entry.content;
    for (const Extent& extent : extents_of(entry)) {
      if (extent.offset >= end) return bytes;
      const uint64_t from = std::max(extent.offset, at);
      const uint64_t to = std::min(extent.offset + extent.length, end);
      if (from < to) {
        content.substr(from - extent.offset, to - from)
            .copy(bytes.data() + (from - offset), to - from);
        at = to;
      }
      content.remove_prefix(extent.length);
    }
  }
  return bytes;
}

}  // namespace sluice

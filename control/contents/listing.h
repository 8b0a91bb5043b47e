// What is listed of a backup, and the listing of the parts that an open archive has. Pure but for
// reading the archive.
#ifndef SLUICE_CONTROL_CONTENTS_LISTING_H_
#define SLUICE_CONTROL_CONTENTS_LISTING_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>

#include "absl/status/status.h"
#include "control/contents/entry.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/record_reader.h"

namespace sluice {

struct ContentsListing {
  std::string path;       // the entry at this path and those below it; empty: all
  bool children = false;  // each direct child once: what lies deeper is a prefix
  std::string prefix;     // keys that begin so
  bool digests = false;
  bool linked = false;       // only what hard links name
  bool heads = false;        // tree entries come with their values, up to the content
  size_t content_bytes = 0;  // with heads: content up to this length comes too
  std::set<uint32_t> slots;  // that are read; empty: all
  // Called with damage, which names file, offset and slot: what stands there is left out, and the
  // listing goes on. One call at a time. Empty: damage ends the listing.
  std::function<void(const absl::Status& damage)> skip_damage = nullptr;
};

// Where a path lies to the one that is listed.
class ListedPath {
 public:
  explicit ListedPath(std::string_view path);
  enum class Place { kOutside, kItself, kChild, kDeeper };
  Place place_of(std::string_view path) const;
  // Of a path that lies deeper: the child that it is below of.
  std::string_view child_of(std::string_view path) const;
  // Whether the record of a key may be one that is not kOutside.
  bool takes_key(std::string_view key) const {
    return key.starts_with(below_) || place_of(key) == Place::kItself;
  }
  // What all paths below it begin with: empty, or ends in '/'.
  const std::string& below() const { return below_; }

 private:
  std::string below_;
};

// Children that lie deeper are handed out once each. What was handed out is remembered for
// kRemembered of them: beyond that some may be repeated.
class PrefixMemory {
 public:
  static constexpr size_t kRemembered = size_t{1} << 14;
  bool is_new(std::string_view path);

 private:
  std::unordered_set<std::string> paths_;
};

// Everything before is done: the slots below, and this slot's keys up to one.
struct ListingPlace {
  uint32_t slot = 0;
  std::string after;
};

struct ListingVisitor {
  std::function<absl::Status(BackupEntry entry, const ListingPlace& place)> entry;
  // Before each block is read.
  std::function<absl::Status(const ListingPlace& place)> block;
};

// From a place on, in the order of slots. Ends with the visitor's error.
absl::Status list_archive(const ArchiveReader& archive, RecordReader& reader,
                          const ContentsListing& listing, const ListingPlace& from,
                          const ListingVisitor& visitor);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_LISTING_H_

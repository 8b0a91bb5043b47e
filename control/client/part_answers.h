// What one holder of a backup's part answers about it, page by page. Pages are what the node says:
// an answer that is not about what was asked for, or contradicts itself, is DATA_LOSS naming the
// node.
//
// Confined to one thread. What they are given outlives them.
#ifndef SLUICE_CONTROL_CLIENT_PART_ANSWERS_H_
#define SLUICE_CONTROL_CLIENT_PART_ANSWERS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "control/contents/backup_contents.h"
#include "control/contents/listing.h"
#include "control/proto/sluice.pb.h"

namespace sluice {

// The entries of a listing, over several calls: each goes on from the place that the last page
// names.
class PartListing {
 public:
  PartListing(const std::string& node, const ContentsListing& listing,
              const BackupContents::VisitEntry& visit)
      : node_(node), listing_(listing), path_(listing.path), visit_(visit) {}

  // Ends with the visitor's error.
  absl::Status take(v1::ContentsPage& page);
  const ListingPlace& place() const { return place_; }
  bool done() const { return done_; }

 private:
  bool is_listed(const BackupEntry& entry) const;
  absl::Status broken() const;

  const std::string& node_;
  const ContentsListing& listing_;
  const ListedPath path_;
  const BackupContents::VisitEntry& visit_;
  ListingPlace place_;
  bool done_ = false;
};

// The slots of all parts, from the pages of one call.
class ManifestSlots {
 public:
  explicit ManifestSlots(const std::string& node) : node_(node) {}

  absl::Status take(const v1::PartSlots& page);
  bool done() const { return done_; }
  BackupSlots move_out() { return std::move(slots_); }

 private:
  const std::string& node_;
  BackupSlots slots_;
  bool done_ = false;
};

// The values of some keys, from the pieces of one call. Each is compared with its digest.
class PartValues {
 public:
  PartValues(const std::string& node, size_t keys) : node_(node), values_(keys) {}

  absl::Status take(const v1::ContentsPiece& piece);
  bool done() const { return done_; }
  std::optional<std::string> move_out(size_t key) { return std::move(values_[key]); }

 private:
  absl::Status broken() const;

  const std::string& node_;
  BackupContents::Values values_;
  size_t key_ = 0;      // of the last piece
  bool begun_ = false;  // there was one
  bool open_ = false;   // its value has further pieces
  bool done_ = false;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_PART_ANSWERS_H_

#include "control/client/part_answers.h"

#include "base/checksum.h"
#include "base/status.h"
#include "control/peers/rpc.h"
#include "dataplane/block/record.h"

namespace sluice {

absl::Status PartListing::broken() const {
  return data_loss("{}: its listing of an archive breaks the protocol", node_);
}

bool PartListing::is_listed(const BackupEntry& entry) const {
  if (entry.itself) return entry.type != EntryType::kPrefix;
  return path_.place_of(entry.path) != ListedPath::Place::kOutside;
}

absl::Status PartListing::take(v1::ContentsPage& page) {
  const bool goes_on =
      page.slot() > place_.slot || (page.slot() == place_.slot && page.after() >= place_.after);
  if (done_ || !goes_on || page.after().size() > kMaxKeyBytes) return broken();
  for (v1::ContentsEntry& in : *page.mutable_entries()) {
    absl::StatusOr<BackupEntry> entry = decode_entry(in);
    if (!entry.ok()) return with_context(entry.status(), node_);
    if (!is_listed(*entry)) return broken();
    entry->node = node_;
    SLUICE_RETURN_IF_ERROR(visit_(*std::move(entry)));
  }
  for (const std::string& damage : page.damage()) {
    if (!listing_.skip_damage) return broken();
    listing_.skip_damage(data_loss("{}: {}", node_, damage));
  }
  place_ = {page.slot(), page.after()};
  done_ = page.last();
  return absl::OkStatus();
}

absl::Status ManifestSlots::take(const v1::PartSlots& page) {
  const uint32_t bits = page.slot_bits();
  const bool other_bits = slots_.slot_bits != 0 && slots_.slot_bits != bits;
  if (done_ || bits == 0 || bits > kMaxSlotBits || other_bits ||
      page.slots_size() > 1 << kMaxSlotBits) {
    return data_loss("{}: its slots of an archive break the protocol", node_);
  }
  slots_.slot_bits = bits;
  done_ = page.last();
  const auto digests = decode_digests(page.digests(), static_cast<uint32_t>(page.slots_size()));
  if (!digests.ok()) return with_context(digests.status(), node_);
  for (int i = 0; i < page.slots_size(); ++i) {
    const absl::Status added =
        add_slot(page.node(), page.slots(i), (*digests)[static_cast<size_t>(i)], &slots_);
    if (!added.ok()) return with_context(added, node_);
  }
  return absl::OkStatus();
}

absl::Status PartValues::broken() const {
  return data_loss("{}: its answer about an archive breaks the protocol", node_);
}

// Values come in the order of their keys, each in pieces up to the one with its digest.
absl::Status PartValues::take(const v1::ContentsPiece& piece) {
  if (done_) return broken();
  if (piece.last()) {
    done_ = true;
    return open_ ? broken() : absl::OkStatus();
  }
  const size_t key = piece.key();
  const bool in_order = open_ ? key == key_ : !begun_ || key > key_;
  if (key >= values_.size() || !in_order) return broken();
  std::optional<std::string>& value = values_[key];
  if (!value.has_value()) value.emplace();
  if (value->size() + piece.piece().size() > kMaxValueBytes) return broken();
  value->append(piece.piece());
  key_ = key;
  begun_ = true;
  open_ = piece.digest().empty();
  if (open_) return absl::OkStatus();
  Digest128 digest;
  if (!get(piece.digest(), &digest)) return broken();
  if (xxh3_128(*value) == digest) return absl::OkStatus();
  return data_loss("{}: a value came with other bytes than it has in the archive", node_);
}

}  // namespace sluice

#include "dataplane/archive/manifest.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "base/status.h"
#include "dataplane/archive/frame.h"
#include "dataplane/block/block.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr size_t kMaxNameBytes = 4096;
constexpr uint64_t kMaxSegmentBytes = uint64_t{1} << 62;  // sums of offsets never overflow

absl::Status malformed(const FrameKind& kind, std::string_view what) {
  return data_loss("{}: {}", kind.name, what);
}

bool get_name(ByteReader& in, std::string* name) {
  std::string_view bytes;
  if (!in.get_string(&bytes, kMaxNameBytes)) return false;
  *name = bytes;
  return true;
}

void encode_part_body(const PartManifest& part, ByteWriter& out) {
  out.put_string(part.node);
  out.put_varint(part.segments.size());
  for (const SegmentSummary& segment : part.segments) {
    out.put(segment.number);
    out.put(segment.bytes);
    out.put(segment.blocks);
    out.put(segment.index_bytes);
    put_digest(out, segment.index_digest);
  }
  out.put_varint(part.slots.size());
  for (const SlotSummary& slot : part.slots) {
    out.put(slot.slot);
    slot.digest.encode(out);
  }
}

bool decode_part_body(ByteReader& in, PartManifest* part) {
  uint64_t segments = 0;
  if (!get_name(in, &part->node) || !in.get_varint(&segments)) return false;
  for (uint64_t i = 0; i < segments; ++i) {
    SegmentSummary segment;
    if (!in.get(&segment.number) || !in.get(&segment.bytes) || !in.get(&segment.blocks) ||
        !in.get(&segment.index_bytes) || !get_digest(in, &segment.index_digest)) {
      return false;
    }
    if (segment.bytes % kBlockAlignment != 0 ||
        (!part->segments.empty() && segment.number <= part->segments.back().number)) {
      return false;
    }
    part->segments.push_back(segment);
  }
  uint64_t slots = 0;
  if (!in.get_varint(&slots)) return false;
  for (uint64_t i = 0; i < slots; ++i) {
    SlotSummary slot;
    if (!in.get(&slot.slot) || !SlotDigest::decode(in, &slot.digest)) return false;
    if (slot.digest.empty() || (!part->slots.empty() && slot.slot <= part->slots.back().slot)) {
      return false;
    }
    part->slots.push_back(slot);
  }
  return true;
}

void encode_trees(const std::vector<ArchivedTree>& trees, ByteWriter& out) {
  out.put_varint(trees.size());
  for (const ArchivedTree& tree : trees) {
    out.put(tree.number);
    out.put_string(tree.name);
    out.put_string(tree.node);
  }
}

bool decode_trees(ByteReader& in, std::vector<ArchivedTree>* trees) {
  uint64_t count = 0;
  if (!in.get_varint(&count) || count == 0 || count > kMaxTreeNumber) return false;
  uint32_t last = 0;
  for (uint64_t i = 0; i < count; ++i) {
    ArchivedTree tree;
    if (!in.get(&tree.number) || !get_name(in, &tree.name) || !get_name(in, &tree.node) ||
        tree.number <= last || tree.number > kMaxTreeNumber) {
      return false;
    }
    last = tree.number;
    trees->push_back(std::move(tree));
  }
  return true;
}

bool decode_identity(ByteReader& in, ArchiveIdentity* identity) {
  return get_name(in, &identity->cluster) && get_name(in, &identity->backup) &&
         get_name(in, &identity->name) && in.get(&identity->slot_bits) && in.get(&identity->cut) &&
         in.get(&identity->table_epoch) && identity->slot_bits >= 1 &&
         identity->slot_bits <= kMaxSlotBits;
}

bool is_known_tree(const Manifest& manifest, uint32_t number) {
  return std::binary_search(
      manifest.trees.begin(), manifest.trees.end(), ArchivedTree{number, "", ""},
      [](const ArchivedTree& a, const ArchivedTree& b) { return a.number < b.number; });
}

absl::Status check_parts(const Manifest& manifest) {
  std::set<std::string_view> nodes;
  std::unordered_set<uint32_t> taken;
  for (const PartManifest& part : manifest.parts) {
    if (!nodes.insert(part.node).second) return malformed(kManifestFrame, "a node has two parts");
    for (const SlotSummary& slot : part.slots) {
      if (!is_possible_slot(slot.slot, manifest.identity.slot_bits))
        return malformed(kManifestFrame, "a slot beyond the slot bits");
      const uint32_t tree = tree_number_of(slot.slot);
      if (tree != 0 && !is_known_tree(manifest, tree))
        return malformed(kManifestFrame, "a slot of a tree that there is not");
      if (!taken.insert(slot.slot).second)
        return malformed(kManifestFrame, "a slot is in two parts");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string PartManifest::encode() const {
  std::string body;
  ByteWriter out(&body);
  encode_part_body(*this, out);
  return frame(kPartFrame, body);
}

absl::StatusOr<PartManifest> PartManifest::decode(std::string_view bytes) {
  SLUICE_ASSIGN_OR_RETURN(const std::string_view body, unframe(kPartFrame, bytes));
  ByteReader in(body);
  PartManifest part;
  if (!decode_part_body(in, &part) || !in.done()) return malformed(kPartFrame, "malformed");
  return part;
}

uint64_t Manifest::records() const {
  uint64_t sum = 0;
  for (const PartManifest& part : parts) {
    for (const SlotSummary& slot : part.slots) {
      if (tree_number_of(slot.slot) == 0) sum += slot.digest.records;
    }
  }
  return sum;
}

uint64_t Manifest::bytes() const {
  uint64_t sum = 0;
  for (const PartManifest& part : parts) {
    for (const SlotSummary& slot : part.slots) {
      if (tree_number_of(slot.slot) == 0) sum += slot.digest.bytes;
    }
  }
  return sum;
}

Digest128 Manifest::root() const {
  std::string digests;
  ByteWriter out(&digests);
  for (const PartManifest& part : parts) {
    for (const SegmentSummary& segment : part.segments) put_digest(out, segment.index_digest);
  }
  return xxh3_128(digests);
}

std::string Manifest::encode() const {
  std::string body;
  ByteWriter out(&body);
  out.put(required_features | (trees.empty() ? 0 : kTrees));
  out.put_string(identity.cluster);
  out.put_string(identity.backup);
  out.put_string(identity.name);
  out.put(identity.slot_bits);
  out.put(identity.cut);
  out.put(identity.table_epoch);
  out.put(newest_stamp);
  put_digest(out, root());
  out.put_varint(parts.size());
  for (const PartManifest& part : parts) encode_part_body(part, out);
  if (!trees.empty()) encode_trees(trees, out);
  return frame(kManifestFrame, body);
}

absl::StatusOr<Manifest> Manifest::decode(std::string_view bytes) {
  SLUICE_ASSIGN_OR_RETURN(const std::string_view body, unframe(kManifestFrame, bytes));
  ByteReader in(body);
  Manifest manifest;
  if (!in.get(&manifest.required_features)) return malformed(kManifestFrame, "cut off");
  if (const uint64_t unknown = manifest.required_features & ~Manifest::kTrees; unknown != 0) {
    return failed_precondition("manifest: needs features {:#x}, which this build does not have",
                               unknown);
  }
  Digest128 root;
  uint64_t parts = 0;
  if (!decode_identity(in, &manifest.identity) || !in.get(&manifest.newest_stamp) ||
      !get_digest(in, &root) || !in.get_varint(&parts)) {
    return malformed(kManifestFrame, "malformed");
  }
  for (uint64_t i = 0; i < parts; ++i) {
    PartManifest part;
    if (!decode_part_body(in, &part)) return malformed(kManifestFrame, "malformed part");
    manifest.parts.push_back(std::move(part));
  }
  if ((manifest.required_features & Manifest::kTrees) != 0 && !decode_trees(in, &manifest.trees))
    return malformed(kManifestFrame, "malformed trees");
  if (!in.done()) return malformed(kManifestFrame, "bytes after the end");
  if (manifest.root() != root) return malformed(kManifestFrame, "root digest mismatch");
  SLUICE_RETURN_IF_ERROR(check_parts(manifest));
  return manifest;
}

std::string segment_file(uint32_t number) { return fmt::format("segment-{:05}", number); }
std::string index_file(uint32_t number) { return fmt::format("index-{:05}", number); }

void encode_location(const BlockLocation& location, ByteWriter& out) {
  out.put(location.offset);
  out.put(location.bytes);
  out.put(location.slot);
  out.put(location.sequence);
  out.put(location.entries);
  out.put(location.flags);
  out.put(location.checksum);
}

bool decode_location(ByteReader& in, BlockLocation* location) {
  return in.get(&location->offset) && in.get(&location->bytes) && in.get(&location->slot) &&
         in.get(&location->sequence) && in.get(&location->entries) && in.get(&location->flags) &&
         in.get(&location->checksum) && location->offset % kBlockAlignment == 0 &&
         location->bytes > BlockHeader::kBytes && location->bytes <= kMaxBlockBytes &&
         location->entries > 0;
}

std::string SegmentIndex::encode() const {
  std::string body;
  body.reserve(128 + blocks.size() * kLocationBytes);
  ByteWriter out(&body);
  out.put_string(backup);
  out.put_string(node);
  out.put(number);
  out.put(segment_bytes);
  out.put(static_cast<uint64_t>(blocks.size()));
  for (const BlockLocation& block : blocks) encode_location(block, out);
  return frame(kIndexFrame, body);
}

absl::StatusOr<SegmentIndex> SegmentIndex::decode(std::string_view bytes) {
  SLUICE_ASSIGN_OR_RETURN(const std::string_view body, unframe(kIndexFrame, bytes));
  ByteReader in(body);
  SegmentIndex index;
  uint64_t count = 0;
  if (!get_name(in, &index.backup) || !get_name(in, &index.node) || !in.get(&index.number) ||
      !in.get(&index.segment_bytes) || index.segment_bytes > kMaxSegmentBytes || !in.get(&count) ||
      in.remaining() % kLocationBytes != 0 || in.remaining() / kLocationBytes != count) {
    return malformed(kIndexFrame, "malformed");
  }
  index.blocks.reserve(static_cast<size_t>(count));
  uint64_t end = 0;
  for (uint64_t i = 0; i < count; ++i) {
    BlockLocation block;
    block.segment = index.number;
    if (!decode_location(in, &block) || block.offset < end || block.offset >= index.segment_bytes) {
      return malformed(kIndexFrame, fmt::format("entry {} is malformed", i));
    }
    end = block.offset + padded(block.bytes);
    index.blocks.push_back(block);
  }
  if (end != index.segment_bytes)
    return malformed(kIndexFrame, "the last block does not end the segment");
  return index;
}

}  // namespace sluice

#include "tree/tree_extras.h"

#include <string>

#include "base/bytes.h"
#include "base/status.h"

namespace sluice {
namespace {

// Of extras, in ascending order. Several kAttribute are in ascending order of their names.
enum Tag : uint8_t {
  kUser = 1,
  kGroup = 2,
  kDevice = 3,
  kExtentList = 4,
  kChunkCount = 5,
  kChanged = 6,
  kOwnPathBytes = 7,
  kLinked = 8,
  kAttribute = 9,
  kFileNumber = 10,
};

bool has_content(TreeKind kind) {
  return kind == TreeKind::kFile || kind == TreeKind::kChunk || kind == TreeKind::kGeneration;
}
bool is_device(TreeKind kind) {
  return kind == TreeKind::kCharacterDevice || kind == TreeKind::kBlockDevice;
}
// Entries that stand for something in a file system, and have owners and attributes.
bool has_metadata(TreeKind kind) {
  return kind != TreeKind::kChunk && kind != TreeKind::kGeneration && kind != TreeKind::kHardLink;
}
// The extents are in the record itself.
bool has_extents(const TreeHeader& header) {
  return header.sparse && (header.kind == TreeKind::kChunk ||
                           (header.kind == TreeKind::kFile && header.sparse_chunks == 0));
}

void put_tag(Tag tag, std::string_view bytes, std::string* out) {
  ByteWriter writer(out);
  writer.put(static_cast<uint8_t>(tag));
  writer.put_string(bytes);
}

std::string encode_extents(const std::vector<Extent>& extents) {
  std::string bytes;
  ByteWriter out(&bytes);
  uint64_t end = 0;
  for (const Extent& extent : extents) {
    out.put_varint(extent.offset - end);
    out.put_varint(extent.length);
    end = extent.offset + extent.length;
  }
  return bytes;
}

bool decode_extents(std::string_view bytes, std::vector<Extent>* extents) {
  ByteReader in(bytes);
  uint64_t end = 0;
  while (!in.done()) {
    uint64_t gap = 0;
    Extent extent;
    if (!in.get_varint(&gap) || !in.get_varint(&extent.length) || extent.length == 0) return false;
    if (gap == 0 && !extents->empty()) return false;  // would be one with the one before
    if (gap > INT64_MAX - end || extent.length > INT64_MAX - end - gap) return false;
    extent.offset = end + gap;
    end = extent.offset + extent.length;
    if (extents->size() == kMaxExtents) return false;
    extents->push_back(extent);
  }
  // Varints may be written in more than one way, but not here.
  return encode_extents(*extents) == bytes;
}

bool decode_attribute(std::string_view bytes, TreeExtras* extras) {
  ByteReader in(bytes);
  std::string_view name;
  std::string_view value;
  if (!in.get_string(&name, kMaxAttributeName) || name.empty() ||
      name.find('\0') != std::string_view::npos || !in.get_bytes(in.remaining(), &value)) {
    return false;
  }
  if (!extras->attributes.empty() && extras->attributes.back().name >= name) return false;
  extras->attributes.push_back({std::string(name), std::string(value)});
  return true;
}

template <typename Number>
bool decode_number(std::string_view bytes, Number* number) {
  ByteReader in(bytes);
  return in.get(number) && in.done();
}

bool decode_name(std::string_view bytes, std::string* name) {
  *name = bytes;
  return !bytes.empty() && bytes.size() <= 255 && bytes.find('\0') == std::string_view::npos;
}

bool decode_device(std::string_view bytes, TreeExtras* extras) {
  ByteReader in(bytes);
  return in.get(&extras->device_major) && in.get(&extras->device_minor) && in.done();
}

// Only the form that encode_tree_extras() writes is taken: which tags a kind has is checked by
// encoding once more.
bool decode_tag(uint8_t tag, std::string_view bytes, TreeHeader* header, TreeExtras* extras) {
  switch (tag) {
    case kUser:
      return has_metadata(header->kind) && decode_name(bytes, &extras->user);
    case kGroup:
      return has_metadata(header->kind) && decode_name(bytes, &extras->group);
    case kDevice:
      return is_device(header->kind) && decode_device(bytes, extras);
    case kExtentList:
      header->sparse = true;
      return header->kind != TreeKind::kGeneration && has_content(header->kind) &&
             decode_extents(bytes, &extras->extents);
    case kChunkCount:
      header->sparse = true;
      return has_content(header->kind) && decode_number(bytes, &header->sparse_chunks) &&
             header->sparse_chunks > 1;
    case kChanged:
      extras->changed = true;
      return header->kind == TreeKind::kFile && bytes.empty();
    case kOwnPathBytes:
      return header->kind == TreeKind::kHardLink && decode_number(bytes, &extras->own_path_bytes) &&
             extras->own_path_bytes > 0;
    case kLinked:
      extras->linked = true;
      return has_metadata(header->kind) && header->kind != TreeKind::kDirectory && bytes.empty();
    case kAttribute:
      return has_metadata(header->kind) && decode_attribute(bytes, extras);
    case kFileNumber:
      return (header->kind == TreeKind::kHardLink || extras->linked) &&
             decode_number(bytes, &extras->file_number) && extras->file_number != 0;
    default:
      return false;
  }
}

}  // namespace

std::string encode_tree_extras(const TreeHeader& header, const TreeExtras& extras) {
  std::string bytes;
  const auto number = [](uint32_t value) {
    std::string four;
    ByteWriter(&four).put(value);
    return four;
  };
  if (!extras.user.empty()) put_tag(kUser, extras.user, &bytes);
  if (!extras.group.empty()) put_tag(kGroup, extras.group, &bytes);
  if (is_device(header.kind))
    put_tag(kDevice, number(extras.device_major) + number(extras.device_minor), &bytes);
  if (has_extents(header)) put_tag(kExtentList, encode_extents(extras.extents), &bytes);
  if (header.sparse_chunks != 0) put_tag(kChunkCount, number(header.sparse_chunks), &bytes);
  if (extras.changed) put_tag(kChanged, "", &bytes);
  if (header.kind == TreeKind::kHardLink)
    put_tag(kOwnPathBytes, number(extras.own_path_bytes), &bytes);
  if (extras.linked) put_tag(kLinked, "", &bytes);
  for (const ExtendedAttribute& attribute : extras.attributes) {
    std::string pair;
    ByteWriter(&pair).put_string(attribute.name);
    put_tag(kAttribute, pair + attribute.value, &bytes);
  }
  if (extras.file_number != 0) {
    std::string eight;
    ByteWriter(&eight).put(extras.file_number);
    put_tag(kFileNumber, eight, &bytes);
  }
  return bytes;
}

absl::Status decode_tree_extras(std::string_view bytes, TreeHeader* header, TreeExtras* extras) {
  ByteReader in(bytes);
  while (!in.done()) {
    uint8_t tag = 0;
    std::string_view field;
    if (!in.get(&tag) || !in.get_string(&field, kMaxTreeExtrasBytes) ||
        !decode_tag(tag, field, header, extras)) {
      return data_loss("a tree entry's extras are damaged at tag {}", static_cast<int>(tag));
    }
  }
  if (encode_tree_extras(*header, *extras) != bytes)
    return data_loss("a tree entry's extras are not those of its kind");
  return absl::OkStatus();
}

Digest128 digest_of_content(const std::vector<Extent>& extents, std::string_view content) {
  if (extents.empty()) return xxh3_128(content);
  const std::string places = encode_extents(extents);
  StreamingXxh3 digest;
  digest.update(places);
  digest.update(content);
  return digest.digest128();
}

}  // namespace sluice

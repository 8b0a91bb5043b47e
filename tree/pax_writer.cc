#include "tree/pax_writer.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "base/status.h"
#include "base/text.h"

namespace sluice {

// What one entry's headers say.
struct PaxWriter::Header {
  char type = '0';
  std::string name;  // of the ustar header; cut where it is longer
  std::string link;
  uint64_t size = 0;  // of the content that follows
  FileMetadata metadata;
  std::string records;  // of the pax header
};

namespace {

constexpr size_t kBlock = 512;
constexpr size_t kRecordBytes = 20 * kBlock;  // what tars end at a multiple of
constexpr size_t kNameBytes = 100;
constexpr size_t kOwnerNameBytes = 31;
constexpr uint64_t kNanosecond = 1'000'000'000;
constexpr size_t kZeros = size_t{64} << 10;
constexpr char kDirectory = '5';
constexpr char kFile = '0';
constexpr char kHardLink = '1';
constexpr char kPaxHeader = 'x';

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

// "LENGTH KEYWORD=VALUE\n", where the length counts itself.
void add_record(std::string_view keyword, std::string_view value, std::string* records) {
  const size_t rest = keyword.size() + value.size() + 3;
  size_t length = rest + 1;
  while (std::to_string(length).size() + rest != length) ++length;
  fmt::format_to(std::back_inserter(*records), "{} {}=", length, keyword);
  records->append(value);
  records->push_back('\n');
}

// Keywords have no '='; GNU tar reads these escapes.
std::string attribute_keyword(std::string_view name) {
  std::string keyword = "SCHILY.xattr.";
  for (const char c : name) {
    if (c == '%' || c == '=') {
      keyword += c == '%' ? "%25" : "%3D";
    } else {
      keyword.push_back(c);
    }
  }
  return keyword;
}

std::string time_text(const FileMetadata& metadata) {
  // Seconds and nanoseconds add up, so -1.5 s is kept as -2 s and 500,000,000 ns.
  int64_t seconds = metadata.mtime_seconds;
  uint64_t nanoseconds = metadata.mtime_nanoseconds;
  if (seconds >= 0) return fmt::format("{}.{:09}", seconds, nanoseconds);
  if (nanoseconds > 0) {
    ++seconds;
    nanoseconds = kNanosecond - nanoseconds;
  }
  return fmt::format("-{}.{:09}", 0 - static_cast<uint64_t>(seconds), nanoseconds);
}

// A list of access as the kernel keeps it (version 2) in the long text form; nothing for one that
// is not well-formed.
std::optional<std::string> acl_text(std::string_view value) {
  ByteReader in(value);
  uint32_t version = 0;
  if (!in.get(&version) || version != 2) return std::nullopt;
  std::string text;
  while (!in.done()) {
    uint16_t tag = 0;
    uint16_t permissions = 0;
    uint32_t id = 0;
    if (!in.get(&tag) || !in.get(&permissions) || !in.get(&id) || permissions > 7) {
      return std::nullopt;
    }
    const std::string bits = fmt::format("{}{}{}", permissions & 4 ? 'r' : '-',
                                         permissions & 2 ? 'w' : '-', permissions & 1 ? 'x' : '-');
    switch (tag) {
      case 0x01:
        text += "user::" + bits;
        break;
      case 0x02:
        text += fmt::format("user:{}:{}", id, bits);
        break;
      case 0x04:
        text += "group::" + bits;
        break;
      case 0x08:
        text += fmt::format("group:{}:{}", id, bits);
        break;
      case 0x10:
        text += "mask::" + bits;
        break;
      case 0x20:
        text += "other::" + bits;
        break;
      default:
        return std::nullopt;
    }
    text.push_back('\n');
  }
  return text;
}

void add_attributes(const FileMetadata& metadata, std::string* records) {
  for (const ExtendedAttribute& attribute : metadata.attributes) {
    add_record(attribute_keyword(attribute.name), attribute.value, records);
    const bool access = attribute.name == "system.posix_acl_access";
    if (!access && attribute.name != "system.posix_acl_default") continue;
    const auto text = acl_text(attribute.value);
    if (!text.has_value()) continue;
    add_record(access ? "SCHILY.acl.access" : "SCHILY.acl.default", *text, records);
  }
}

class Field {
 public:
  Field(char* block, size_t at, size_t bytes) : at_(block + at), bytes_(bytes) {}
  void text(std::string_view value) {
    std::memcpy(at_, value.data(), std::min(value.size(), bytes_));
  }
  // False where it does not fit; the field then has a zero, and a pax record has the number.
  bool octal(uint64_t value) {
    const size_t digits = bytes_ - 1;
    const bool fits = value >> (3 * digits) == 0;
    text(fmt::format("{:0{}o}", fits ? value : 0, digits));
    return fits;
  }
  // Octal, or GNU's form of numbers that are larger, which all readers know.
  void number(uint64_t value) {
    if (octal(value)) return;
    for (size_t i = 0; i < bytes_; ++i) {
      const size_t shift = 8 * (bytes_ - 1 - i);
      at_[i] = shift < 64 ? static_cast<char>(value >> shift) : '\0';
    }
    at_[0] = static_cast<char>(0x80);
  }

 private:
  char* const at_;
  const size_t bytes_;
};

// Whether a number is in an octal field of so many bytes.
bool fits_octal(uint64_t value, size_t bytes) { return value >> (3 * (bytes - 1)) == 0; }

std::string last_name_of(std::string_view path) {
  return std::string(path.substr(path.find_last_of('/') + 1));
}

char type_flag(FileType type) {
  switch (type) {
    case FileType::kDirectory:
      return kDirectory;
    case FileType::kLink:
      return '2';
    case FileType::kCharacterDevice:
      return '3';
    case FileType::kBlockDevice:
      return '4';
    case FileType::kPipe:
      return '6';
    case FileType::kFile:
    case FileType::kSocket:
      break;
  }
  return kFile;
}

absl::Status check_name(std::string_view name) {
  if (!name.empty() && name.find('\0') == std::string_view::npos) return absl::OkStatus();
  return invalid_argument("'{}': a name of an archive's entry is empty or has a NUL byte",
                          printable(name));
}

// Of GNU's sparse format 1.0: numbers of the extents, and each with offset and length, in lines.
std::string map_text(const std::vector<Extent>& data) {
  std::string text = fmt::format("{}\n", data.size());
  for (const Extent& extent : data) {
    fmt::format_to(std::back_inserter(text), "{}\n{}\n", extent.offset, extent.length);
  }
  text.resize((text.size() + kBlock - 1) / kBlock * kBlock, '\0');
  return text;
}

}  // namespace

void SparseMap::append(const Extent& extent) {
  if (!data_.empty()) {
    Extent& last = data_.back();
    if (extent.offset - (last.offset + last.length) < least_hole_) {
      last.length = extent.offset + extent.length - last.offset;
      return;
    }
  }
  data_.push_back(extent);
}

void SparseMap::add(const Extent& extent) {
  if (extent.length == 0) return;
  append(extent);
  while (data_.size() > max_data_) {
    least_hole_ *= 2;
    const std::vector<Extent> all = std::exchange(data_, {});
    for (const Extent& each : all) append(each);
  }
}

absl::Status PaxWriter::put(std::string_view bytes) {
  written_ += bytes.size();
  return bytes.empty() ? absl::OkStatus() : output_(bytes);
}

absl::Status PaxWriter::put_zeros(uint64_t count) {
  static const std::string zeros(kZeros, '\0');
  while (count > 0) {
    const size_t size = std::min<uint64_t>(count, zeros.size());
    SLUICE_RETURN_IF_ERROR(put(std::string_view(zeros).substr(0, size)));
    count -= size;
  }
  return absl::OkStatus();
}

absl::Status PaxWriter::pad() { return put_zeros((kBlock - written_ % kBlock) % kBlock); }

absl::Status PaxWriter::write_block(const Header& header) {
  const FileMetadata& metadata = header.metadata;
  const int64_t seconds = metadata.mtime_seconds;
  char block[kBlock] = {};
  Field(block, 0, kNameBytes).text(header.name);
  Field(block, 100, 8).octal(metadata.mode);
  Field(block, 108, 8).octal(metadata.uid);
  Field(block, 116, 8).octal(metadata.gid);
  Field(block, 124, 12).octal(header.size);
  Field(block, 136, 12).octal(seconds < 0 ? 0 : static_cast<uint64_t>(seconds));
  block[156] = header.type;
  Field(block, 157, kNameBytes).text(header.link);
  Field(block, 257, 8)
      .text(std::string_view("ustar\0"
                             "00",
                             8));
  Field(block, 265, kOwnerNameBytes).text(metadata.user);
  Field(block, 297, kOwnerNameBytes).text(metadata.group);
  Field(block, 329, 8).number(metadata.device_major);
  Field(block, 337, 8).number(metadata.device_minor);
  // Of all bytes, with spaces where the sum will stand.
  Field(block, 148, 8).text("        ");
  uint32_t sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  Field(block, 148, 6).text(fmt::format("{:06o}", sum));
  block[154] = '\0';
  return put({block, sizeof block});
}

absl::Status PaxWriter::write_headers(Header header) {
  const FileMetadata& metadata = header.metadata;
  std::string& records = header.records;
  if (!fits_octal(header.size, 12)) add_record("size", std::to_string(header.size), &records);
  if (!fits_octal(metadata.uid, 8)) add_record("uid", std::to_string(metadata.uid), &records);
  if (!fits_octal(metadata.gid, 8)) add_record("gid", std::to_string(metadata.gid), &records);
  const auto owner = [&](const char* keyword, const std::string& name) {
    if (name.size() > kOwnerNameBytes || !is_ascii(name)) add_record(keyword, name, &records);
  };
  owner("uname", metadata.user);
  owner("gname", metadata.group);
  const bool whole_second = metadata.mtime_nanoseconds == 0 && metadata.mtime_seconds >= 0 &&
                            fits_octal(static_cast<uint64_t>(metadata.mtime_seconds), 12);
  if (!whole_second) add_record("mtime", time_text(metadata), &records);
  if (header.link.size() > kNameBytes || !is_ascii(header.link)) {
    add_record("linkpath", header.link, &records);
  }
  add_attributes(metadata, &records);
  if (!records.empty()) {
    Header pax;
    pax.type = kPaxHeader;
    pax.name = "PaxHeaders/" + last_name_of(header.name);
    pax.size = records.size();
    pax.metadata.mode = 0644;
    SLUICE_RETURN_IF_ERROR(write_block(pax));
    SLUICE_RETURN_IF_ERROR(put(records));
    SLUICE_RETURN_IF_ERROR(pad());
  }
  return write_block(header);
}

absl::Status PaxWriter::add(std::string_view path, const FileMetadata& metadata) {
  SLUICE_RETURN_IF_ERROR(check_name(path));
  Header header;
  header.type = type_flag(metadata.type);
  header.name = path;
  if (header.type == kDirectory) header.name += '/';
  if (header.name.size() > kNameBytes || !is_ascii(path)) {
    add_record("path", header.name, &header.records);
  }
  if (metadata.type == FileType::kLink) {
    SLUICE_RETURN_IF_ERROR(check_name(metadata.target));
    header.link = metadata.target;
  }
  header.metadata = metadata;
  return write_headers(std::move(header));
}

absl::Status PaxWriter::add_hard_link(std::string_view path, std::string_view target,
                                      const FileMetadata& metadata) {
  SLUICE_RETURN_IF_ERROR(check_name(path));
  SLUICE_RETURN_IF_ERROR(check_name(target));
  Header header;
  header.type = kHardLink;
  header.name = path;
  header.link = target;
  header.metadata = metadata;
  header.metadata.attributes.clear();
  if (path.size() > kNameBytes || !is_ascii(path)) add_record("path", path, &header.records);
  return write_headers(std::move(header));
}

absl::Status PaxWriter::begin_file(std::string_view path, const FileMetadata& metadata,
                                   const SparseMap& data) {
  SLUICE_RETURN_IF_ERROR(check_name(path));
  Header header;
  header.metadata = metadata;
  data_ = data.data();
  const bool whole = data_ == std::vector<Extent>{{0, metadata.size}} || metadata.size == 0;
  std::string map;
  if (whole) {
    header.name = path;
    header.size = metadata.size;
    if (path.size() > kNameBytes || !is_ascii(path)) add_record("path", path, &header.records);
  } else {
    // A reader that does not know the format unpacks the map and the data under this name.
    header.name = "GNUSparseFile.0/" + last_name_of(path);
    add_record("GNU.sparse.major", "1", &header.records);
    add_record("GNU.sparse.minor", "0", &header.records);
    add_record("GNU.sparse.name", path, &header.records);
    add_record("GNU.sparse.realsize", std::to_string(metadata.size), &header.records);
    // A hole at the end ends with an empty extent.
    const uint64_t end = data_.empty() ? 0 : data_.back().offset + data_.back().length;
    if (end < metadata.size) data_.push_back({metadata.size, 0});
    map = map_text(data_);
    header.size = map.size() + bytes_of(data_);
  }
  extent_ = 0;
  at_ = data_.empty() ? 0 : data_.front().offset;
  SLUICE_RETURN_IF_ERROR(write_headers(std::move(header)));
  return put(map);
}

absl::Status PaxWriter::write(uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    if (extent_ == data_.size() || offset < at_) {
      return internal_error("content at {}, where the archive's header has none", offset);
    }
    const uint64_t end = data_[extent_].offset + data_[extent_].length;
    SLUICE_RETURN_IF_ERROR(put_zeros(std::min(offset, end) - at_));
    at_ = std::min(offset, end);
    if (at_ < end) {
      const size_t size = std::min<uint64_t>(bytes.size(), end - at_);
      SLUICE_RETURN_IF_ERROR(put(bytes.substr(0, size)));
      bytes.remove_prefix(size);
      offset += size;
      at_ += size;
    }
    if (at_ == end && ++extent_ < data_.size()) at_ = data_[extent_].offset;
  }
  return absl::OkStatus();
}

absl::Status PaxWriter::end_file() {
  for (; extent_ < data_.size(); ++extent_) {
    at_ = std::max(at_, data_[extent_].offset);
    SLUICE_RETURN_IF_ERROR(put_zeros(data_[extent_].offset + data_[extent_].length - at_));
  }
  return pad();
}

absl::Status PaxWriter::finish() {
  SLUICE_RETURN_IF_ERROR(put_zeros(2 * kBlock));
  return put_zeros((kRecordBytes - written_ % kRecordBytes) % kRecordBytes);
}

}  // namespace sluice

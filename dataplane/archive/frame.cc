#include "dataplane/archive/frame.h"

#include "base/status.h"

namespace sluice {

std::string frame(const FrameKind& kind, std::string_view body) {
  std::string bytes;
  bytes.reserve(body.size() + kFrameBytes);
  ByteWriter out(&bytes);
  out.put(kind.magic);
  out.put(kind.version);
  out.put(uint16_t{0});
  out.put_bytes(body);
  put_digest(out, xxh3_128(bytes));
  return bytes;
}

absl::StatusOr<std::string_view> unframe(const FrameKind& kind, std::string_view bytes) {
  if (bytes.size() < kFrameBytes) {
    return data_loss("{}: {} bytes are too few", kind.name, bytes.size());
  }
  if (load_le<uint32_t>(bytes.data()) != kind.magic) {
    return data_loss("{}: no magic number", kind.name);
  }
  const std::string_view covered = bytes.substr(0, bytes.size() - 16);
  ByteReader end(bytes.substr(covered.size()));
  Digest128 digest;
  get_digest(end, &digest);
  if (xxh3_128(covered) != digest) return data_loss("{}: checksum mismatch", kind.name);
  const auto version = load_le<uint16_t>(bytes.data() + 4);
  if (version != kind.version) {
    return failed_precondition("{}: format version {}; this build reads {}", kind.name, version,
                               kind.version);
  }
  if (load_le<uint16_t>(bytes.data() + 6) != 0) {
    return data_loss("{}: reserved bytes are in use", kind.name);
  }
  return covered.substr(8);
}

}  // namespace sluice

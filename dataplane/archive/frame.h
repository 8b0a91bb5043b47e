// What the archive's small files have in common: magic, format version, body, XXH3-128 of all
// before it.
#ifndef SLUICE_DATAPLANE_ARCHIVE_FRAME_H_
#define SLUICE_DATAPLANE_ARCHIVE_FRAME_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "base/checksum.h"

namespace sluice {

struct FrameKind {
  uint32_t magic;
  uint16_t version;
  const char* name;  // for messages: "manifest"
};

inline constexpr FrameKind kManifestFrame{0x464d4c53, 1, "manifest"};       // "SLMF"
inline constexpr FrameKind kPartFrame{0x54504c53, 1, "part"};               // "SLPT"
inline constexpr FrameKind kIndexFrame{0x58494c53, 1, "index"};             // "SLIX"
inline constexpr FrameKind kJournalFrame{0x4e4a4c53, 1, "journal header"};  // "SLJN"

inline constexpr size_t kFrameBytes = 8 + 16;

std::string frame(const FrameKind& kind, std::string_view body);

// The body, a view into `bytes`. DATA_LOSS when damaged or another kind of file;
// FAILED_PRECONDITION for a whole frame of another format version (magic, version and digest keep
// their places in every version).
absl::StatusOr<std::string_view> unframe(const FrameKind& kind, std::string_view bytes);

inline void put_digest(ByteWriter& out, const Digest128& digest) {
  out.put(digest.low);
  out.put(digest.high);
}
inline bool get_digest(ByteReader& in, Digest128* digest) {
  return in.get(&digest->low) && in.get(&digest->high);
}

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_FRAME_H_

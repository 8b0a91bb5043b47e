#include "dataplane/store/manifest_end.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/file.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kBlock = 32 << 10;
constexpr size_t kHeader = 7;  // checksum 4, length 2, type 1
constexpr size_t kMaxCurrent = 4 << 10;
constexpr size_t kMaxManifest = size_t{1} << 30;

// A record is one fragment, or a first one, any number of middle ones and a last one.
enum Fragment : uint8_t { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

}  // namespace

bool ends_whole(std::string_view manifest) {
  bool within = false;
  size_t at = 0;
  while (at < manifest.size()) {
    const size_t left = kBlock - at % kBlock;
    if (left < kHeader) {
      at += left;
      continue;
    }
    if (manifest.size() - at < kHeader) return false;
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(manifest[at + i]); };
    const size_t size = kHeader + byte(4) + (size_t{byte(5)} << 8);
    const uint8_t type = byte(6);
    if (type < kFull || type > kLast) return false;
    if (size > left || size > manifest.size() - at) return false;
    if (within != (type == kMiddle || type == kLast)) return false;
    within = type == kFirst || type == kMiddle;
    at += size;
  }
  return !within;
}

absl::StatusOr<bool> manifest_ends_whole(const std::string& folder) {
  absl::StatusOr<std::string> current = read_file(folder + "/CURRENT", kMaxCurrent);
  if (absl::IsNotFound(current.status())) return true;
  SLUICE_RETURN_IF_ERROR(current.status());
  const std::string name = current->substr(0, current->find('\n'));
  // RocksDB refuses what is no name.
  if (!name.starts_with("MANIFEST-") || name.find('/') != name.npos) return false;
  absl::StatusOr<std::string> manifest = read_file(folder + "/" + name, kMaxManifest);
  if (absl::IsNotFound(manifest.status())) return false;
  SLUICE_RETURN_IF_ERROR(manifest.status());
  return ends_whole(*manifest);
}

}  // namespace sluice

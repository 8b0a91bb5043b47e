// The files of an archive's folder: which names are its own, and opening them past the page cache
// where the file system can.
#ifndef SLUICE_DATAPLANE_ARCHIVE_FOLDER_H_
#define SLUICE_DATAPLANE_ARCHIVE_FOLDER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"

namespace sluice {

// Names of the folder's entries, sorted. NOT_FOUND when there is no such folder.
absl::StatusOr<std::vector<std::string>> list_folder(const std::string& folder);

// The number in "segment-00012" (prefix "segment-"); nothing for other names, also "segment-12" or
// "segment-00012.tmp".
std::optional<uint32_t> numbered(std::string_view name, std::string_view prefix);
inline constexpr std::string_view kSegmentPrefix = "segment-";
inline constexpr std::string_view kIndexPrefix = "index-";

// Left by a crash in the middle of write_file_durably() of one of the archive's own files.
bool is_leftover(std::string_view name);
// Names in the folder of a part that is committed which count for nothing there: its journal, and
// leftovers. NOT_FOUND when there is no such folder.
absl::StatusOr<std::vector<std::string>> left_of_writing(const std::string& folder);
// Any file that an archive or an unfinished part has.
bool is_archive_file(std::string_view name);

// With O_DIRECT, or without it where the file system refuses that.
absl::StatusOr<UniqueFd> open_direct(const std::string& path, int flags);

absl::StatusOr<uint64_t> file_bytes(const std::string& path);

// Fills `into` from `offset` on and returns how many bytes there were before the file's end.
absl::StatusOr<size_t> read_at(int fd, uint64_t offset, std::span<uint8_t> into,
                               const std::string& path);

bool is_zero(std::span<const uint8_t> bytes);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_FOLDER_H_

#include "control/contents/contents_source.h"

#include "base/status.h"
#include "base/text.h"

namespace sluice {

absl::Status ContentsSource::scan(std::string_view prefix, const Each& each) {
  bool found = path_.empty();
  const std::string below = path_ + "/";
  SLUICE_RETURN_IF_ERROR(
      contents_.records([&](std::string_view key, std::string_view value) -> absl::Status {
        const std::string_view path = key.substr(0, key.find('\0'));
        const bool wanted = path_.empty() || path == path_ || path.starts_with(below);
        if (!wanted || !key.starts_with(prefix)) return absl::OkStatus();
        found = true;
        return each(key, value);
      }));
  if (found) return absl::OkStatus();
  return not_found("'{}' is not in the tree of {}", printable(path_), contents_.description());
}

absl::Status ContentsSource::scan_heads(std::string_view prefix, uint32_t bytes, const Each& each) {
  return scan(prefix, [&](std::string_view key, std::string_view value) {
    return each(key, value.substr(0, bytes));
  });
}

absl::StatusOr<std::optional<std::string>> ContentsSource::get(std::string_view key) {
  SLUICE_ASSIGN_OR_RETURN(BackupContents::Values values, contents_.read({std::string(key)}));
  return std::move(values.front());
}

}  // namespace sluice

// A tree in a backup as records to export (tree/tree_export.h): all of it, or what is at a path and
// below it.
//
// Confined to one thread; what it reads outlives it.
#ifndef SLUICE_CONTROL_CONTENTS_CONTENTS_SOURCE_H_
#define SLUICE_CONTROL_CONTENTS_CONTENTS_SOURCE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/contents/backup_contents.h"
#include "tree/record_stream.h"

namespace sluice {

class ContentsSource final : public RecordSource {
 public:
  // `path` empty: all.
  ContentsSource(BackupContents& contents, std::string path)
      : contents_(contents), path_(std::move(path)) {}

  // NOT_FOUND where there is nothing at the path.
  absl::Status scan(std::string_view prefix, const Each& each) override;
  absl::Status scan_heads(std::string_view prefix, uint32_t bytes, const Each& each) override;
  absl::StatusOr<std::optional<std::string>> get(std::string_view key) override;

 private:
  BackupContents& contents_;
  const std::string path_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_CONTENTS_SOURCE_H_

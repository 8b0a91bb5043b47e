#include "control/service/archive_folder.h"

#include <filesystem>
#include <system_error>

#include "base/status.h"

namespace sluice {

absl::Status check_archive_folder(const NodeContext& context, const std::string& folder) {
  std::error_code error;
  const auto root = std::filesystem::weakly_canonical(context.archive_folder, error);
  const auto path = std::filesystem::weakly_canonical(folder, error);
  if (error || path.parent_path() != root) {
    return permission_denied("{} is not a folder of {}'s archives", folder, context.name);
  }
  return absl::OkStatus();
}

}  // namespace sluice

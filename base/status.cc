#include "base/status.h"

#include <cerrno>

namespace sluice {

absl::Status errno_status(int error, std::string_view what) {
  return absl::ErrnoToStatus(error, absl::string_view(what.data(), what.size()));
}

absl::Status with_context(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return make_error(status.code(), "{}: {}", context, message_of(status));
}

}  // namespace sluice

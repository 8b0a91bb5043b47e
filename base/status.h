// Errors: absl::Status made from formatted messages, early return, and errno as a Status.
//
// Debian's Abseil has its own string_view type, so messages are made with fmt (which takes
// std::string_view) and read with message_of().
#ifndef SLUICE_BASE_STATUS_H_
#define SLUICE_BASE_STATUS_H_

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice {

template <typename... Args>
absl::Status make_error(absl::StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}

// invalid_argument("key of {} bytes: at most {}", ...) and so on, one for each code in use.
#define SLUICE_DEFINE_ERROR_(name, code)                                                           \
  template <typename... Args>                                                                      \
  absl::Status name(fmt::format_string<Args...> format, Args&&... args) {                          \
    return absl::Status(absl::StatusCode::code, fmt::format(format, std::forward<Args>(args)...)); \
  }
SLUICE_DEFINE_ERROR_(cancelled, kCancelled)
SLUICE_DEFINE_ERROR_(invalid_argument, kInvalidArgument)
SLUICE_DEFINE_ERROR_(deadline_exceeded, kDeadlineExceeded)
SLUICE_DEFINE_ERROR_(not_found, kNotFound)
SLUICE_DEFINE_ERROR_(already_exists, kAlreadyExists)
SLUICE_DEFINE_ERROR_(permission_denied, kPermissionDenied)
SLUICE_DEFINE_ERROR_(resource_exhausted, kResourceExhausted)
SLUICE_DEFINE_ERROR_(failed_precondition, kFailedPrecondition)
SLUICE_DEFINE_ERROR_(aborted, kAborted)
SLUICE_DEFINE_ERROR_(out_of_range, kOutOfRange)
SLUICE_DEFINE_ERROR_(unimplemented, kUnimplemented)
SLUICE_DEFINE_ERROR_(internal_error, kInternal)
SLUICE_DEFINE_ERROR_(unavailable, kUnavailable)
SLUICE_DEFINE_ERROR_(data_loss, kDataLoss)
#undef SLUICE_DEFINE_ERROR_

inline std::string_view message_of(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

// The error of a failed system call: "what: strerror(error)". ENOSPC becomes RESOURCE_EXHAUSTED,
// ENOENT NOT_FOUND, EACCES and EPERM PERMISSION_DENIED, the rest as Abseil maps them.
absl::Status errno_status(int error, std::string_view what);

// The same error with `context` before its message: "context: message". OK stays OK.
absl::Status with_context(const absl::Status& status, std::string_view context);

}  // namespace sluice

#define SLUICE_CONCAT_INNER_(a, b) a##b
#define SLUICE_CONCAT_(a, b) SLUICE_CONCAT_INNER_(a, b)

#define SLUICE_RETURN_IF_ERROR(expression)                                  \
  do {                                                                      \
    if (::absl::Status status_macro_ = (expression); !status_macro_.ok()) { \
      return status_macro_;                                                 \
    }                                                                       \
  } while (false)

#define SLUICE_ASSIGN_OR_RETURN(target, expression) \
  SLUICE_ASSIGN_OR_RETURN_IMPL_(SLUICE_CONCAT_(status_or_, __LINE__), target, expression)

#define SLUICE_ASSIGN_OR_RETURN_IMPL_(result, target, expression) \
  auto result = (expression);                                     \
  if (!result.ok()) return std::move(result).status();            \
  target = *std::move(result)

#endif  // SLUICE_BASE_STATUS_H_

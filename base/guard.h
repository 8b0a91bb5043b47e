// Where exceptions end. This code reports errors as statuses; what throws is the standard library
// (no memory, no thread) and what is linked. A handler, a thread or a callback that let one through
// would end the process, or answer without saying why.
#ifndef SLUICE_BASE_GUARD_H_
#define SLUICE_BASE_GUARD_H_

#include <functional>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice {

// The exception that is being handled, as a status, which is also logged: RESOURCE_EXHAUSTED for
// want of memory or threads, INTERNAL otherwise. To be called in a catch block. Throws nothing.
absl::Status current_exception_status(std::string_view what) noexcept;

// What `run` returns (OK for nothing), or the status of what it threw. `what` names the work, for
// the message.
template <typename Run>
absl::Status guarded(std::string_view what, Run&& run) noexcept {
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<Run>>) {
      std::forward<Run>(run)();
      return absl::OkStatus();
    } else {
      return std::forward<Run>(run)();
    }
  } catch (...) {
    return current_exception_status(what);
  }
}

// A thread whose body is guarded, and that tools see under the first 15 bytes of `what`.
// RESOURCE_EXHAUSTED when the system has no thread to give; nothing runs then.
absl::StatusOr<std::thread> start_thread(std::string_view what, std::function<void()> body);
// The same for who cannot return a status: throws std::system_error when there is no thread, which
// the caller's own guard tells of.
std::thread guarded_thread(std::string_view what, std::function<void()> body);

}  // namespace sluice

#endif  // SLUICE_BASE_GUARD_H_

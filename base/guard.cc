#include "base/guard.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <exception>
#include <new>
#include <string>
#include <system_error>

#include "base/status.h"

namespace sluice {

namespace {

constexpr size_t kMostNameBytes = 15;  // that Linux keeps of a thread's

absl::Status status_of_exception(std::string_view what) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return resource_exhausted("{}: no memory", what);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {
      return resource_exhausted("{}: the system gives no further thread ({})", what, error.what());
    }
    return internal_error("{}: {}", what, error.what());
  } catch (const std::exception& error) {
    return internal_error("{}: unexpected exception: {}", what, error.what());
  } catch (...) {
    return internal_error("{}: unexpected exception of an unknown type", what);
  }
}

}  // namespace

absl::Status current_exception_status(std::string_view what) noexcept {
  try {
    absl::Status status = status_of_exception(what);
    spdlog::error("{}", message_of(status));
    return status;
  } catch (...) {
    // Not even memory for a message.
    return absl::Status(absl::StatusCode::kResourceExhausted, {});
  }
}

std::thread guarded_thread(std::string_view what, std::function<void()> body) {
  return std::thread([name = std::string(what), run = std::move(body)] {
    pthread_setname_np(pthread_self(), name.substr(0, kMostNameBytes).c_str());
    guarded(name, run).IgnoreError();  // it is logged
  });
}

absl::StatusOr<std::thread> start_thread(std::string_view what, std::function<void()> body) {
  absl::StatusOr<std::thread> thread = absl::UnknownError("");
  const absl::Status status =
      guarded(what, [&] { thread = guarded_thread(what, std::move(body)); });
  if (!status.ok()) return status;
  return thread;
}

}  // namespace sluice

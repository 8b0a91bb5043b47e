#include "control/cli/standard_streams.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <mutex>
#include <string>

#include "base/status.h"

namespace sluice {
namespace {

std::atomic<bool> reader_gone{false};

// 0, or the error that write() ended with.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = write(fd, text.data(), text.size());
    if (done > 0) {
      text.remove_prefix(static_cast<size_t>(done));
      continue;
    }
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      // Somebody else's end of a shared terminal or pipe made it non-blocking.
      pollfd writable{fd, POLLOUT, 0};
      poll(&writable, 1, -1);
      continue;
    }
    return done < 0 ? errno : EIO;
  }
  return 0;
}

class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    write_stderr({text.data(), text.size()});
  }
  void flush_() override {}
};

}  // namespace

void open_standard_streams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number, which is this one. Not closed on exec: a child is no better off.
    const int opened = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (opened > STDERR_FILENO) close(opened);
  }
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("", std::make_shared<StderrSink>()));
  spdlog::set_error_handler([](const std::string&) {});
}

absl::Status write_stdout(std::string_view text) {
  const int error = write_all(STDOUT_FILENO, text);
  if (error == 0) return absl::OkStatus();
  reader_gone = error == EPIPE;
  return errno_status(error, "write stdout");
}

bool stdout_reader_gone() { return reader_gone; }

void write_stderr(std::string_view text) { write_all(STDERR_FILENO, text); }

}  // namespace sluice

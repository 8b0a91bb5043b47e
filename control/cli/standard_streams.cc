#include "control/cli/standard_streams.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/descriptor.h"
#include "base/status.h"

namespace sluice {
namespace {

std::atomic<bool> reader_gone{false};

// Every thread of a node logs: one that waited for a reader who stands still would keep all of
// them.
class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (!has_room()) {
      ++dropped_;
      return;
    }
    if (const uint64_t dropped = std::exchange(dropped_, 0); dropped > 0)
      print_stderr("{} log messages were dropped, as nobody read them\n", dropped);
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    write_stderr({text.data(), std::min(text.size(), kLongestMessage)});
    if (text.size() > kLongestMessage) write_stderr("...\n");
  }
  void flush_() override {}

 private:
  // A pipe that is said to be writable takes PIPE_BUF bytes: a message, and how many were dropped.
  static constexpr size_t kLongestMessage = PIPE_BUF - 128;
  static constexpr int kPatienceMs = 200;  // with a reader that was there a moment ago

  bool has_room() const {
    pollfd writable{STDERR_FILENO, POLLOUT, 0};
    return poll(&writable, 1, dropped_ == 0 ? kPatienceMs : 0) != 0;
  }

  uint64_t dropped_ = 0;
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

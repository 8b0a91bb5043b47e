#include "dataplane/store/error_log.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "base/text.h"

namespace sluice {
namespace {

constexpr size_t kLongestError = 1024;

}  // namespace

ErrorLog::ErrorLog(const std::string& path)
    : rocksdb::Logger(rocksdb::InfoLogLevel::ERROR_LEVEL), path_(path) {
  const std::string name = path + "/LOG";
  struct stat found = {};
  const bool full =
      ::stat(name.c_str(), &found) == 0 && static_cast<uint64_t>(found.st_size) > kFullBytes;
  file_ = UniqueFd(
      ::open(name.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (full ? O_TRUNC : 0), 0644));
  // Takes the file's first place on the disk while there is some: a full one is told there.
  append("opened");
}

void ErrorLog::Logv(const rocksdb::InfoLogLevel level, const char* format, va_list arguments) {
  if (level < GetInfoLogLevel() || level >= rocksdb::InfoLogLevel::HEADER_LEVEL) return;
  if (errors_.load(std::memory_order_relaxed) >= kMostErrors) return;
  errors_.fetch_add(1, std::memory_order_relaxed);
  char text[kLongestError];
  std::vsnprintf(text, sizeof text, format, arguments);
  std::string_view line = text;
  while (line.ends_with('\n')) line.remove_suffix(1);
  spdlog::warn("{}: {}", path_, line);
  append(std::string(line));
}

void ErrorLog::append(const std::string& line) {
  if (!file_) return;
  const std::string entry = fmt::format("{} UTC {}\n", utc_text(system_clock().wall_ms()), line);
  // One call, so that lines of several threads stand whole.
  [[maybe_unused]] const ssize_t written = ::write(file_.get(), entry.data(), entry.size());
}

}  // namespace sluice

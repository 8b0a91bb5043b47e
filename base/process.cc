#include "base/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>

#include "base/file.h"

namespace sluice {
namespace {

struct Stat {
  char state = 0;
  int threads = 0;
  uint64_t start_ticks = 0;
};

// Fields 3, 20 and 22 of /proc/PID/stat (proc(5)); the name before them is in parentheses and may
// hold anything.
std::optional<Stat> stat_of(int pid) {
  UniqueFd fd(open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  char text[2048];
  const ssize_t size = ::read(fd.get(), text, sizeof text - 1);
  if (size <= 0) return std::nullopt;
  const std::string_view line(text, static_cast<size_t>(size));
  const size_t end = line.rfind(')');
  if (end == std::string_view::npos || end + 2 >= line.size()) return std::nullopt;
  text[size] = '\0';
  Stat stat;
  unsigned long long ticks = 0;
  const int fields =
      std::sscanf(text + end + 2,
                  "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d %*d %llu",
                  &stat.state, &stat.threads, &ticks);
  if (fields != 3) return std::nullopt;
  stat.start_ticks = ticks;
  return stat;
}

// A process whose first thread has ended is shown as a zombie while others run, and hold files and
// locks.
bool is_running(const Stat& stat) {
  return stat.state != 'X' && (stat.state != 'Z' || stat.threads > 1);
}

// Where pids and starts are of one kind: a boot's name, and the numbers of the namespaces that pids
// and times are told by. Empty where /proc shows other processes than those of this namespace.
std::string scope_of_processes() {
  constexpr size_t kMostBytes = 128;
  char self[32];
  const ssize_t length = ::readlink("/proc/self", self, sizeof self);
  if (length <= 0 ||
      std::string_view(self, static_cast<size_t>(length)) != std::to_string(::getpid())) {
    return {};
  }
  const auto boot = read_file("/proc/sys/kernel/random/boot_id", kMostBytes);
  struct stat pids {};
  struct stat times {};  // none before Linux 5.6
  if (!boot.ok() || ::stat("/proc/self/ns/pid", &pids) != 0) return {};
  if (::stat("/proc/self/ns/time", &times) != 0) times.st_ino = 0;
  return fmt::format("{}/{}/{}/", boot->substr(0, boot->find('\n')), pids.st_ino, times.st_ino);
}

template <typename Number>
bool take_number(std::string_view* text, Number* number) {
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *number);
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return error == std::errc();
}

}  // namespace

std::optional<ProcessId> find_process(int pid) {
  const std::optional<Stat> stat = stat_of(pid);
  return stat ? std::optional(ProcessId{pid, stat->start_ticks}) : std::nullopt;
}

bool is_running(const ProcessId& process) {
  const std::optional<Stat> stat = stat_of(process.pid);
  return stat && stat->start_ticks == process.start_ticks && is_running(*stat);
}

std::string process_identity() {
  const std::string scope = scope_of_processes();
  const std::optional<ProcessId> own = find_process(::getpid());
  if (scope.empty() || !own) return {};
  return fmt::format("{}{}/{}", scope, own->pid, own->start_ticks);
}

bool has_surely_ended(std::string_view identity) {
  const std::string scope = scope_of_processes();
  if (scope.empty() || !identity.starts_with(scope)) return false;
  identity.remove_prefix(scope.size());
  ProcessId process;
  if (!take_number(&identity, &process.pid) || process.pid <= 0 || !identity.starts_with('/')) {
    return false;
  }
  identity.remove_prefix(1);
  if (!take_number(&identity, &process.start_ticks) || !identity.empty()) return false;
  if (::kill(process.pid, 0) != 0 && errno == ESRCH) return true;
  // One that cannot be read is there, for all that is known.
  const std::optional<Stat> stat = stat_of(process.pid);
  return stat && (stat->start_ticks != process.start_ticks || !is_running(*stat));
}

}  // namespace sluice

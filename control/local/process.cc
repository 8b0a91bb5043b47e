#include "control/local/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>

#include "base/clock.h"
#include "base/deadline.h"
#include "base/file.h"
#include "base/random.h"
#include "base/status.h"

extern char** environ;

namespace sluice {
namespace {

constexpr int64_t kExitPollMs = 20;
constexpr uint16_t kFirstPort = 20'000;
constexpr uint16_t kPorts = 12'000;  // the kernel's own begin at 32768

struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

// Attributes and file actions of one spawn.
class SpawnSetup {
 public:
  SpawnSetup() {
    posix_spawnattr_init(&attributes_);
    posix_spawn_file_actions_init(&actions_);
  }
  ~SpawnSetup() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&actions_);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  int prepare(const std::string& log) {
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setflags(&attributes_,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int error = posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (error == 0) {
      error = posix_spawn_file_actions_addopen(&actions_, STDOUT_FILENO, log.c_str(),
                                               O_WRONLY | O_CREAT | O_APPEND, 0644);
    }
    if (error == 0)
      error = posix_spawn_file_actions_adddup2(&actions_, STDOUT_FILENO, STDERR_FILENO);
    if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);
    return error;
  }
  const posix_spawnattr_t* attributes() const { return &attributes_; }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }

 private:
  posix_spawnattr_t attributes_;
  posix_spawn_file_actions_t actions_;
};

}  // namespace

absl::StatusOr<std::string> own_executable() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0) return errno_status(errno, "read /proc/self/exe");
  return std::string(path, static_cast<size_t>(size));
}

absl::StatusOr<ProcessId> spawn_daemon(const std::vector<std::string>& arguments,
                                       const std::string& log) {
  SpawnSetup setup;
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  int error = setup.prepare(log);
  if (error == 0)
    error = posix_spawn(&pid, argv[0], setup.actions(), setup.attributes(), argv.data(), environ);
  if (error != 0) return errno_status(error, fmt::format("start {} (log {})", arguments[0], log));
  const std::optional<ProcessId> process = find_process(pid);
  if (!process) return unavailable("process {} was gone at once; see {}", pid, log);
  return *process;
}

bool wait_until_gone(const ProcessId& process, int64_t timeout_ms) {
  Deadline deadline(system_clock(), timeout_ms);
  while (is_running(process)) {
    if (!deadline.pause(kExitPollMs)) return false;
  }
  waitpid(process.pid, nullptr, WNOHANG);  // where it is this process's own child
  return true;
}

// Through a pidfd, so that the signal cannot reach a process that got the pid in between.
absl::Status send_signal(const ProcessId& process, int signal) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0)));
  if (!fd && errno != ENOSYS) return errno_status(errno, fmt::format("process {}", process.pid));
  if (!is_running(process)) return not_found("process {} does not run any more", process.pid);
  const long done =
      fd ? syscall(SYS_pidfd_send_signal, fd.get(), signal, nullptr, 0) : kill(process.pid, signal);
  return done == 0 ? absl::OkStatus()
                   : errno_status(errno, fmt::format("signal process {}", process.pid));
}

absl::Status write_pid_file(const std::string& path, const ProcessId& process) {
  return write_file_durably(path, fmt::format("{} {}\n", process.pid, process.start_ticks));
}

absl::StatusOr<UniqueFd> take_process_lock(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644));
  if (!fd) return errno_status(errno, fmt::format("open {}", path));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode))
    return failed_precondition("{} is not a regular file; remove it", path);
  struct flock lock = whole_file();
  if (fcntl(fd.get(), F_SETLK, &lock) == 0) return fd;
  if (errno != EACCES && errno != EAGAIN) return errno_status(errno, fmt::format("lock {}", path));
  lock = whole_file();
  if (fcntl(fd.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) lock.l_pid = 0;
  return already_exists("{} is locked by process {}", path, lock.l_pid);
}

std::optional<ProcessId> holder_of_process_lock(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return std::nullopt;
  ProcessId holder;
  // The second look shows that the process whose start time was read held the lock then, and was
  // not one that was given the pid since.
  for (int look = 0; look < 2; ++look) {
    struct flock lock = whole_file();
    if (fcntl(fd.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK || lock.l_pid <= 1) {
      return std::nullopt;
    }
    if (look == 1) return lock.l_pid == holder.pid ? std::optional(holder) : std::nullopt;
    const std::optional<ProcessId> process = find_process(lock.l_pid);
    if (!process) return std::nullopt;
    holder = *process;
  }
  return std::nullopt;
}

absl::StatusOr<std::vector<uint16_t>> free_ports(size_t count) {
  Random random(entropy());
  std::vector<UniqueFd> held;  // until all are chosen, so that none is chosen twice
  std::vector<uint16_t> ports;
  for (int attempt = 0; ports.size() < count && attempt < 10'000; ++attempt) {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return errno_status(errno, "make a socket");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const auto port = static_cast<uint16_t>(kFirstPort + random.below(kPorts));
    address.sin_port = htons(port);
    if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) continue;
    ports.push_back(port);
    held.push_back(std::move(fd));
  }
  if (ports.size() < count)
    return resource_exhausted("found only {} free TCP ports of 127.0.0.1", ports.size());
  return ports;
}

std::string tail_of_file(const std::string& path, size_t bytes) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  const off_t end = fd ? lseek(fd.get(), 0, SEEK_END) : -1;
  if (end < 0) return "";
  const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(bytes));
  std::string text(static_cast<size_t>(end - begin), '\0');
  const ssize_t got = pread(fd.get(), text.data(), text.size(), begin);
  text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (begin > 0) text.erase(0, text.find('\n') + 1);
  return text;
}

}  // namespace sluice

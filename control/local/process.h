// Background processes of this machine that outlive the command that started them.
#ifndef SLUICE_CONTROL_LOCAL_PROCESS_H_
#define SLUICE_CONTROL_LOCAL_PROCESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "base/process.h"

namespace sluice {

// This program's own file.
absl::StatusOr<std::string> own_executable();
// Starts `arguments` in a session of its own, with stdin from /dev/null and both outputs appended
// to `log`. No signal is blocked there, and no descriptor but these three is handed on.
absl::StatusOr<ProcessId> spawn_daemon(const std::vector<std::string>& arguments,
                                       const std::string& log);
// False when it does not run any more. Waits at most timeout_ms for it to go.
bool wait_until_gone(const ProcessId& process, int64_t timeout_ms);
absl::Status send_signal(const ProcessId& process, int signal);

// "pid start-ticks" in a file, for whoever looks into the directory. Nothing in this program acts
// on what such a file says.
absl::Status write_pid_file(const std::string& path, const ProcessId& process);

// In a node's data directory, locked by the node.
inline constexpr char kNodeLockFile[] = "node.lock";

// Locks a file that says whose a directory is: held as long as this process lives, shown by the
// kernel to any other, and bound to the file itself, so that a copy of it has none. ALREADY_EXISTS
// naming the process that holds it. A process must lock a file once and open it nowhere else.
absl::StatusOr<UniqueFd> take_process_lock(const std::string& path);
// The process that holds the lock of exactly this file; nothing when nobody does.
std::optional<ProcessId> holder_of_process_lock(const std::string& path);

// TCP ports of 127.0.0.1 that are free now, below those that the kernel gives out by itself.
absl::StatusOr<std::vector<uint16_t>> free_ports(size_t count);

// The last lines of a file, at most `bytes` of them.
std::string tail_of_file(const std::string& path, size_t bytes);

}  // namespace sluice

#endif  // SLUICE_CONTROL_LOCAL_PROCESS_H_

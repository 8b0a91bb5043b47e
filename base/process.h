// Which process of which machine's which boot, and whether that one still runs.
#ifndef SLUICE_BASE_PROCESS_H_
#define SLUICE_BASE_PROCESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice {

// Names one process of this machine for good: a pid that was given to another process since has
// another start time.
struct ProcessId {
  int pid = 0;
  uint64_t start_ticks = 0;  // since boot
};

// The process that has the pid now; nothing where there is none, or where it cannot be read.
std::optional<ProcessId> find_process(int pid);
// Zombies do not run. A process runs until its last thread has ended.
bool is_running(const ProcessId& process);

// This process: boot, namespaces of pids and times, pid and start, in text of at most 160 bytes.
// Empty where the system does not say them.
inline constexpr size_t kMaxProcessIdentity = 160;
std::string process_identity();
// True only where `identity`, of process_identity(), is of this very boot and these namespaces, and
// that process does not run any more. Nothing is said of another machine's, nor of an earlier
// boot's: a copy of a machine that still runs has other boots, too.
bool has_surely_ended(std::string_view identity);

}  // namespace sluice

#endif  // SLUICE_BASE_PROCESS_H_

#include "drivers/dpdk/eal.h"

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_memory.h>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "drivers/dpdk/probe.h"

namespace sluice::dpdk {
namespace {

// DPDK's own memory: the mbufs of some ports. Of normal pages, it is touched only as it is used.
constexpr size_t kHugeBytesNeeded = size_t{64} << 20;
constexpr int kNormalMegabytes = 512;
constexpr size_t kComplaintBytes = 300;
constexpr size_t kPageBytes = 4096;

struct Eal {
  std::mutex mutex;  // begins, devices, memory
  bool begun = false;
  bool huge = false;
  absl::Status status;
  std::map<const Arena*, int> memory;

  std::mutex log_mutex;
  std::string complaint;
};

Eal& eal() {
  // Never destroyed: DPDK's threads may log until the very end.
  static Eal* const instance = new Eal;
  return *instance;
}

// DPDK writes its log lines here: warnings and worse go on, and are kept for the next error.
ssize_t take_log(void*, const char* text, size_t size) {
  std::string_view line(text, size);
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.remove_suffix(1);
  if (line.empty()) return static_cast<ssize_t>(size);
  {
    std::lock_guard lock(eal().log_mutex);
    eal().complaint.assign(line.substr(0, kComplaintBytes));
  }
  spdlog::debug("dpdk: {}", line);
  return static_cast<ssize_t>(size);
}

std::string last_complaint_or(std::string_view otherwise) {
  std::string complaint = take_last_complaint();
  return complaint.empty() ? std::string(otherwise) : complaint;
}

// "0@(0,1,5)": one EAL core that may run wherever this process may.
std::string cores_argument() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::string cores;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cores += fmt::format("{}{}", cores.empty() ? "" : ",", cpu);
    }
  }
  return fmt::format("--lcores=0@({})", cores.empty() ? "0" : cores);
}

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> result;
  while (true) {
    const size_t begin = text.find_first_not_of(' ');
    if (begin == std::string_view::npos) return result;
    text.remove_prefix(begin);
    const size_t end = std::min(text.find(' '), text.size());
    result.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::vector<std::string> eal_arguments(bool huge) {
  // "-a" of a device that there is not: no PCI device is touched unless a port names it.
  std::vector<std::string> arguments = {
      "sluice", cores_argument(),  "--no-telemetry", "--log-level=*:warning",
      "-a",     "pci:0000:00:00.0"};
  if (huge) {
    arguments.insert(arguments.end(), {"--in-memory"});
  } else {
    arguments.insert(arguments.end(),
                     {"--no-huge", "--no-shconf", fmt::format("-m{}", kNormalMegabytes)});
  }
  if (const char* more = std::getenv("SLUICE_DPDK_EAL"); more != nullptr) {
    for (std::string& word : words(more)) arguments.push_back(std::move(word));
  }
  return arguments;
}

void begin_here(Eal* state) {
  const cookie_io_functions_t functions = {nullptr, take_log, nullptr, nullptr};
  if (FILE* log = fopencookie(nullptr, "w", functions); log != nullptr) {
    setvbuf(log, nullptr, _IOLBF, BUFSIZ);
    rte_openlog_stream(log);
  }
  state->huge = free_huge_page_bytes() >= kHugeBytesNeeded && geteuid() == 0;
  std::vector<std::string> arguments = eal_arguments(state->huge);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  if (rte_eal_init(static_cast<int>(argv.size() - 1), argv.data()) < 0) {
    const int error = rte_errno;
    state->status = failed_precondition(
        "dpdk: its environment cannot begin: {} ({}); 'sluice doctor' says what is missing, "
        "SLUICE_DPDK_EAL holds further arguments of DPDK",
        rte_strerror(error), last_complaint_or("no reason given"));
  }
}

}  // namespace

std::string take_last_complaint() {
  std::lock_guard lock(eal().log_mutex);
  return std::exchange(eal().complaint, {});
}

absl::Status begin_eal() {
  Eal& state = eal();
  std::lock_guard lock(state.mutex);
  if (state.begun) return state.status;
  state.begun = true;
  // In a thread of its own, because DPDK pins the thread that begins it.
  std::thread([&state] { begin_here(&state); }).join();
  return state.status;
}

bool eal_has_huge_pages() { return eal().huge; }

absl::StatusOr<uint16_t> take_device(const std::string& device, const std::string& arguments) {
  std::lock_guard lock(eal().mutex);
  uint16_t port = 0;
  if (rte_eth_dev_get_port_by_name(device.c_str(), &port) == 0) {
    return already_exists(
        "dpdk: device {} is in use by another endpoint of this process; each needs a device of its "
        "own",
        device);
  }
  const bool made = is_virtual_device(device);
  if (!made && !eal().huge) {
    return failed_precondition(
        "dpdk: device {} needs huge pages, and {} MiB of them are not free: "
        "'sysctl vm.nr_hugepages=512', as root",
        device, kHugeBytesNeeded >> 20);
  }
  const std::string text = arguments.empty() ? device : device + "," + arguments;
  take_last_complaint();
  const int result = rte_dev_probe(text.c_str());
  if (result != 0 || rte_eth_dev_get_port_by_name(device.c_str(), &port) != 0) {
    return not_found(
        "dpdk: no device \"{}\": {} ({}); {}", text,
        result == 0 ? "no driver of DPDK took it" : rte_strerror(-result),
        last_complaint_or("no reason given"),
        made ? "is the interface or socket there, is this root, and is the driver's package "
               "(librte-net-*) installed?"
             : "bind it to vfio-pci with dpdk-devbind.py");
  }
  return port;
}

void give_back_device(uint16_t port) {
  std::lock_guard lock(eal().mutex);
  rte_eth_dev_info info{};
  rte_device* device = rte_eth_dev_info_get(port, &info) == 0 ? info.device : nullptr;
  rte_eth_dev_stop(port);
  rte_eth_dev_close(port);
  if (device != nullptr && rte_dev_remove(device) != 0)
    spdlog::warn("dpdk: port {} could not be given back: {}", port, take_last_complaint());
}

absl::Status know_memory(Arena& arena) {
  std::lock_guard lock(eal().mutex);
  int& known = eal().memory[&arena];
  if (known == 0) {
    if (rte_extmem_register(arena.base(), arena.bytes(), nullptr, 0, kPageBytes) != 0) {
      const int error = rte_errno;
      eal().memory.erase(&arena);
      return failed_precondition("dpdk: an arena of {} bytes cannot be registered: {}",
                                 arena.bytes(), rte_strerror(error));
    }
  }
  ++known;
  return absl::OkStatus();
}

void forget_memory(Arena& arena) {
  std::lock_guard lock(eal().mutex);
  const auto found = eal().memory.find(&arena);
  if (found == eal().memory.end() || --found->second > 0) return;
  rte_extmem_unregister(arena.base(), arena.bytes());
  eal().memory.erase(found);
}

}  // namespace sluice::dpdk

#include "drivers/dpdk/probe.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "base/file.h"
#include "base/status.h"

namespace sluice::dpdk {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHugeFolder = "/sys/kernel/mm/hugepages";
constexpr const char* kPciFolder = "/sys/bus/pci/devices";
constexpr const char* kIommuFolder = "/sys/kernel/iommu_groups";
constexpr const char* kVfioFile = "/dev/vfio/vfio";
constexpr int kEveryProtocol = 0x0300;  // ETH_P_ALL in network byte order
constexpr std::array<std::string_view, 3> kUserSpaceDrivers = {"vfio-pci", "uio_pci_generic",
                                                               "igb_uio"};
constexpr std::array<const char*, 2> kPluginFolders = {"/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0",
                                                       "/usr/lib/aarch64-linux-gnu/dpdk/pmds-23.0"};

std::string first_word(const fs::path& file) {
  std::ifstream in(file);
  std::string word;
  in >> word;
  return word;
}

size_t number_in(const fs::path& file) {
  const std::string word = first_word(file);
  size_t value = 0;
  std::from_chars(word.data(), word.data() + word.size(), value);
  return value;
}

bool has_entries(const char* folder) {
  std::error_code error;
  const fs::directory_iterator entries(folder, error);
  return !error && entries != fs::directory_iterator();
}

bool has_plugin(std::string_view name) {
  for (const char* folder : kPluginFolders) {
    std::error_code error;
    if (fs::exists(fs::path(folder) / fmt::format("librte_{}.so.23", name), error)) return true;
  }
  return false;
}

bool may_open_raw_socket() {
  const UniqueFd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, kEveryProtocol));
  return static_cast<bool>(fd);
}

std::string joined(const std::vector<std::string>& texts) {
  std::string result;
  for (const std::string& text : texts) result += (result.empty() ? "" : ", ") + text;
  return result;
}

std::vector<std::string> virtual_devices(bool raw_socket) {
  std::vector<std::string> names;
  if (has_plugin("net_af_packet") && raw_socket) names.emplace_back("net_af_packet");
  if (has_plugin("net_memif")) names.emplace_back("net_memif");
  return names;
}

}  // namespace

size_t free_huge_page_bytes() {
  size_t bytes = 0;
  std::error_code error;
  for (const fs::directory_entry& size : fs::directory_iterator(kHugeFolder, error)) {
    const std::string name = size.path().filename();  // hugepages-2048kB
    const size_t dash = name.find('-');
    size_t kib = 0;
    if (dash == std::string::npos) continue;
    std::from_chars(name.data() + dash + 1, name.data() + name.size(), kib);
    bytes += number_in(size.path() / "free_hugepages") * kib * 1024;
  }
  return bytes;
}

std::vector<std::string> bound_devices() {
  std::vector<std::string> result;
  std::error_code error;
  for (const fs::directory_entry& device : fs::directory_iterator(kPciFolder, error)) {
    if (first_word(device.path() / "class").rfind("0x02", 0) != 0) continue;
    std::error_code unbound;
    const std::string driver = fs::read_symlink(device.path() / "driver", unbound).filename();
    for (std::string_view wanted : kUserSpaceDrivers) {
      if (driver == wanted)
        result.push_back(fmt::format("{} ({})", device.path().filename().string(), driver));
    }
  }
  return result;
}

Report examine() {
  const size_t huge = free_huge_page_bytes();
  const bool iommu = has_entries(kIommuFolder);
  const bool vfio = access(kVfioFile, F_OK) == 0;
  const bool raw_socket = may_open_raw_socket();
  const std::vector<std::string> bound = bound_devices();
  const std::vector<std::string> made = virtual_devices(raw_socket);
  Report report;
  report.reason = fmt::format(
      "free huge pages: {} MiB; IOMMU: {}; VFIO: {}; network cards bound for user space: {}; "
      "virtual devices: {}",
      huge >> 20, iommu ? "yes" : "no", vfio ? "yes" : "no",
      bound.empty() ? std::string("none") : joined(bound),
      made.empty() ? std::string("none") : joined(made));
  report.usable = !made.empty() || (!bound.empty() && huge > 0);
  if (report.usable) return report;
  if (!bound.empty()) {
    report.fix = "reserve huge pages, as root: 'sysctl vm.nr_hugepages=512'";
  } else if (!raw_socket) {
    report.fix =
        "run as root or with CAP_NET_RAW for net_af_packet, install librte-net-memif23 for "
        "net_memif, or bind a card: 'modprobe vfio-pci; dpdk-devbind.py -b vfio-pci ADDRESS'";
  } else {
    report.fix =
        "install DPDK's drivers (Debian: librte-net-af-packet23, librte-net-memif23), or bind a "
        "card: 'modprobe vfio-pci; dpdk-devbind.py -b vfio-pci ADDRESS'";
  }
  return report;
}

}  // namespace sluice::dpdk

#include "control/node/measure.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "base/checksum.h"
#include "base/file.h"
#include "base/status.h"

namespace sluice {

namespace {

constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kPieces = 32;
constexpr int64_t kLongestNs = 400'000'000;

constexpr size_t kMaxSpeedText = 64;

struct Free {
  void operator()(uint8_t* memory) const { std::free(memory); }
};

// Empty unless it is an IP address.
std::string numeric_host(const sockaddr& address) {
  const socklen_t bytes = address.sa_family == AF_INET    ? sizeof(sockaddr_in)
                          : address.sa_family == AF_INET6 ? sizeof(sockaddr_in6)
                                                          : 0;
  char host[NI_MAXHOST] = "";
  if (bytes == 0 ||
      getnameinfo(&address, bytes, host, sizeof(host), nullptr, 0, NI_NUMERICHOST) != 0)
    return {};
  return host;
}

absl::StatusOr<double> write_rate(const std::string& path, const uint8_t* memory, Clock& clock) {
  UniqueFd fd(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC, 0600));
  if (!fd) fd.reset(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
  if (!fd) return errno_status(errno, path);
  const int64_t start = clock.monotonic_ns();
  size_t written = 0;
  int64_t elapsed = 0;
  for (size_t i = 0; i < kPieces && elapsed < kLongestNs; ++i) {
    if (write(fd.get(), memory + i * kPiece, kPiece) != static_cast<ssize_t>(kPiece)) {
      return errno_status(errno, path);
    }
    written += kPiece;
    elapsed = clock.monotonic_ns() - start;
  }
  if (fdatasync(fd.get()) != 0) return errno_status(errno, path);
  elapsed = clock.monotonic_ns() - start;
  return static_cast<double>(written) * 1e9 / static_cast<double>(elapsed);
}

}  // namespace

absl::StatusOr<MeasuredRates> measure_rates(const std::string& folder, Clock& clock) {
  const std::unique_ptr<uint8_t, Free> memory(
      static_cast<uint8_t*>(std::aligned_alloc(4096, kPiece * kPieces)));
  if (memory == nullptr) return resource_exhausted("no memory to measure with");
  std::memset(memory.get(), 0x5a, kPiece * kPieces);
  MeasuredRates rates;
  const int64_t start = clock.monotonic_ns();
  uint64_t sum = 0;
  for (size_t i = 0; i < kPieces; ++i) sum ^= xxh3_64(memory.get() + i * kPiece, kPiece);
  // The sum is used, so that it cannot be left out.
  const int64_t elapsed = clock.monotonic_ns() - start + static_cast<int64_t>(sum & 1);
  rates.checksum.rate =
      static_cast<double>(kPiece * kPieces) * 1e9 / static_cast<double>(elapsed + 1);
  const std::string path = folder + "/measure.tmp";
  const auto disk = write_rate(path, memory.get(), clock);
  unlink(path.c_str());
  if (!disk.ok()) return disk.status();
  rates.disk_write.rate = *disk;
  SLUICE_ASSIGN_OR_RETURN(rates.free_bytes, free_bytes_at(folder));
  return rates;
}

double reported_link_rate(const std::string& address, const std::string& devices) {
  const std::string host = address.substr(0, address.rfind(':'));
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return 0;
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, &freeifaddrs);
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || numeric_host(*each->ifa_addr) != host) continue;
    const auto text = read_file(fmt::format("{}/{}/speed", devices, each->ifa_name), kMaxSpeedText);
    // Megabits a second; -1 where the device does not know.
    const long speed = text.ok() ? std::strtol(text->c_str(), nullptr, 10) : 0;
    return speed > 0 ? static_cast<double>(speed) * 1e6 / 8 : 0;
  }
  return 0;
}

}  // namespace sluice

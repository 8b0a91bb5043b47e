#include "control/node/measure.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status.h"

namespace sluice {

namespace {

constexpr size_t kPiece = size_t{1} << 20;
constexpr size_t kPieces = 32;
constexpr int64_t kLongestNs = 400'000'000;

struct Free {
  void operator()(uint8_t* memory) const { std::free(memory); }
};

absl::StatusOr<double> write_rate(const std::string& path, const uint8_t* memory) {
  UniqueFd fd(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC, 0600));
  if (!fd) fd.reset(open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
  if (!fd) return errno_status(errno, path);
  const int64_t start = system_clock().monotonic_ns();
  size_t written = 0;
  int64_t elapsed = 0;
  for (size_t i = 0; i < kPieces && elapsed < kLongestNs; ++i) {
    if (write(fd.get(), memory + i * kPiece, kPiece) != static_cast<ssize_t>(kPiece)) {
      return errno_status(errno, path);
    }
    written += kPiece;
    elapsed = system_clock().monotonic_ns() - start;
  }
  if (fdatasync(fd.get()) != 0) return errno_status(errno, path);
  elapsed = system_clock().monotonic_ns() - start;
  return static_cast<double>(written) * 1e9 / static_cast<double>(elapsed);
}

}  // namespace

absl::StatusOr<MeasuredRates> measure_rates(const std::string& folder) {
  const std::unique_ptr<uint8_t, Free> memory(
      static_cast<uint8_t*>(std::aligned_alloc(4096, kPiece * kPieces)));
  if (memory == nullptr) return resource_exhausted("no memory to measure with");
  std::memset(memory.get(), 0x5a, kPiece * kPieces);
  MeasuredRates rates;
  const int64_t start = system_clock().monotonic_ns();
  uint64_t sum = 0;
  for (size_t i = 0; i < kPieces; ++i) sum ^= xxh3_64(memory.get() + i * kPiece, kPiece);
  // The sum is used, so that it cannot be left out.
  const int64_t elapsed = system_clock().monotonic_ns() - start + static_cast<int64_t>(sum & 1);
  rates.checksum = static_cast<double>(kPiece * kPieces) * 1e9 / static_cast<double>(elapsed + 1);
  const std::string path = folder + "/measure.tmp";
  const auto disk = write_rate(path, memory.get());
  unlink(path.c_str());
  if (!disk.ok()) return disk.status();
  rates.disk_write = *disk;
  struct statvfs info {};
  if (statvfs(folder.c_str(), &info) != 0) return errno_status(errno, folder);
  rates.free_bytes = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  return rates;
}

}  // namespace sluice

// One file of the directory's disk, in requests of 1 MiB: direct, eight in flight, and through the
// page cache. Writing ends with the sync; what is read is in no cache of this machine.
#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "bench/limits/limits.h"

namespace sluice::limits {
namespace {

constexpr size_t kFileBytes = size_t{1} << 30;
constexpr unsigned kDepth = 8;

UniqueFd open_file(const std::string& path, int flags) {
  UniqueFd file(open(path.c_str(), flags | O_CLOEXEC, 0600));
  require(static_cast<bool>(file), path.c_str());
  return file;
}

void wait_for_one(io_uring& ring) {
  io_uring_cqe* entry = nullptr;
  require(io_uring_wait_cqe(&ring, &entry) == 0, "io_uring_wait_cqe");
  if (entry->res != static_cast<int>(kBlockBytes)) {
    die(entry->res < 0 ? "direct I/O: " + std::string(std::strerror(-entry->res))
                       : "direct I/O: a short transfer");
  }
  io_uring_cqe_seen(&ring, entry);
}

void transfer_direct(int file, const ColdMemory& memory, size_t blocks, bool write) {
  io_uring ring{};
  require(io_uring_queue_init(kDepth, &ring, 0) == 0, "io_uring");
  size_t in_flight = 0;
  for (size_t i = 0; i < blocks; ++i, ++in_flight) {
    if (in_flight == kDepth) {
      wait_for_one(ring);
      --in_flight;
    }
    io_uring_sqe* const entry = io_uring_get_sqe(&ring);
    const uint64_t offset = i * kBlockBytes;
    if (write) {
      io_uring_prep_write(entry, file, memory.block(i), kBlockBytes, offset);
    } else {
      io_uring_prep_read(entry, file, memory.block(i), kBlockBytes, offset);
    }
    require(io_uring_submit(&ring) == 1, "io_uring_submit");
  }
  for (; in_flight > 0; --in_flight) wait_for_one(ring);
  io_uring_queue_exit(&ring);
}

void transfer_buffered(int file, const ColdMemory& memory, size_t blocks, bool write) {
  for (size_t i = 0; i < blocks; ++i) {
    const ssize_t done = write ? ::write(file, memory.block(i), kBlockBytes)
                               : ::read(file, memory.block(i), kBlockBytes);
    require(done == static_cast<ssize_t>(kBlockBytes), write ? "write" : "read");
  }
}

}  // namespace

std::vector<Sample> measure_disk(const Settings& settings) {
  const size_t blocks = std::max<size_t>(
      static_cast<size_t>(static_cast<double>(kFileBytes) * settings.scale) / kBlockBytes, kDepth);
  const uint64_t bytes = blocks * kBlockBytes;
  const ColdMemory memory;
  std::vector<Sample> samples;
  for (const bool direct : {true, false}) {
    const std::string path = settings.directory + (direct ? "/direct" : "/buffered");
    const std::string suffix = direct ? "_direct" : "_buffered";
    const int flags = direct ? O_DIRECT : 0;
    const auto transfer = direct ? transfer_direct : transfer_buffered;
    {
      const UniqueFd file = open_file(path, O_CREAT | O_TRUNC | O_WRONLY | flags);
      const Meter meter;
      // Not beyond the file's end, where ext4 takes one write after the other.
      if (direct) require(posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)) == 0, "space");
      transfer(file.get(), memory, blocks, true);
      require(fdatasync(file.get()) == 0, "fdatasync");
      samples.push_back(meter.stop("disk_write" + suffix, 0, bytes));
    }
    const UniqueFd file = open_file(path, O_RDONLY | flags);
    require(posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
    const Meter meter;
    transfer(file.get(), memory, blocks, false);
    samples.push_back(meter.stop("disk_read" + suffix, 0, bytes));
    std::filesystem::remove(path);
  }
  return samples;
}

}  // namespace sluice::limits

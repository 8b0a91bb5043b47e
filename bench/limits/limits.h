// What bounds this machine: memory, checksums, disk, loopback and the record store's RocksDB, each
// measured without anything of the project's data path in it. Internal to limits_bench.
//
// A measurement runs on `threads` threads, which the caller has pinned to as many processors. What
// it cannot do (no space, no direct I/O) ends the program with the reason: half a measurement is
// worth nothing.
#ifndef SLUICE_BENCH_LIMITS_LIMITS_H_
#define SLUICE_BENCH_LIMITS_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::limits {

inline constexpr size_t kBlockBytes = size_t{1} << 20;

struct Settings {
  std::string directory;  // existing, on the disk to measure; what is made there is removed
  size_t threads = 1;
  double scale = 1;  // of the bytes and seconds that a measurement takes
};

struct Sample {
  std::string name;
  size_t value_bytes = 0;  // 0: the measurement knows no values
  uint64_t bytes = 0;      // of payload, each counted once
  double seconds = 0;      // wall clock
  double core_s = 0;       // user and system time of all of the process's threads
};

// Wall and processor time from its construction on.
class Meter {
 public:
  Meter();
  Sample stop(std::string_view name, size_t value_bytes, uint64_t bytes) const;
  double seconds() const;

 private:
  const double begin_;
  const double core_begin_;
};

// Shared memory of 4 KiB pages, as the arena's, of random bytes; cold: well over the last-level
// cache, so that whoever goes through it in order finds nothing in a cache.
class ColdMemory {
 public:
  ColdMemory();
  ~ColdMemory();
  ColdMemory(const ColdMemory&) = delete;
  ColdMemory& operator=(const ColdMemory&) = delete;
  int memfd() const { return memfd_; }
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }  // a multiple of kBlockBytes
  size_t blocks() const { return size_ / kBlockBytes; }
  // The i-th block, round and round.
  uint8_t* block(size_t i) const { return data_ + block_offset(i); }
  size_t block_offset(size_t i) const { return i % blocks() * kBlockBytes; }

 private:
  const size_t size_;
  const int memfd_;
  uint8_t* data_ = nullptr;
};

[[noreturn]] void die(const std::string& what);
// Ends the program with `what` and errno's text unless `good`.
void require(bool good, const char* what);
// Calls work(0) to work(count - 1), each on a thread of its own, and waits for all.
void on_threads(size_t count, const std::function<void(size_t)>& work);

std::vector<Sample> measure_memory(const Settings& settings, const std::vector<size_t>& values);
std::vector<Sample> measure_disk(const Settings& settings);
std::vector<Sample> measure_loopback(const Settings& settings);
// Sorted tables built and ingested, scanned.
std::vector<Sample> measure_tables(const Settings& settings, size_t value_bytes);
// Batches with log and sync in three databases, with keys in order and with keys all over the
// database; and a scan of one that was filled in the latter way.
std::vector<Sample> measure_write_batches(const Settings& settings, size_t value_bytes);

}  // namespace sluice::limits

#endif  // SLUICE_BENCH_LIMITS_LIMITS_H_

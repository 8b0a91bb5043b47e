#include "bench/limits/limits.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/random.h"

namespace sluice::limits {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double core_now() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

size_t cold_bytes() {
  constexpr size_t kLeast = size_t{160} << 20;
  constexpr size_t kMost = size_t{1} << 30;
  const auto cache = static_cast<size_t>(std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), 0L));
  return std::clamp(5 * cache, kLeast, kMost) / kBlockBytes * kBlockBytes;
}

}  // namespace

Meter::Meter() : begin_(now()), core_begin_(core_now()) {}

Sample Meter::stop(std::string_view name, size_t value_bytes, uint64_t bytes) const {
  const double end = now();
  return {std::string(name), value_bytes, bytes, end - begin_, core_now() - core_begin_};
}

double Meter::seconds() const { return now() - begin_; }

ColdMemory::ColdMemory() : size_(cold_bytes()), memfd_(memfd_create("limits", MFD_CLOEXEC)) {
  require(memfd_ >= 0 && ftruncate(memfd_, static_cast<off_t>(size_)) == 0, "memfd");
  void* const base = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_, 0);
  require(base != MAP_FAILED, "mmap");
  data_ = static_cast<uint8_t*>(base);
  Random random(1);
  for (size_t at = 0; at < size_; at += sizeof(uint64_t)) {
    const uint64_t word = random.next();
    std::memcpy(data_ + at, &word, sizeof word);
  }
}

ColdMemory::~ColdMemory() {
  munmap(data_, size_);
  close(memfd_);
}

void die(const std::string& what) {
  std::fprintf(stderr, "limits_bench: %s\n", what.c_str());
  std::exit(1);
}

void require(bool good, const char* what) {
  if (!good) die(std::string(what) + ": " + std::strerror(errno));
}

void on_threads(size_t count, const std::function<void(size_t)>& work) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace sluice::limits

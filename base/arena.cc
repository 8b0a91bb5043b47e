#include "base/arena.h"

#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr std::string_view kHugeFolder = "/sys/kernel/mm/hugepages/hugepages-2048kB";

// Free and promised to nobody; 0 where the kernel has none.
size_t free_huge_bytes() {
  const auto count = [](std::string_view name) {
    size_t value = 0;
    std::ifstream(fmt::format("{}/{}", kHugeFolder, name)) >> value;
    return value;
  };
  const size_t free = count("free_hugepages");
  return (free - std::min(free, count("resv_hugepages"))) * kHugePage;
}

}  // namespace

BlockBuffer BlockBuffer::share() const {
  assert(arena_ != nullptr);
  // Relaxed is enough: the new reference is made from one that keeps the buffer alive.
  arena_->references_[index_].fetch_add(1, std::memory_order_relaxed);
  return BlockBuffer(arena_, index_);
}

void BlockBuffer::reset() {
  if (arena_ == nullptr) return;
  Arena* arena = std::exchange(arena_, nullptr);
  // Release orders this holder's accesses before the buffer's reuse; acquire makes the last holder
  // see those of all the others.
  if (arena->references_[index_].fetch_sub(1, std::memory_order_acq_rel) == 1) {
    arena->home_[index_]->put(index_);
  }
}

BlockPool::BlockPool(Arena* arena, std::string name, std::vector<uint32_t> buffers)
    : arena_(arena), name_(std::move(name)), size_(buffers.size()), free_(std::move(buffers)) {
  for (uint32_t index : free_) arena_->home_[index] = this;
}

BlockPool::~BlockPool() {
  wait_until_whole();
  const MutexLock lock(arena_->mutex_);
  arena_->unassigned_.insert(arena_->unassigned_.end(), free_.begin(), free_.end());
}

BlockBuffer BlockPool::try_take() {
  const MutexLock lock(mutex_);
  if (free_.empty()) return {};
  const uint32_t index = free_.back();
  free_.pop_back();
  arena_->references_[index].store(1, std::memory_order_relaxed);
  return BlockBuffer(arena_, index);
}

BlockBuffer BlockPool::take(int64_t timeout_ms) {
  {
    MutexLock lock(mutex_);
    if (!available_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                             [this]() SLUICE_REQUIRES(mutex_) { return !free_.empty(); })) {
      return {};
    }
    const uint32_t index = free_.back();
    free_.pop_back();
    arena_->references_[index].store(1, std::memory_order_relaxed);
    return BlockBuffer(arena_, index);
  }
}

void BlockPool::wait_until_whole() {
  MutexLock lock(mutex_);
  available_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return free_.size() == size_; });
}

size_t BlockPool::free() const {
  const MutexLock lock(mutex_);
  return free_.size();
}

void BlockPool::put(uint32_t index) {
  // Notified under the lock: the holder that waits for the last buffer may destroy the pool right
  // after.
  const MutexLock lock(mutex_);
  free_.push_back(index);
  available_.notify_one();
  if (home_hook_) home_hook_();
}

void BlockPool::set_home_hook(std::function<void()> hook) {
  const MutexLock lock(mutex_);
  home_hook_ = std::move(hook);
}

absl::StatusOr<std::unique_ptr<Arena>> Arena::create(const Options& options) {
  if (options.buffer_bytes == 0 || options.buffer_bytes % 4096 != 0) {
    return invalid_argument("arena: a buffer of {} bytes is not a multiple of 4096",
                            options.buffer_bytes);
  }
  const size_t count = options.bytes / options.buffer_bytes;
  if (count == 0) {
    return invalid_argument("arena: {} bytes hold no buffer of {} bytes", options.bytes,
                            options.buffer_bytes);
  }
  const size_t bytes = count * options.buffer_bytes;
  absl::StatusOr<Memory> memory = resource_exhausted("arena: not mapped yet");
  if (options.pages == Pages::kHuge ||
      (options.pages == Pages::kHugeIfFree && free_huge_bytes() >= bytes + kHugeLeft)) {
    memory = map(bytes, /*huge=*/true);
  }
  if (!memory.ok() && options.pages != Pages::kHuge) memory = map(bytes, /*huge=*/false);
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<Arena>(new Arena(*memory, options.buffer_bytes, count));
}

absl::StatusOr<Arena::Memory> Arena::map(size_t bytes, bool huge) {
  const size_t unit = huge ? kHugePage : 4096;
  Memory memory;
  memory.bytes = (bytes + unit - 1) / unit * unit;
  memory.huge = huge;
  memory.memfd =
      memfd_create("sluice-arena", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0u));
  if (memory.memfd < 0) return errno_status(errno, "arena: memfd_create");
  void* base = MAP_FAILED;
  if (ftruncate(memory.memfd, static_cast<off_t>(memory.bytes)) == 0) {
    base = mmap(nullptr, memory.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.memfd, 0);
  }
  // Huge pages are taken now: one that a limit forbids would later be a signal.
  if (huge && base != MAP_FAILED && madvise(base, memory.bytes, MADV_POPULATE_WRITE) != 0) {
    const int error = errno;
    munmap(base, memory.bytes);
    base = MAP_FAILED;
    errno = error;
  }
  if (base == MAP_FAILED) {
    const int error = errno;
    close(memory.memfd);
    return resource_exhausted(
        "arena of {} bytes: {}; {}", memory.bytes, message_of(errno_status(error, "memory")),
        huge ? "reserve huge pages (sysctl vm.nr_hugepages) or use normal pages"
             : "make the arena smaller (arena_bytes)");
  }
  memory.base = static_cast<uint8_t*>(base);
  return memory;
}

Arena::Arena(const Memory& memory, size_t buffer_bytes, size_t count)
    : memfd_(memory.memfd),
      base_(memory.base),
      mapped_(memory.bytes),
      huge_(memory.huge),
      buffer_bytes_(buffer_bytes),
      count_(count),
      references_(std::make_unique<std::atomic<uint32_t>[]>(count)),
      home_(std::make_unique<BlockPool*[]>(count)) {
  unassigned_.reserve(count);
  for (size_t i = count; i > 0; --i) unassigned_.push_back(static_cast<uint32_t>(i - 1));
}

Arena::~Arena() {
  assert(unassigned_.size() == count_ && "an arena was destroyed before its pools");
  munmap(base_, mapped_);
  close(memfd_);
}

absl::StatusOr<std::unique_ptr<BlockPool>> Arena::make_pool(std::string name, size_t buffers) {
  std::vector<uint32_t> mine;
  {
    const MutexLock lock(mutex_);
    if (unassigned_.size() < buffers) {
      return resource_exhausted(
          "arena of {} bytes has {} buffers left, \"{}\" needs {}; make the arena larger "
          "(arena_bytes) or run fewer jobs at once",
          bytes(), unassigned_.size(), name, buffers);
    }
    mine.assign(unassigned_.end() - static_cast<std::ptrdiff_t>(buffers), unassigned_.end());
    unassigned_.resize(unassigned_.size() - buffers);
  }
  return std::unique_ptr<BlockPool>(new BlockPool(this, std::move(name), std::move(mine)));
}

size_t Arena::unassigned() const {
  const MutexLock lock(mutex_);
  return unassigned_.size();
}

}  // namespace sluice

#include "tests/simulation/heap.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tests/simulation/system_calls.h"

// The C library's own, under names of its own.
extern "C" {
void* __libc_malloc(size_t bytes);
void __libc_free(void* memory);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* memory, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace sluice::simulation {
namespace {

constexpr uintptr_t kAddress = 0x100000000000;
constexpr size_t kHeapBytes = size_t{64} << 30;  // of addresses
constexpr size_t kAlignment = 16;

// Before each block. The block's memory begins here or, where it had to be aligned, earlier.
struct alignas(kAlignment) Header {
  uint32_t size_class;
  uint32_t padding;  // bytes between the beginning and this header
};
struct Free {
  Free* next;
};

// Sizes are those of the whole memory of a block: multiples of 32 up to 1 KiB, then four to each
// power of two.
constexpr size_t kSmallStep = 32;
constexpr size_t kSmallClasses = 32;
constexpr size_t kClasses = kSmallClasses + size_t{4} * 30;

size_t class_of(size_t bytes) {
  if (bytes <= kSmallStep * kSmallClasses) return (bytes + kSmallStep - 1) / kSmallStep - 1;
  const auto power = static_cast<size_t>(std::bit_width(bytes - 1) - 1);  // at least 10
  const size_t quarter = (bytes - 1) >> (power - 2) & 3;
  return kSmallClasses + (power - 10) * 4 + quarter;
}

size_t bytes_of(size_t size_class) {
  if (size_class < kSmallClasses) return (size_class + 1) * kSmallStep;
  const size_t above = size_class - kSmallClasses;
  return (size_t{5} + above % 4) << (above / 4 + 8);
}

constinit bool is_active = false;
constinit char* next = nullptr;  // what was never used; zeros
constinit std::array<Free*, kClasses> free_blocks{};

bool is_mine(const void* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return address >= kAddress && address < kAddress + kHeapBytes;
}

Header& header_of(void* memory) { return static_cast<Header*>(memory)[-1]; }

size_t usable_bytes(void* memory) {
  const Header& header = header_of(memory);
  return bytes_of(header.size_class) - header.padding - sizeof(Header);
}

struct Taken {
  void* memory;
  bool zeros;
};

// Null memory when there is none.
Taken take(size_t bytes, size_t alignment = kAlignment) {
  const size_t spare = alignment > kAlignment ? alignment : 0;
  if (bytes > kHeapBytes / 2 || spare > kHeapBytes / 2) return {nullptr, false};
  const size_t size_class = class_of(std::max(bytes, sizeof(Free)) + sizeof(Header) + spare);
  char* begin = reinterpret_cast<char*>(free_blocks[size_class]);
  const bool fresh = begin == nullptr;
  if (fresh) {
    if (bytes_of(size_class) > kAddress + kHeapBytes - reinterpret_cast<uintptr_t>(next)) {
      return {nullptr, false};
    }
    begin = next;
    next += bytes_of(size_class);
  } else {
    free_blocks[size_class] = free_blocks[size_class]->next;
  }
  const auto first = reinterpret_cast<uintptr_t>(begin) + sizeof(Header);
  const uintptr_t memory = (first + alignment - 1) / alignment * alignment;
  auto* const result = reinterpret_cast<void*>(memory);
  header_of(result) = {static_cast<uint32_t>(size_class), static_cast<uint32_t>(memory - first)};
  return {result, fresh};
}

void give_back(void* memory) {
  const Header header = header_of(memory);
  auto* const block =
      reinterpret_cast<Free*>(static_cast<char*>(memory) - sizeof(Header) - header.padding);
  block->next = free_blocks[header.size_class];
  free_blocks[header.size_class] = block;
}

void* or_no_memory(void* memory) {
  if (memory == nullptr) errno = ENOMEM;
  return memory;
}

}  // namespace

void begin_heap() {
  void* const memory =
      mmap(reinterpret_cast<void*>(kAddress), kHeapBytes, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  // Faults of small pages would be a tenth of what a run costs. Where it is refused they are.
  madvise(memory, kHeapBytes, MADV_HUGEPAGE);
  next = static_cast<char*>(memory);
  is_active = true;
}

}  // namespace sluice::simulation

using namespace sluice::simulation;  // NOLINT: what follows has the C library's names

extern "C" {

void* malloc(size_t bytes) noexcept {
  return is_active ? or_no_memory(take(bytes).memory) : __libc_malloc(bytes);
}

void free(void* memory) noexcept {
  if (is_mine(memory)) return give_back(memory);
  if (!is_active) __libc_free(memory);
}

void* calloc(size_t count, size_t bytes) noexcept {
  if (!is_active) return __libc_calloc(count, bytes);
  size_t all = 0;
  if (__builtin_mul_overflow(count, bytes, &all)) return or_no_memory(nullptr);
  const Taken taken = take(all);
  if (taken.memory != nullptr && !taken.zeros) std::memset(taken.memory, 0, all);
  return or_no_memory(taken.memory);
}

void* realloc(void* memory, size_t bytes) noexcept {
  if (!is_active) return __libc_realloc(memory, bytes);
  if (memory == nullptr) return malloc(bytes);
  const size_t had = malloc_usable_size(memory);
  if (is_mine(memory) && bytes <= had) return memory;
  void* const moved = malloc(bytes);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, memory, std::min(had, bytes));
  free(memory);
  return moved;
}

void* memalign(size_t alignment, size_t bytes) noexcept {
  return is_active ? or_no_memory(take(bytes, std::max(alignment, kAlignment)).memory)
                   : __libc_memalign(alignment, bytes);
}

void* aligned_alloc(size_t alignment, size_t bytes) noexcept { return memalign(alignment, bytes); }

int posix_memalign(void** memory, size_t alignment, size_t bytes) noexcept {
  void* const taken = memalign(alignment, bytes);
  if (taken == nullptr) return ENOMEM;
  *memory = taken;
  return 0;
}

size_t malloc_usable_size(void* memory) noexcept {
  if (memory == nullptr) return 0;
  return is_mine(memory) ? usable_bytes(memory) : SLUICE_SYSTEM(malloc_usable_size)(memory);
}

}  // extern "C"

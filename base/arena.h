// The arena: all memory that block data ever stands in, from the store's gather copy to the wire,
// and from the wire to the disk. It is one memfd mapping cut into equal buffers, so that it can be
// registered once with every driver and with the disk ring, and sent from without a copy.
//
// Buffers belong to pools, and a pool to one holder (a receive queue, a sending pipeline, a
// restore). A pool's buffers are its own: whatever other holders do, they cannot be used up by
// them. The arena's size is therefore the sum of its pools, and running dry is back-pressure on one
// holder, never a deadlock of two.
//
// Each buffer has room for a block of kMaxBlockBytes and, behind it, kEnvelopeRoom bytes for the
// stream envelope that travels as the block's trailer: the block itself starts page-aligned and can
// be written with O_DIRECT from where it was received.
#ifndef SLUICE_BASE_ARENA_H_
#define SLUICE_BASE_ARENA_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"

namespace sluice {

inline constexpr size_t kMaxBlockBytes = size_t{1} << 20;
inline constexpr size_t kEnvelopeRoom = 4096;
inline constexpr size_t kBufferBytes = kMaxBlockBytes + kEnvelopeRoom;

class Arena;
class BlockPool;

// A counted reference to one buffer of an arena. Move-only; share() makes a further reference. The
// buffer goes back to its pool when the last reference goes, from any thread. One reference may be
// used by one thread at a time; what several references share is read-only by agreement.
class BlockBuffer {
 public:
  BlockBuffer() = default;
  BlockBuffer(BlockBuffer&& other) noexcept : arena_(other.arena_), index_(other.index_) {
    other.arena_ = nullptr;
  }
  BlockBuffer& operator=(BlockBuffer&& other) noexcept {
    if (this != &other) {
      reset();
      arena_ = other.arena_;
      index_ = other.index_;
      other.arena_ = nullptr;
    }
    return *this;
  }
  ~BlockBuffer() { reset(); }

  explicit operator bool() const { return arena_ != nullptr; }
  uint8_t* data() const;
  size_t capacity() const;
  std::span<uint8_t> span() const { return {data(), capacity()}; }
  // Its number in the arena, and its byte offset in the arena's memfd.
  uint32_t index() const { return index_; }
  size_t offset() const;
  BlockBuffer share() const;
  void reset();

 private:
  friend class BlockPool;
  BlockBuffer(Arena* arena, uint32_t index) : arena_(arena), index_(index) {}
  Arena* arena_ = nullptr;
  uint32_t index_ = 0;
};

// A holder's own share of an arena. Thread-safe. Its destruction waits for its buffers, which may
// still be on their way out in a driver, and gives them back to the arena: whoever destroys it
// holds none, and what holds them still runs.
class BlockPool {
 public:
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // An empty buffer reference when none is free.
  BlockBuffer try_take();
  // Waits until one is free, at most `timeout_ms`; empty then.
  BlockBuffer take(int64_t timeout_ms);
  // Waits until all buffers are home. Nobody takes any meanwhile.
  void wait_until_whole();
  // From now on `hook` runs after a buffer has come home, on the thread that let go of it, under
  // the pool's lock: it must be quick and not use the pool.
  void set_home_hook(std::function<void()> hook);
  size_t size() const { return size_; }
  size_t free() const;
  const std::string& name() const { return name_; }

 private:
  friend class Arena;
  friend class BlockBuffer;
  BlockPool(Arena* arena, std::string name, std::vector<uint32_t> buffers);
  void put(uint32_t index);

  Arena* const arena_;
  const std::string name_;
  const size_t size_;
  mutable Mutex mutex_;
  Condition available_;
  std::vector<uint32_t> free_
      SLUICE_GUARDED_BY(mutex_);  // reserved to size_: putting back never allocates
  std::function<void()> home_hook_ SLUICE_GUARDED_BY(mutex_);
};

// Thread-safe. Must outlive its pools.
class Arena {
 public:
  // kHuge: of 2 MiB, or an error. kHugeIfFree: those where enough are free for the arena and for
  // kHugeLeft besides, for drivers that have memory of their own; else normal ones. No file can be
  // sent from a memfd of huge pages (sendfile).
  enum class Pages { kNormal, kHuge, kHugeIfFree };
  static constexpr size_t kHugeLeft = size_t{64} << 20;
  struct Options {
    size_t bytes = size_t{256} << 20;
    size_t buffer_bytes = kBufferBytes;  // a multiple of 4096
    Pages pages = Pages::kNormal;
  };
  // RESOURCE_EXHAUSTED with what to change when there is no memory or no huge page for it.
  static absl::StatusOr<std::unique_ptr<Arena>> create(const Options& options);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Moves `buffers` buffers into a pool of their own. RESOURCE_EXHAUSTED, naming the pool, the
  // arena's size and what is left of it, when it has fewer.
  absl::StatusOr<std::unique_ptr<BlockPool>> make_pool(std::string name, size_t buffers);

  int memfd() const { return memfd_; }
  uint8_t* base() const { return base_; }
  size_t bytes() const { return buffer_bytes_ * count_; }
  size_t buffer_bytes() const { return buffer_bytes_; }
  size_t buffers() const { return count_; }
  size_t unassigned() const;
  bool has_huge_pages() const { return huge_; }

 private:
  friend class BlockBuffer;
  friend class BlockPool;
  // A mapping, and the memfd it is of.
  struct Memory {
    int memfd = -1;
    uint8_t* base = nullptr;
    size_t bytes = 0;
    bool huge = false;
  };
  static absl::StatusOr<Memory> map(size_t bytes, bool huge);
  Arena(const Memory& memory, size_t buffer_bytes, size_t count);

  const int memfd_;
  uint8_t* const base_;
  const size_t mapped_;
  const bool huge_;
  const size_t buffer_bytes_;
  const size_t count_;
  std::unique_ptr<std::atomic<uint32_t>[]> references_;
  std::unique_ptr<BlockPool*[]> home_;
  mutable Mutex mutex_;
  std::vector<uint32_t> unassigned_ SLUICE_GUARDED_BY(mutex_);
};

inline uint8_t* BlockBuffer::data() const { return arena_->base_ + offset(); }
inline size_t BlockBuffer::capacity() const { return arena_->buffer_bytes_; }
inline size_t BlockBuffer::offset() const { return arena_->buffer_bytes_ * index_; }

}  // namespace sluice

#endif  // SLUICE_BASE_ARENA_H_

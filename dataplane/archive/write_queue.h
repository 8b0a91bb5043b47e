// Writes of arena buffers to files, several in flight: io_uring, or pwrite in the caller's thread
// where the kernel has none.
#ifndef SLUICE_DATAPLANE_ARCHIVE_WRITE_QUEUE_H_
#define SLUICE_DATAPLANE_ARCHIVE_WRITE_QUEUE_H_

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/stage.h"

namespace sluice {

// Same contract as pwrite(2), errno included. Tests put their faults here.
using WriteFunction = std::function<ssize_t(int fd, const void* data, size_t bytes, off_t offset)>;

// Goes on after interrupted and short writes. RESOURCE_EXHAUSTED when the disk is full.
absl::Status write_fully(const WriteFunction& write, int fd, std::string_view bytes,
                         uint64_t offset, const std::string& what);

// Thread-safe. The first error is for good: every later call returns it.
//
// Small blocks that follow one another in a file become one write as long as enough other writes
// are in flight: for the kernel a write costs more than the bytes of a small one.
class WriteQueue {
 public:
  // `depth` buffers are held at a time. `what` names the place in errors. A `replacement` is called
  // instead of anything else. `stage`, where not null, is at work while a write is under way; it
  // outlives the queue.
  WriteQueue(size_t depth, std::string what, WriteFunction replacement, Stage* stage = nullptr);
  // Waits for what is in flight.
  ~WriteQueue();
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  // Queues a write of the buffer's first `bytes` bytes; waits while `depth` buffers are held. The
  // buffer goes home, and the file is let go, when the write is done.
  absl::Status write(std::shared_ptr<UniqueFd> file, uint64_t offset, BlockBuffer block,
                     size_t bytes);
  // Waits for all writes queued before the call, not for later ones. One thread at a time.
  absl::Status flush();
  bool uses_io_uring() const { return ring_ != nullptr; }
  // So far: blocks that were queued, and writes that they became.
  struct Counts {
    uint64_t blocks = 0;
    uint64_t writes = 0;
  };
  Counts counts() const;

 private:
  // Writes in flight that keep a disk busy: more are gathered first, until one has kGatherBytes.
  static constexpr size_t kAtOnce = 2;
  static constexpr size_t kGatherBytes = size_t{512} << 10;

  struct Ring;
  struct Operation {
    std::shared_ptr<UniqueFd> file;
    uint64_t offset = 0;
    std::vector<BlockBuffer> blocks;
    std::vector<iovec> parts;  // of the blocks, what is still to be written
    size_t bytes = 0;
    size_t done = 0;
    int epoch = 0;
  };

  void reap();
  void add_locked(std::shared_ptr<UniqueFd> file, uint64_t offset, BlockBuffer block, size_t bytes)
      SLUICE_REQUIRES(mutex_);
  void start_locked() SLUICE_REQUIRES(mutex_);
  void submit_locked(size_t index) SLUICE_REQUIRES(mutex_);
  void count_system_call();
  void complete_locked(size_t index, int result) SLUICE_REQUIRES(mutex_);
  void finish_locked(size_t index, const absl::Status& status) SLUICE_REQUIRES(mutex_);

  const std::string what_;
  const WriteFunction replacement_;
  Stage* const stage_;
  const size_t depth_;
  mutable Mutex mutex_;
  Condition changed_;  // for writers and flushes
  Condition in_ring_;  // for the reaper
  std::unique_ptr<Ring> ring_;
  std::vector<Operation> operations_ SLUICE_GUARDED_BY(mutex_);
  std::vector<size_t> idle_ SLUICE_GUARDED_BY(mutex_);
  std::deque<size_t> waiting_
      SLUICE_GUARDED_BY(mutex_);  // not submitted, in order; only the last one grows
  size_t submitted_ SLUICE_GUARDED_BY(mutex_) = 0;
  size_t held_ SLUICE_GUARDED_BY(mutex_) = 0;  // blocks
  // Operations of the epoch that is being flushed and of the one that collects new ones, so that a
  // flush ends however many writes follow it.
  size_t open_[2] SLUICE_GUARDED_BY(mutex_) = {0, 0};
  int epoch_ SLUICE_GUARDED_BY(mutex_) = 0;
  Counts counts_ SLUICE_GUARDED_BY(mutex_);
  absl::Status error_ SLUICE_GUARDED_BY(mutex_);
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread reaper_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_ARCHIVE_WRITE_QUEUE_H_

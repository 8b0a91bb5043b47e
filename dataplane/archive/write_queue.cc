#include "dataplane/archive/write_queue.h"

#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/status.h"
#include "dataplane/archive/manifest.h"

namespace sluice {

namespace {

constexpr int kSubmitAttempts = 1000;  // the kernel may be short of memory for a moment

}  // namespace

struct WriteQueue::Ring {
  io_uring ring{};
  bool ready = false;
  explicit Ring(size_t depth)
      : ready(io_uring_queue_init(static_cast<unsigned>(depth), &ring, 0) == 0) {}
  ~Ring() {
    if (ready) io_uring_queue_exit(&ring);
  }
};

absl::Status write_fully(const WriteFunction& write, int fd, std::string_view bytes,
                         uint64_t offset, const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return errno_status(written < 0 ? errno : ENOSPC, what);
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

WriteQueue::WriteQueue(size_t depth, std::string what, WriteFunction replacement, Stage* stage)
    : what_(std::move(what)),
      replacement_(std::move(replacement)),
      stage_(stage),
      depth_(std::max<size_t>(depth, 1)),
      operations_(depth_) {
  for (size_t i = operations_.size(); i > 0; --i) idle_.push_back(i - 1);
  if (replacement_) return;
  ring_ = std::make_unique<Ring>(operations_.size());
  if (!ring_->ready) {
    ring_ = nullptr;
    return;
  }
  reaper_ = std::thread([this] { reap(); });
}

WriteQueue::~WriteQueue() {
  {
    MutexLock lock(mutex_);
    changed_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return held_ == 0; });
    stop_ = true;
    in_ring_.notify_all();
  }
  if (reaper_.joinable()) reaper_.join();
}

WriteQueue::Counts WriteQueue::counts() const {
  const MutexLock lock(mutex_);
  return counts_;
}

absl::Status WriteQueue::write(std::shared_ptr<UniqueFd> file, uint64_t offset, BlockBuffer block,
                               size_t bytes) {
  MutexLock lock(mutex_);
  changed_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return held_ < depth_ || !error_.ok(); });
  if (!error_.ok()) return error_;
  ++held_;
  ++counts_.blocks;
  if (ring_ != nullptr) {
    add_locked(std::move(file), offset, std::move(block), bytes);
    start_locked();
    return absl::OkStatus();
  }
  const int epoch = epoch_;
  ++open_[epoch];
  ++counts_.writes;
  lock.unlock();
  const WriteFunction system = [](int fd, const void* data, size_t size, off_t at) {
    return pwrite(fd, data, size, at);
  };
  absl::Status status;
  {
    Stage::Work work(stage_);
    count_system_call();
    status = write_fully(replacement_ ? replacement_ : system, file->get(),
                         {reinterpret_cast<const char*>(block.data()), bytes}, offset, what_);
    if (status.ok()) work.add(bytes);
  }
  file.reset();
  block.reset();
  lock.lock();
  if (error_.ok()) error_ = status;
  --held_;
  --open_[epoch];
  changed_.notify_all();
  return error_;
}

absl::Status WriteQueue::flush() {
  MutexLock lock(mutex_);
  const int flushed = std::exchange(epoch_, 1 - epoch_);
  changed_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) { return open_[flushed] == 0; });
  return error_;
}

void WriteQueue::add_locked(std::shared_ptr<UniqueFd> file, uint64_t offset, BlockBuffer block,
                            size_t bytes) {
  Operation* last = waiting_.empty() ? nullptr : &operations_[waiting_.back()];
  if (last == nullptr || last->file != file || last->offset + last->bytes != offset ||
      last->epoch != epoch_ || last->bytes + bytes > kGatherBytes) {
    const size_t index = idle_.back();
    idle_.pop_back();
    waiting_.push_back(index);
    last = &operations_[index];
    last->file = std::move(file);
    last->offset = offset;
    last->bytes = last->done = 0;
    last->epoch = epoch_;
    ++open_[epoch_];
    if (stage_ != nullptr) stage_->begin();
  }
  last->parts.push_back({block.data(), bytes});
  last->blocks.push_back(std::move(block));
  last->bytes += bytes;
}

void WriteQueue::start_locked() {
  while (!waiting_.empty()) {
    const size_t index = waiting_.front();
    const bool full = waiting_.size() > 1 || operations_[index].bytes >= kGatherBytes;
    if (submitted_ >= kAtOnce && !full && error_.ok()) return;
    waiting_.pop_front();
    if (++submitted_ == 1) in_ring_.notify_one();
    ++counts_.writes;
    submit_locked(index);
  }
}

void WriteQueue::submit_locked(size_t index) {
  Operation& operation = operations_[index];
  // Never submitted again after an error: an entry that the kernel refused is still in the ring.
  if (!error_.ok()) return finish_locked(index, error_);
  io_uring_sqe* entry = io_uring_get_sqe(&ring_->ring);
  if (entry == nullptr) return finish_locked(index, internal_error("{}: the ring is full", what_));
  io_uring_prep_writev(entry, operation.file->get(), operation.parts.data(),
                       static_cast<unsigned>(operation.parts.size()),
                       operation.offset + operation.done);
  io_uring_sqe_set_data64(entry, index);
  int submitted = 0;
  for (int attempt = 0; attempt < kSubmitAttempts; ++attempt) {
    count_system_call();
    submitted = io_uring_submit(&ring_->ring);
    if (submitted != -EINTR && submitted != -EAGAIN) break;
  }
  if (submitted < 0) finish_locked(index, errno_status(-submitted, what_));
}

void WriteQueue::count_system_call() {
  if (stage_ != nullptr) stage_->count_system_calls(1);
}

void WriteQueue::reap() {
  for (;;) {
    {
      MutexLock lock(mutex_);
      in_ring_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return stop_ || submitted_ > 0; });
      if (stop_) return;
    }
    io_uring_cqe* completion = nullptr;
    if (io_uring_peek_cqe(&ring_->ring, &completion) != 0) {
      count_system_call();
      if (io_uring_wait_cqe(&ring_->ring, &completion) != 0) continue;
    }
    const MutexLock lock(mutex_);
    do {
      const auto index = static_cast<size_t>(io_uring_cqe_get_data64(completion));
      const int result = completion->res;
      io_uring_cqe_seen(&ring_->ring, completion);
      complete_locked(index, result);
    } while (io_uring_peek_cqe(&ring_->ring, &completion) == 0);
    start_locked();
  }
}

void WriteQueue::complete_locked(size_t index, int result) {
  Operation& operation = operations_[index];
  if (result == -EINTR || result == -EAGAIN) return submit_locked(index);
  if (result <= 0) return finish_locked(index, errno_status(result < 0 ? -result : ENOSPC, what_));
  if (operation.done + static_cast<size_t>(result) >= operation.bytes) {
    return finish_locked(index, absl::OkStatus());
  }
  // O_DIRECT takes whole sectors, so a short write is taken up again from the boundary before its
  // end.
  size_t written = static_cast<size_t>(result);
  if (written >= kBlockAlignment) written -= (operation.done + written) % kBlockAlignment;
  operation.done += written;
  std::vector<iovec>& parts = operation.parts;
  while (written >= parts.front().iov_len) {
    written -= parts.front().iov_len;
    parts.erase(parts.begin());
  }
  parts.front().iov_base = static_cast<uint8_t*>(parts.front().iov_base) + written;
  parts.front().iov_len -= written;
  submit_locked(index);
}

void WriteQueue::finish_locked(size_t index, const absl::Status& status) {
  if (error_.ok()) error_ = status;
  Operation& operation = operations_[index];
  operation.file.reset();
  held_ -= operation.blocks.size();
  operation.blocks.clear();
  operation.parts.clear();
  idle_.push_back(index);
  --submitted_;
  --open_[operation.epoch];
  if (stage_ != nullptr) stage_->end(status.ok() ? operation.bytes : 0);
  changed_.notify_all();
}

}  // namespace sluice

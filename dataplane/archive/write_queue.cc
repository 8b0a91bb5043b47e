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
      operations_(std::max<size_t>(depth, 1)) {
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
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return in_flight_[0] + in_flight_[1] == 0; });
    stop_ = true;
    changed_.notify_all();
  }
  if (reaper_.joinable()) reaper_.join();
}

absl::Status WriteQueue::write(std::shared_ptr<UniqueFd> file, uint64_t offset, BlockBuffer block,
                               size_t bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !idle_.empty() || !error_.ok(); });
  if (!error_.ok()) return error_;
  const size_t index = idle_.back();
  idle_.pop_back();
  operations_[index] = {std::move(file), offset, std::move(block), bytes, 0, epoch_};
  ++in_flight_[epoch_];
  if (stage_ != nullptr) stage_->begin();
  if (ring_ != nullptr) {
    submit_locked(index);
    changed_.notify_all();
    return absl::OkStatus();
  }
  Operation& operation = operations_[index];
  lock.unlock();
  const WriteFunction system = [](int fd, const void* data, size_t size, off_t at) {
    return pwrite(fd, data, size, at);
  };
  const absl::Status status =
      write_fully(replacement_ ? replacement_ : system, operation.file->get(),
                  {reinterpret_cast<const char*>(operation.block.data()), bytes}, offset, what_);
  lock.lock();
  finish_locked(index, status);
  return error_;
}

absl::Status WriteQueue::flush() {
  std::unique_lock lock(mutex_);
  const int flushed = std::exchange(epoch_, 1 - epoch_);
  changed_.wait(lock, [&] { return in_flight_[flushed] == 0; });
  return error_;
}

void WriteQueue::submit_locked(size_t index) {
  Operation& operation = operations_[index];
  // Never submitted again after an error: an entry that the kernel refused is still in the ring.
  if (!error_.ok()) return finish_locked(index, error_);
  io_uring_sqe* entry = io_uring_get_sqe(&ring_->ring);
  if (entry == nullptr) return finish_locked(index, internal_error("{}: the ring is full", what_));
  io_uring_prep_write(entry, operation.file->get(), operation.block.data() + operation.done,
                      static_cast<unsigned>(operation.bytes - operation.done),
                      operation.offset + operation.done);
  io_uring_sqe_set_data64(entry, index);
  int submitted = 0;
  for (int attempt = 0; attempt < kSubmitAttempts; ++attempt) {
    submitted = io_uring_submit(&ring_->ring);
    if (submitted != -EINTR && submitted != -EAGAIN) break;
  }
  if (submitted < 0) finish_locked(index, errno_status(-submitted, what_));
}

void WriteQueue::reap() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || in_flight_[0] + in_flight_[1] > 0; });
      if (stop_) return;
    }
    io_uring_cqe* completion = nullptr;
    if (io_uring_wait_cqe(&ring_->ring, &completion) != 0) continue;
    const auto index = static_cast<size_t>(io_uring_cqe_get_data64(completion));
    const int result = completion->res;
    io_uring_cqe_seen(&ring_->ring, completion);
    std::lock_guard lock(mutex_);
    complete_locked(index, result);
  }
}

void WriteQueue::complete_locked(size_t index, int result) {
  Operation& operation = operations_[index];
  if (result == -EINTR || result == -EAGAIN) return submit_locked(index);
  if (result <= 0) return finish_locked(index, errno_status(result < 0 ? -result : ENOSPC, what_));
  const size_t before = operation.done;
  operation.done += static_cast<size_t>(result);
  if (operation.done >= operation.bytes) return finish_locked(index, absl::OkStatus());
  // O_DIRECT takes whole sectors, so a short write is taken up again from the boundary before its
  // end.
  const size_t boundary = operation.done / kBlockAlignment * kBlockAlignment;
  if (boundary > before) operation.done = boundary;
  submit_locked(index);
}

void WriteQueue::finish_locked(size_t index, const absl::Status& status) {
  if (error_.ok()) error_ = status;
  Operation& operation = operations_[index];
  const int epoch = operation.epoch;
  operation.file.reset();
  operation.block.reset();
  idle_.push_back(index);
  --in_flight_[epoch];
  if (stage_ != nullptr) stage_->end(status.ok() ? operation.bytes : 0);
  changed_.notify_all();
}

}  // namespace sluice

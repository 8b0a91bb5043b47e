// One call between two nodes of this process: what its caller and the thread that answers it share.
// Internal to direct_calls.
#ifndef SLUICE_TESTS_CONTROL_CALLS_DIRECT_CALL_H_
#define SLUICE_TESTS_CONTROL_CALLS_DIRECT_CALL_H_

#include <grpcpp/support/status.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/deadline.h"
#include "control/service/incoming_call.h"

namespace sluice {

// Thread-safe. Ends once: with the node's answer, or when its caller gives it up.
class DirectCall final : public IncomingCall {
 public:
  DirectCall(Callee callee, Clock& clock, int64_t timeout_ms)
      : callee_(std::move(callee)), clock_(clock), deadline_(clock, timeout_ms) {}

  const Callee& callee() const override { return callee_; }
  bool cancelled() const override {
    const std::lock_guard lock(mutex_);
    return given_up_;
  }

  // `take_reply` is called if this is the call's end, while the caller still waits for it.
  void answer(const grpc::Status& status, const std::function<void()>& take_reply = {}) {
    end(status, take_reply, false);
  }
  void give_up(const grpc::Status& status) { end(status, {}, true); }
  void give_up_late() { give_up({grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"}); }

  // Called at its end, once, on the thread that ends it. To be set before the call begins.
  void on_end(std::function<void()> hook) { hook_ = std::move(hook); }
  bool ended() const {
    const std::lock_guard lock(mutex_);
    return status_.has_value();
  }
  // For its end, which comes by the deadline.
  grpc::Status wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(deadline_.left_ms()),
                      [this] { return status_.has_value(); });
    if (status_.has_value()) return *status_;
    lock.unlock();
    give_up_late();
    lock.lock();
    return *status_;
  }
  // For who carries its messages: one was lost.
  void lose() { lost_ = true; }
  bool lost() const { return lost_; }
  int64_t left_ms() const { return deadline_.left_ms(); }
  // A node begins to answer it.
  void begin_work() { begun_ns_ = clock_.monotonic_ns(); }
  int64_t begun_ns() const { return begun_ns_; }

 private:
  void end(const grpc::Status& status, const std::function<void()>& take_reply, bool given_up) {
    // What it holds is the caller's, and goes with the call's end.
    std::function<void()> hook;
    {
      const std::lock_guard lock(mutex_);
      if (status_.has_value()) return;
      hook = std::move(hook_);
      if (take_reply) take_reply();
      status_ = status;
      given_up_ = given_up;
      changed_.notify_all();
    }
    if (hook) hook();
  }

  const Callee callee_;
  Clock& clock_;
  const Deadline deadline_;
  std::function<void()> hook_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<grpc::Status> status_;
  bool given_up_ = false;
  std::atomic<bool> lost_{false};
  std::atomic<int64_t> begun_ns_{0};
};

// The pages of a stream, between the node that writes them and the reader. Thread-safe; one thread
// writes, one reads.
template <typename Page>
class DirectPages {
 public:
  static constexpr size_t kMost = 4;

  explicit DirectPages(std::shared_ptr<DirectCall> call) : call_(std::move(call)) {}

  // Room for one more page, on its way or waiting to be read; false when there is none in time, or
  // nobody reads any more.
  bool reserve(int64_t timeout_ms) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                      [this] { return reserved_ < kMost || call_->ended(); });
    if (call_->ended() || reserved_ == kMost) return false;
    ++reserved_;
    return true;
  }
  void deliver(Page page) {
    const std::lock_guard lock(mutex_);
    pages_.push_back(std::move(page));
    changed_.notify_all();
  }
  // False when none came in time, or none comes any more.
  bool read(Page* page, int64_t timeout_ms) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                      [this] { return !pages_.empty() || call_->ended(); });
    if (pages_.empty() || call_->cancelled()) return false;
    *page = std::move(pages_.front());
    pages_.pop_front();
    --reserved_;
    changed_.notify_all();
    return true;
  }
  // At the call's end.
  void wake() {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

 private:
  const std::shared_ptr<DirectCall> call_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t reserved_ = 0;
  std::deque<Page> pages_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CALLS_DIRECT_CALL_H_

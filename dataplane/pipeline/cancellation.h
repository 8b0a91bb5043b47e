// A flag that ends long calls early.
#ifndef SLUICE_DATAPLANE_PIPELINE_CANCELLATION_H_
#define SLUICE_DATAPLANE_PIPELINE_CANCELLATION_H_

#include <atomic>
#include <functional>
#include <utility>

namespace sluice {

// Thread-safe. Seen by the calls that were given it within kCancellationPollMs.
class Cancellation {
 public:
  Cancellation() = default;
  // Also cancelled as soon as `also` says so, which is asked by any thread, often.
  explicit Cancellation(std::function<bool()> also) : also_(std::move(also)) {}

  void cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const {
    return cancelled_.load(std::memory_order_acquire) || (also_ && also_());
  }

 private:
  const std::function<bool()> also_;
  std::atomic<bool> cancelled_{false};
};

inline constexpr int kCancellationPollMs = 50;

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_CANCELLATION_H_

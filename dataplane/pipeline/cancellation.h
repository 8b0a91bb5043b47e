// A flag that ends long calls early.
#ifndef SLUICE_DATAPLANE_PIPELINE_CANCELLATION_H_
#define SLUICE_DATAPLANE_PIPELINE_CANCELLATION_H_

#include <atomic>

namespace sluice {

// Thread-safe. Seen by the calls that were given it within kCancellationPollMs.
class Cancellation {
 public:
  void cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

inline constexpr int kCancellationPollMs = 50;

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_CANCELLATION_H_

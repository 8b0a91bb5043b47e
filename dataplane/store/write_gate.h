// The gates that writers pass: one for the whole store, and one for each stripe of slots.
#ifndef SLUICE_DATAPLANE_STORE_WRITE_GATE_H_
#define SLUICE_DATAPLANE_STORE_WRITE_GATE_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/mutex.h"

namespace sluice {

// Shared by writers, exclusive for a cut. Whoever waits for it exclusively stops new sharers from
// entering, so that a cut gets its turn under any load (std::shared_mutex would let it starve).
// Thread-safe; usable with std::shared_lock and std::unique_lock.
class WriteGate {
 public:
  void lock_shared() {
    MutexLock lock(mutex_);
    free_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return !exclusive_ && waiting_ == 0; });
    ++sharers_;
  }
  void unlock_shared() {
    const MutexLock lock(mutex_);
    if (--sharers_ == 0 && waiting_ > 0) free_.notify_all();
  }
  void lock() {
    MutexLock lock(mutex_);
    ++waiting_;
    free_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return !exclusive_ && sharers_ == 0; });
    --waiting_;
    exclusive_ = true;
  }
  void unlock() {
    const MutexLock lock(mutex_);
    exclusive_ = false;
    free_.notify_all();
  }

 private:
  Mutex mutex_;
  Condition free_;
  uint32_t sharers_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint32_t waiting_ SLUICE_GUARDED_BY(mutex_) = 0;
  bool exclusive_ SLUICE_GUARDED_BY(mutex_) = false;
};

// Mutexes for slots, shared by slots that fall into one stripe. Thread-safe.
class SlotGates {
 public:
  static constexpr uint32_t kStripes = 1024;

  static uint32_t stripe_of(uint32_t slot) { return slot % kStripes; }
  std::mutex& of(uint32_t slot) { return stripes_[stripe_of(slot)]; }

  // Holds the gates of several slots. They are taken in ascending order, so holders never wait for
  // each other in a circle.
  class Hold {
   public:
    Hold(SlotGates& gates, std::vector<uint32_t> slots) {
      for (uint32_t& slot : slots) slot = stripe_of(slot);
      std::sort(slots.begin(), slots.end());
      slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
      held_.reserve(slots.size());
      for (const uint32_t stripe : slots) held_.emplace_back(gates.stripes_[stripe]);
    }

   private:
    std::vector<std::unique_lock<std::mutex>> held_;
  };

 private:
  std::array<std::mutex, kStripes> stripes_;
};

// Up to which ticket of a GroupSync each slot's records have to be durable before they are given
// out. Written by who holds the slot's gate; read by anybody.
class SlotTickets {
 public:
  // What is being committed is visible before its ticket is known.
  static constexpr uint64_t kCommitting = ~uint64_t{0};

  void set(uint32_t slot, uint64_t ticket) {
    stripes_[SlotGates::stripe_of(slot)].store(ticket, std::memory_order_seq_cst);
  }
  uint64_t of(uint32_t slot) const {
    return stripes_[SlotGates::stripe_of(slot)].load(std::memory_order_seq_cst);
  }

 private:
  std::array<std::atomic<uint64_t>, SlotGates::kStripes> stripes_{};
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_WRITE_GATE_H_

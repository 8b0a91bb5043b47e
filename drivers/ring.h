// A first-in-first-out queue in one allocation that grows by doubling and is then reused: a queue
// that has seen its largest size, or was told it, allocates no more. Its holder bounds it. Confined
// to one thread.
#ifndef SLUICE_DRIVERS_RING_H_
#define SLUICE_DRIVERS_RING_H_

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <utility>
#include <vector>

namespace sluice {

template <typename T>
class Ring {
 public:
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  T& front() { return (*this)[0]; }
  // The i-th from the front.
  T& operator[](size_t i) {
    assert(i < size_);
    return slots_[(head_ + i) & (slots_.size() - 1)];
  }

  // Makes room, so that no push allocates until more than `count` are held.
  void reserve(size_t count) {
    if (slots_.size() < count) grow(count);
  }

  void push_back(T value) {
    if (size_ == slots_.size()) grow(size_ + 1);
    slots_[(head_ + size_) & (slots_.size() - 1)] = std::move(value);
    ++size_;
  }

  T pop_front() {
    assert(size_ > 0);
    T value = std::exchange(slots_[head_], T());
    head_ = (head_ + 1) & (slots_.size() - 1);
    --size_;
    return value;
  }

 private:
  void grow(size_t needed) {
    std::vector<T> larger(std::bit_ceil(std::max<size_t>(needed, 16)));
    for (size_t i = 0; i < size_; ++i) larger[i] = std::move((*this)[i]);
    slots_ = std::move(larger);
    head_ = 0;
  }

  std::vector<T> slots_;  // a power of two
  size_t head_ = 0;
  size_t size_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_RING_H_

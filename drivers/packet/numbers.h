// Which packet numbers have been received: what is acknowledged, and what is an old duplicate. A
// window of fixed size below the largest number; older ones count as received long ago, which is
// safe: their contents come again under new numbers. Confined to one thread.
#ifndef SLUICE_DRIVERS_PACKET_NUMBERS_H_
#define SLUICE_DRIVERS_PACKET_NUMBERS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "drivers/packet/wire.h"

namespace sluice::packet {

class ReceivedNumbers {
 public:
  static constexpr uint64_t kWords = 64;

  uint64_t largest() const { return largest_; }
  bool seen(uint64_t number) const {
    if (number > largest_) return false;
    if (largest_ / 64 - number / 64 >= kWords) return true;
    return (word_of(number) >> (number % 64) & 1) != 0;
  }
  // Not seen before. True if it leaves or fills a gap: the sender should hear of it soon.
  bool add(uint64_t number) {
    const bool in_order = number == largest_ + 1;
    if (number > largest_) {
      const uint64_t steps = number / 64 - largest_ / 64;
      const uint64_t first = largest_ / 64 + 1;
      for (uint64_t i = 0; i < steps && i < kWords; ++i) words_[(first + i) % kWords] = 0;
      if (steps > kWords) words_.fill(0);
      largest_ = number;
    }
    words_[number / 64 % kWords] |= uint64_t{1} << (number % 64);
    return !in_order;
  }
  // The words to acknowledge with, newest first: at least the newest four, as many more as there
  // are up to the oldest gap that fits. Returns how many.
  size_t ack_words(uint64_t* words) const {
    if (largest_ == 0) return 0;
    const uint64_t newest = largest_ / 64;
    size_t count = 0;
    for (size_t k = 0; k < kMaxAckWords && k <= newest; ++k) {
      words[k] = words_[(newest - k) % kWords];
      const uint64_t full = k == newest ? ~uint64_t{1} : ~uint64_t{0};
      if (k < kUsualWords || words[k] != full) count = k + 1;
    }
    return count;
  }

 private:
  static constexpr size_t kUsualWords = 4;
  uint64_t word_of(uint64_t number) const { return words_[number / 64 % kWords]; }

  uint64_t largest_ = 0;
  std::array<uint64_t, kWords> words_{};
};

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_NUMBERS_H_

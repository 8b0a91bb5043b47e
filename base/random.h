// Random numbers that are the same on every machine for the same seed, so that a failure replays
// and two nodes agree. The standard library's distributions and shuffle are not, so they are not
// used.
#ifndef SLUICE_BASE_RANDOM_H_
#define SLUICE_BASE_RANDOM_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sluice {

// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
// Also a good mixer of one 64-bit value. Confined to one thread.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }

  uint64_t next() {
    const uint64_t result = mix(state_);
    state_ += 0x9e3779b97f4a7c15;
    return result;
  }
  // Uniform in [0, bound); bound > 0. (Lemire's multiplication; the bias is below bound / 2^64.)
  uint64_t below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  // Uniform in [0, 1).
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  bool chance(double probability) { return unit() < probability; }

  template <typename T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  uint64_t state_;
};

// 64 bits from the operating system.
uint64_t entropy();

// A random (version 4) UUID in its 36-character text form, RFC 9562.
std::string make_uuid();

}  // namespace sluice

#endif  // SLUICE_BASE_RANDOM_H_

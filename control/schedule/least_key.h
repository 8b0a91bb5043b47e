// Keys of a fixed number of entries, and which is the least: a tournament tree. Internal to
// control/schedule. Confined to one thread.
#ifndef SLUICE_CONTROL_SCHEDULE_LEAST_KEY_H_
#define SLUICE_CONTROL_SCHEDULE_LEAST_KEY_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace sluice::schedule {

class LeastKey {
 public:
  explicit LeastKey(uint32_t entries) {
    while (leaves_ < entries) leaves_ *= 2;
    keys_.resize(leaves_, std::numeric_limits<double>::infinity());
    winner_.resize(size_t{2} * leaves_);
    for (uint32_t i = 0; i < leaves_; ++i) winner_[leaves_ + i] = i;
    for (uint32_t i = leaves_ - 1; i > 0; --i) winner_[i] = winner_[2 * i];
  }

  // Logarithmic.
  void set(uint32_t entry, double key) {
    keys_[entry] = key;
    for (uint32_t i = (leaves_ + entry) / 2; i > 0; i /= 2) {
      const uint32_t left = winner_[2 * i];
      const uint32_t right = winner_[2 * i + 1];
      winner_[i] = keys_[right] < keys_[left] ? right : left;
    }
  }
  // Of equal ones the first. With one entry or more.
  uint32_t least() const { return leaves_ == 1 ? 0 : winner_[1]; }
  double key(uint32_t entry) const { return keys_[entry]; }

 private:
  uint32_t leaves_ = 1;
  std::vector<double> keys_;
  std::vector<uint32_t> winner_;  // of the leaves below each vertex of a binary tree
};

}  // namespace sluice::schedule

#endif  // SLUICE_CONTROL_SCHEDULE_LEAST_KEY_H_

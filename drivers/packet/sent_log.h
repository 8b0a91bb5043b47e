// What has been sent and not yet been settled, by packet number: taking acknowledgements, and
// finding losses as RFC 9002 section 6.1 does (packet and time threshold), with thresholds that
// grow when a loss turns out to have been reordering, as in RFC 8985 section 7. A repeated content
// has a new number, so an acknowledgement never has two meanings. Confined to one thread; bounded;
// allocates only while its largest size grows.
#ifndef SLUICE_DRIVERS_PACKET_SENT_LOG_H_
#define SLUICE_DRIVERS_PACKET_SENT_LOG_H_

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "drivers/packet/rtt.h"

namespace sluice::packet {

struct SentPacket {
  int64_t sent_ns = 0;
  uint64_t block = 0;     // control: the credits granted by it
  uint32_t fragment = 0;  // control: whether it closes
  uint16_t bytes = 0;
  bool control = false;
  bool outstanding = false;  // false: settled, or counted as lost
};

class SentLog {
 public:
  static constexpr uint64_t kMaxSpan = 1 << 14;
  // How long after it was declared lost a packet may still turn out to have arrived, in numbers.
  static constexpr uint64_t kRemembered = 1024;
  static constexpr uint64_t kFirstThreshold = 3;
  static constexpr uint64_t kMaxThreshold = 256;

  uint64_t next() const { return next_; }
  bool full() const { return next_ - base_ >= kMaxSpan; }
  uint64_t bytes_in_flight() const { return bytes_; }
  uint64_t packets_in_flight() const { return packets_; }
  uint64_t largest_acked() const { return largest_acked_; }
  uint64_t threshold() const { return threshold_; }
  uint64_t spurious() const { return spurious_; }

  uint64_t add(const SentPacket& packet) {
    assert(!full());
    if (next_ - base_ >= records_.size()) grow();
    SentPacket& record = at(next_);
    record = packet;
    record.outstanding = true;
    open_word(next_) |= bit(next_);
    bytes_ += packet.bytes;
    ++packets_;
    return next_++;
  }

  // Word k of an acknowledgement whose largest is `largest`, which must be below next(). Calls
  // on_acked(number, record, was_lost) for what it settles.
  template <typename OnAcked>
  void acknowledge(uint64_t largest, size_t k, uint64_t word, OnAcked on_acked) {
    largest_acked_ = std::max(largest_acked_, largest);
    const uint64_t first = (largest / 64 - k) * 64;
    if (first + 63 < base_ || records_.empty()) return;
    if (first < base_) word &= ~uint64_t{0} << (base_ - first);
    if (next_ - first < 64) word &= bit(next_) - 1;
    uint64_t settled = word & open_word(first);
    open_word(first) &= ~settled;
    while (settled != 0) {
      const uint64_t number = first + static_cast<uint64_t>(std::countr_zero(settled));
      settled &= settled - 1;
      SentPacket& record = at(number);
      const bool was_lost = !record.outstanding;
      if (was_lost) {
        ++spurious_;
        threshold_ = std::clamp(largest_acked_ - number + 1, threshold_, kMaxThreshold);
      } else {
        release(record);
      }
      on_acked(number, record, was_lost);
    }
  }

  // After acknowledgements, or at loss_time(): calls on_lost(record) for what counts as lost now.
  template <typename OnLost>
  void find_losses(int64_t now, int64_t round_trip, OnLost on_lost) {
    const int64_t patience = round_trip + round_trip / 8 + reorder_slack(round_trip);
    loss_time_ = kNever;
    for (; scan_ < largest_acked_; ++scan_) {
      SentPacket& record = at(scan_);
      if (!record.outstanding || scan_ < base_) continue;
      if (largest_acked_ - scan_ < threshold_ && now - record.sent_ns < patience) {
        loss_time_ = record.sent_ns + patience;
        break;
      }
      release(record);
      on_lost(record);
    }
    while (base_ < scan_ &&
           ((open_word(base_) & bit(base_)) == 0 || base_ + kRemembered < largest_acked_)) {
      open_word(base_) &= ~bit(base_);
      ++base_;
    }
  }

  // When find_losses should be called again without an acknowledgement.
  int64_t loss_time() const { return loss_time_; }
  // The oldest that is outstanding, from `number` on; null: none.
  const SentPacket* oldest_outstanding(uint64_t* number) const {
    for (uint64_t n = std::max(*number, scan_); n < next_; ++n) {
      if (!at(n).outstanding) continue;
      *number = n;
      return &at(n);
    }
    return nullptr;
  }

 private:
  static uint64_t bit(uint64_t number) { return uint64_t{1} << (number % 64); }
  SentPacket& at(uint64_t number) { return records_[number & (records_.size() - 1)]; }
  const SentPacket& at(uint64_t number) const { return records_[number & (records_.size() - 1)]; }
  uint64_t& open_word(uint64_t number) { return open_[(number / 64) & (open_.size() - 1)]; }
  void release(SentPacket& record) {
    record.outstanding = false;
    bytes_ -= record.bytes;
    --packets_;
  }
  // Where reordering was seen, a quarter of a round trip more before time alone makes a loss.
  int64_t reorder_slack(int64_t round_trip) const {
    return threshold_ > kFirstThreshold ? round_trip / 4 : 0;
  }
  void grow() {
    const size_t size = records_.empty() ? 256 : records_.size() * 2;
    std::vector<SentPacket> records(size);
    // One word more than fits, so that the first and the last may share none.
    std::vector<uint64_t> open(std::bit_ceil(size / 64 + 1));
    for (uint64_t n = base_; n < next_; ++n) {
      records[n & (size - 1)] = at(n);
      if ((open_word(n) & bit(n)) != 0) open[(n / 64) & (open.size() - 1)] |= bit(n);
    }
    records_ = std::move(records);
    open_ = std::move(open);
  }

  std::vector<SentPacket> records_;
  std::vector<uint64_t> open_;  // bit set: not acknowledged and still remembered
  uint64_t base_ = 1;           // all below are settled or forgotten
  uint64_t scan_ = 1;           // all below are settled or counted as lost
  uint64_t next_ = 1;
  uint64_t largest_acked_ = 0;
  uint64_t bytes_ = 0;
  uint64_t packets_ = 0;
  uint64_t threshold_ = kFirstThreshold;
  uint64_t spurious_ = 0;
  int64_t loss_time_ = kNever;
};

}  // namespace sluice::packet

#endif  // SLUICE_DRIVERS_PACKET_SENT_LOG_H_

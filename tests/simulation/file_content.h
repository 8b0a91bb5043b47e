// A file's bytes twice: as programs see them, and as they are on the device. A sync makes the
// second what the first was when it began; when the power fails, a part of the difference is there
// or not, page by page, and pages may be torn between sectors.
//
// Copies share their pages. Not thread-safe.
#ifndef SLUICE_TESTS_SIMULATION_FILE_CONTENT_H_
#define SLUICE_TESTS_SIMULATION_FILE_CONTENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"

namespace sluice::simulation {

class FileContent {
 public:
  static constexpr size_t kPageBytes = 4096;
  static constexpr size_t kSectorBytes = 512;  // which the device writes whole or not at all

  uint64_t size() const { return size_; }
  // Pages that take room; holes do not.
  uint64_t pages() const { return allocated_; }

  // How many bytes were read: fewer than asked for at the end.
  size_t read(uint64_t offset, std::span<char> into) const;
  // Pages that a write there would add.
  uint64_t pages_added_by(uint64_t offset, size_t bytes) const;
  void write(uint64_t offset, std::string_view bytes);
  void resize(uint64_t bytes);

  // What is there now becomes durable with the end_sync() that is given the number, or a later one.
  uint64_t begin_sync();
  void end_sync(uint64_t number);
  // As a sync that failed leaves it: what was to be written is taken for written, and no later sync
  // writes it.
  void fail_sync(uint64_t number);

  // Of what was not synced. Pages that the device had before are kept, lost or torn each for itself
  // in both of the latter; of what was appended kFirstPart keeps a first part, and kPart any pages.
  enum class Kept : uint8_t { kNothing, kAll, kFirstPart, kPart };
  // What programs see is what the device has, afterwards.
  void lose_power(Kept kept, Random& random);
  // What programs see, all of it on the device.
  FileContent durable_copy() const;
  // On the device too.
  void flip_bit(uint64_t offset, int bit);

 private:
  using Page = std::array<char, kPageBytes>;
  using PagePtr = std::shared_ptr<Page>;  // null: zeros
  struct Sync {
    uint64_t number;
    uint64_t bytes;
    std::vector<std::pair<size_t, PagePtr>> pages;
  };

  Page& page_to_change(size_t index);
  void put_page(size_t index, PagePtr page);
  void mark(size_t index);
  void put_durable(size_t index, const PagePtr& page);
  PagePtr torn(const PagePtr& before, const PagePtr& after, Random& random) const;

  uint64_t size_ = 0;
  uint64_t allocated_ = 0;
  std::vector<PagePtr> pages_;
  uint64_t durable_size_ = 0;
  std::vector<PagePtr> durable_;
  std::vector<size_t> changed_;  // since the last begin_sync()
  std::vector<bool> is_changed_;
  std::deque<Sync> syncs_;  // that have begun
  uint64_t last_sync_ = 0;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_FILE_CONTENT_H_

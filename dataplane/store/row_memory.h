// Memory for rows that are gathered until they go into a table file. Internal to dataplane/store.
#ifndef SLUICE_DATAPLANE_STORE_ROW_MEMORY_H_
#define SLUICE_DATAPLANE_STORE_ROW_MEMORY_H_

#include <cstddef>
#include <map>
#include <memory>
#include <utility>

#include "base/mutex.h"

namespace sluice {

// What one lot gives back the next one gets, with its pages: the kernel
// does not have to clear them again. Kept only as long as any of it is in use. Thread-safe.
class RowMemory : public std::enable_shared_from_this<RowMemory> {
 public:
  static constexpr size_t kMostKept = size_t{64} << 20;
  class GiveBack {
   public:
    GiveBack() = default;
    GiveBack(std::shared_ptr<RowMemory> owner, size_t bytes)
        : owner_(std::move(owner)), bytes_(bytes) {}
    void operator()(char* piece) const { owner_->give_back(piece, bytes_); }

   private:
    std::shared_ptr<RowMemory> owner_;
    size_t bytes_ = 0;
  };
  using Piece = std::unique_ptr<char[], GiveBack>;

  // At least so many bytes, of any content.
  Piece take(size_t bytes);
  size_t kept_bytes() const {
    const MutexLock lock(mutex_);
    return kept_bytes_;
  }

 private:
  // Of at least so many bytes, pieces are multiples of kUnit, so that one fits another block as
  // well; at most a quarter of them is rounding. Smaller ones are not kept.
  static constexpr size_t kUnit = size_t{32} << 10;
  static constexpr size_t kLeastKept = size_t{128} << 10;
  void give_back(char* piece, size_t bytes);

  mutable Mutex mutex_;
  size_t in_use_ SLUICE_GUARDED_BY(mutex_) = 0;  // pieces
  size_t kept_bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
  // By size.
  std::multimap<size_t, std::unique_ptr<char[]>> kept_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_ROW_MEMORY_H_

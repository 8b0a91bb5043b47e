#include "dataplane/store/row_memory.h"

namespace sluice {

RowMemory::Piece RowMemory::take(size_t bytes) {
  // Small pieces are what they are asked to be: their rounding would be most of them.
  const bool may_be_kept = bytes >= kLeastKept;
  const size_t rounded = may_be_kept ? (bytes + kUnit - 1) / kUnit * kUnit : bytes;
  std::unique_ptr<char[]> piece;
  if (may_be_kept) {
    const MutexLock lock(mutex_);
    if (const auto kept = kept_.find(rounded); kept != kept_.end()) {
      piece = std::move(kept->second);
      kept_.erase(kept);
      kept_bytes_ -= rounded;
    }
  }
  if (piece == nullptr) piece = std::make_unique_for_overwrite<char[]>(rounded);
  const MutexLock lock(mutex_);
  ++in_use_;
  return {piece.release(), GiveBack(shared_from_this(), rounded)};
}

void RowMemory::give_back(char* piece, size_t bytes) {
  std::unique_ptr<char[]> freed(piece);
  std::multimap<size_t, std::unique_ptr<char[]>> idle;  // freed without the lock
  const MutexLock lock(mutex_);
  if (--in_use_ == 0) {
    idle.swap(kept_);
    kept_bytes_ = 0;
  } else if (bytes >= kLeastKept && kept_bytes_ + bytes <= kMostKept) {
    kept_.emplace(bytes, std::move(freed));
    kept_bytes_ += bytes;
  }
}

}  // namespace sluice

#include "control/backup/progress_table.h"

#include <utility>

namespace sluice {

void ProgressTable::add_stored(std::vector<NodeProgress> stored) {
  const MutexLock lock(mutex_);
  for (NodeProgress& progress : stored) {
    std::string node = progress.node;
    entries_.try_emplace(std::move(node), Entry{std::move(progress), {}});
  }
}

bool ProgressTable::add(NodeProgress progress, const Order& order) {
  const MutexLock lock(mutex_);
  Entry& entry = entries_[progress.node];
  if (order <= entry.order) return false;
  unstored_.insert(progress.node);
  entry = {std::move(progress), order};
  return true;
}

Progresses ProgressTable::all() const {
  const MutexLock lock(mutex_);
  Progresses all;
  for (const auto& [node, entry] : entries_) all.emplace(node, entry.progress);
  return all;
}

Progresses ProgressTable::of_attempt(uint64_t attempt) const {
  const MutexLock lock(mutex_);
  Progresses current;
  for (const auto& [node, entry] : entries_) {
    if (entry.progress.attempt == attempt) current.emplace(node, entry.progress);
  }
  return current;
}

bool ProgressTable::has_unstored() const {
  const MutexLock lock(mutex_);
  return !unstored_.empty();
}

std::vector<ClusterOp> ProgressTable::take_unstored(size_t most) {
  const MutexLock lock(mutex_);
  std::vector<ClusterOp> puts;
  while (!unstored_.empty() && puts.size() < most) {
    const auto node = unstored_.begin();
    puts.push_back(ClusterOp::put(backup_progress_key(backup_, *node),
                                  encode(entries_.find(*node)->second.progress)));
    unstored_.erase(node);
  }
  return puts;
}

void ProgressTable::give_back(const std::vector<ClusterOp>& puts) {
  const size_t prefix = backup_progress_prefix(backup_).size();
  const MutexLock lock(mutex_);
  for (const ClusterOp& put : puts) unstored_.insert(put.key.substr(prefix));
}

}  // namespace sluice

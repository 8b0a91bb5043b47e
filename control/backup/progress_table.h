// What the nodes of one backup report to its coordinator, and which of it is not stored yet: the
// coordinator stores reports with its own commits, many at once, so that a backup's commits do not
// grow with its nodes. Thread-safe.
#ifndef SLUICE_CONTROL_BACKUP_PROGRESS_TABLE_H_
#define SLUICE_CONTROL_BACKUP_PROGRESS_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "control/backup/documents.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice {

using Progresses = std::map<std::string, NodeProgress>;  // by node

class ProgressTable {
 public:
  // Of one node's reports; one that was overtaken does not count. Numbers begin anew with each
  // attempt and each start of the node.
  struct Order {
    uint64_t attempt = 0;
    uint64_t joined = 0;  // Membership::joined_at() of the node
    uint64_t number = 0;
    friend auto operator<=>(const Order&, const Order&) = default;
  };

  explicit ProgressTable(std::string backup) : backup_(std::move(backup)) {}

  // What the documents say, for nodes that have reported nothing.
  void add_stored(std::vector<NodeProgress> stored);
  // False when it was overtaken.
  bool add(NodeProgress progress, const Order& order);

  // Of all attempts: a node's newest one.
  Progresses all() const;
  Progresses of_attempt(uint64_t attempt) const;

  bool has_unstored() const;
  // Puts of at most `most` reports, which count as stored from now on.
  std::vector<ClusterOp> take_unstored(size_t most);
  // They could not be stored.
  void give_back(const std::vector<ClusterOp>& puts);

 private:
  struct Entry {
    NodeProgress progress;
    Order order;
  };
  const std::string backup_;
  mutable Mutex mutex_;
  std::map<std::string, Entry> entries_ SLUICE_GUARDED_BY(mutex_);
  std::set<std::string> unstored_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_PROGRESS_TABLE_H_

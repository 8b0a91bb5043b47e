// What restores have brought into a cluster, as their archives were when they ran (I4, I7).
// Not thread-safe; waits for nothing.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_RESTORED_H_
#define SLUICE_TESTS_SIMULATION_WORLD_RESTORED_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dataplane/block/record.h"

namespace sluice::simulation {

class Restored {
 public:
  using Content = std::map<std::string, Record>;

  enum class End : uint8_t {
    kCompleted,     // has brought all of it
    kWithFailures,  // all but what is on its lists
    kOther,         // may have brought some
  };
  // One that begins, of this archive; nullptr: of one of which nothing is known. A client that
  // never sees its end leaves it as one that may bring anything of it at any time.
  void begin(const Content* archive);
  // The end of one that began so; `backup` is the archive's UUID.
  void end(const std::string& backup, const Content& archive, End end);
  // There was no such backup.
  void end_unknown() { --unknown_; }
  // Data of a replica is gone: only what is restored from now on has to be there.
  void lost() {
    completed_.clear();
    with_failures_.clear();
    ++losses_;
  }
  uint64_t losses() const { return losses_; }

  // Whether a record of the cluster may come from a restore.
  bool may_hold(const std::string& key, const std::string& value) const;
  // Why the cluster's live records are not what restores have left; empty: they are.
  std::string fault_of(const std::map<std::string, std::string>& records) const;
  // What lists of a cluster name: keys, and a number of records whose keys cannot be read.
  struct Listed {
    std::set<std::string> keys;
    uint64_t others = 0;
  };
  // I7: why what restores that completed with failures have not brought is not on these lists.
  std::string fault_of_lists(const std::map<std::string, std::string>& records,
                             const Listed& listed) const;

 private:
  bool is_unknown() const { return unknown_ > 0; }
  bool has_newer(const std::string& key, const Record& than, const std::string* value) const;

  std::map<std::string, Record> completed_;              // the newest of each key
  std::map<std::string, std::vector<Record>> possible_;  // also of restores that did not complete
  std::map<std::string, Content> with_failures_;         // of each backup's last restore, by UUID
  int unknown_ = 0;
  uint64_t losses_ = 0;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_RESTORED_H_

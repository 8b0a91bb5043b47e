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
  // One that begins; whose client never sees its end may bring anything at any time.
  void begin() { ++open_; }
  void add(const std::string& backup, const Content& archive, End end);
  // One of whose archive nothing is known: nothing can be said from now on.
  void add_unknown() {
    --open_;
    unknown_ = true;
  }

  // Whether a record of the cluster may come from a restore.
  bool may_hold(const std::string& key, const std::string& value) const;
  // Why the cluster's live records are not what restores have left; empty: they are.
  std::string fault_of(const std::map<std::string, std::string>& records) const;
  // I7: why what restores that completed with failures have not brought is not on these lists.
  std::string fault_of_lists(const std::map<std::string, std::string>& records,
                             const std::set<std::string>& listed) const;

 private:
  bool is_unknown() const { return unknown_ || open_ > 0; }
  bool has_newer(const std::string& key, const Record& than, const std::string* value) const;

  std::map<std::string, Record> completed_;              // the newest of each key
  std::map<std::string, std::vector<Record>> possible_;  // also of restores that did not complete
  std::map<std::string, Content> with_failures_;         // of each backup's last restore, by name
  int open_ = 0;
  bool unknown_ = false;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_RESTORED_H_

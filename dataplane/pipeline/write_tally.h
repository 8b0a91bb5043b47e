// What the replicas of one write answered, and what follows from it: whether it is acknowledged,
// may be given another version, or stays undecided. Pure; rule 4 of docs/architecture.md, writing.
#ifndef SLUICE_DATAPLANE_PIPELINE_WRITE_TALLY_H_
#define SLUICE_DATAPLANE_PIPELINE_WRITE_TALLY_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/defect.h"
#include "dataplane/store/store.h"

namespace sluice {

struct WriteTally {
  size_t open = 0;        // answers that may still come
  size_t held = 0;        // it is the newest there
  size_t late = 0;        // it is the newest there, but after the cut
  size_t overtaken = 0;   // another came above it after the replica had answered it once
  size_t superseded = 0;  // a newer record stands there
  size_t unknown = 0;     // calls that failed, and may have been carried out
  uint64_t above = 0;     // stamp that a new version has to be above
  bool in_doubt = false;  // it may have been applied by an earlier sending
  std::vector<std::string> answered;  // replicas that hold nothing above it
  std::vector<std::string> behind;    // replicas that hold something newer

  size_t acknowledged() const { return held + overtaken; }
  // A new version can undo no acknowledged write.
  bool may_restamp(size_t quorum) const {
    return !in_doubt || defect(Defect::kInDoubtIsRestamped) || held + late >= quorum;
  }
  bool must_restamp(size_t quorum) const {
    return may_restamp(quorum) && (superseded > 0 || (late > 0 && acknowledged() < quorum));
  }
  // Nothing that may still come changes what follows.
  bool decided(size_t quorum) const {
    if (superseded > 0 && may_restamp(quorum)) return true;
    if (acknowledged() >= quorum) return true;
    if (acknowledged() + open >= quorum) return false;
    // Short of the quorum: all that may still come is the leave to restamp it.
    return may_restamp(quorum) || held + late + open < quorum;
  }
  // Whether a replica may hold it although it is not acknowledged.
  bool may_be_somewhere() const {
    return held + late + overtaken + superseded + unknown + open > 0;
  }
  void take(const std::string& node, const ApplyResult& result) {
    const bool beaten =
        result.outcome == ApplyResult::Outcome::kSuperseded && !defect(Defect::kSupersededCounts);
    const bool after_cut = result.after_cut && !defect(Defect::kAfterCutCounts);
    const bool again = std::find(answered.begin(), answered.end(), node) != answered.end();
    if (beaten) above = std::max(above, result.newer.stamp);
    if (after_cut) above = std::max(above, result.cut);
    if (!again) (beaten ? behind : answered).push_back(node);
    if (!beaten) {
      ++(after_cut ? late : held);
    } else {
      ++(again && !after_cut ? overtaken : superseded);
    }
  }
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_WRITE_TALLY_H_

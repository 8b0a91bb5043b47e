// What the replicas of one write answered, and what follows from it: whether it is acknowledged,
// and as of which stamp. Pure; docs/architecture.md, writing.
#ifndef SLUICE_DATAPLANE_PIPELINE_WRITE_TALLY_H_
#define SLUICE_DATAPLANE_PIPELINE_WRITE_TALLY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/defect.h"

namespace sluice {

struct WriteTally {
  size_t open = 0;     // answers that may still come
  size_t durable = 0;  // replicas that hold this version or a newer one, durably
  size_t in_time = 0;  // of these: those that took it before their last cut
  uint64_t cut = 0;    // the latest cut that one of the others had taken before

  // `missed`: the cut that this replica had taken before; 0: none.
  void take(uint64_t missed) {
    ++durable;
    if (missed == 0) ++in_time;
    cut = std::max(cut, missed);
  }
  bool acknowledged(size_t quorum) const { return durable >= quorum; }
  // Nothing that may still come changes what follows.
  bool decided(size_t quorum) const { return durable >= quorum || durable + open < quorum; }
  // Of an acknowledged write: the stamp that it counts as written at. A cut of a stamp from this
  // one on holds it or a newer write of its key.
  uint64_t as_of(uint64_t stamp, size_t quorum) const {
    if (in_time >= quorum || defect(Defect::kAfterCutCounts)) return stamp;
    return std::max(stamp, cut + 1);
  }
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_WRITE_TALLY_H_

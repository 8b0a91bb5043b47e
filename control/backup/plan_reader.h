// Reads a stored plan, whole or the part that one node needs: in a cluster of 10,000 nodes a plan
// is of tens of megabytes, and a node's part of one or two. The chunks are PlanChunk of
// documents.proto.
#ifndef SLUICE_CONTROL_BACKUP_PLAN_READER_H_
#define SLUICE_CONTROL_BACKUP_PLAN_READER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/schedule/planner.h"

namespace sluice {

inline constexpr char kPlanFormat[] = "sluice.plan.3";
inline constexpr uint32_t kMaxPlanChunks = 16'384;

// Its input is hostile: what is not such a plan is DATA_LOSS naming a key. Confined to one thread.
class PlanReader {
 public:
  // chunks: how many the whole plan has.
  PlanReader(std::string backup, uint64_t attempt, uint32_t chunks);

  // One chunk, which stood at the key; the first one first, then the others with nodes, in order.
  absl::Status read(uint32_t chunk, const std::string& key, const std::string& text);
  // How many chunks have nodes, once the first one was read.
  uint32_t node_chunks() const { return node_chunks_; }
  // Which further chunks a node needs, once all chunks with nodes were read. None for an unknown
  // one.
  std::vector<uint32_t> chunks_of(std::string_view node) const;
  // What was read. whole: all chunks were. Its numbers of slots, and its loads, are the whole
  // plan's either way.
  absl::StatusOr<Plan> take(bool whole);

 private:
  const std::string backup_;
  const uint64_t attempt_;
  const uint32_t chunks_;
  uint32_t node_chunks_ = 0;
  std::string first_key_;
  Plan plan_;
  std::vector<std::vector<uint32_t>> lists_;  // by node: chunks
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_PLAN_READER_H_

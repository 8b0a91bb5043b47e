// The reading of one key: what its replicas hold, and that it stays what is read.
//
// R-W+1 replicas are asked, and the newest record counts. It is returned once R-W+1 hold it for
// good: where those asked differ, others are asked, and then it is stored, with its own version, by
// replicas that lack it. A replica that takes no writes does not hold the read up: where nobody
// else can, it counts as one that has the record, and its clock passes the record's stamp.
//
// Confined to one thread; used once.
#ifndef SLUICE_CONTROL_RECORDS_KEY_READ_H_
#define SLUICE_CONTROL_RECORDS_KEY_READ_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "control/peers/node_context.h"
#include "control/records/replica_calls.h"
#include "dataplane/block/record.h"

namespace sluice {

class KeyRead {
 public:
  // The key outlives it. `needed`: R-W+1.
  KeyRead(const NodeContext& context, const ReplicaTimes& times, size_t needed,
          std::string_view key)
      : context_(context),
        times_(times),
        needed_(needed),
        key_(key),
        slot_(slot_of(key, context.cluster().slot_bits)),
        deadline_(*context.clock, times.call_ms) {}

  // The newest record, which may be a tombstone; nullopt where no replica has one. UNAVAILABLE
  // naming the slot and the nodes where too few can be read, or can hold it.
  absl::StatusOr<std::optional<Record>> run();

 private:
  // How many of `needed` have answered.
  size_t ask(const std::vector<std::string>& nodes, size_t needed, const ReplicaTimes& times);
  void take(const std::string& node, std::optional<Record> record, bool is_read_only);
  // How many more have to hold the newest for good.
  size_t missing() const;
  // Has it held by as many as are missing.
  absl::Status settle(const std::vector<std::string>& replicas);
  // How many of `needed` have it, or a newer record, durably.
  size_t store(const std::vector<std::string>& nodes, size_t needed, const ReplicaTimes& times);
  // Of what is left; not for long where it would do without.
  ReplicaTimes times_left(bool would_do) const;

  const NodeContext& context_;
  const ReplicaTimes times_;
  const size_t needed_;
  const std::string_view key_;
  const uint32_t slot_;
  Deadline deadline_;
  std::optional<Record> newest_;  // nullopt: none holds any
  RecordSummary summary_;         // of the newest
  std::set<std::string> answered_;
  std::set<std::string> current_;    // that hold the newest
  std::set<std::string> read_only_;  // that take no writes: what they hold need not be durable
  std::string reasons_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_KEY_READ_H_

// Has a record that only some replicas of its slot hold stored by others, with its own version.
#ifndef SLUICE_CONTROL_RECORDS_WRITE_BACK_H_
#define SLUICE_CONTROL_RECORDS_WRITE_BACK_H_

#include <cstddef>
#include <span>
#include <string>

#include "control/peers/node_context.h"
#include "control/records/replica_calls.h"
#include "dataplane/block/record.h"

namespace sluice {

// Until `needed` of `replicas` have it, or a newer record, durably: those first that are named
// first. How many do; why the others do not goes to `reasons`. Thread-safe.
size_t write_back(const NodeContext& context, const RecordView& record,
                  std::span<const std::string> replicas, size_t needed, const ReplicaTimes& times,
                  std::string* reasons);

}  // namespace sluice

#endif  // SLUICE_CONTROL_RECORDS_WRITE_BACK_H_

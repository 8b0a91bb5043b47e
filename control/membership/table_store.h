// The distribution table in the cluster block: table/head names the newest, table/<epoch>/head that
// of an epoch, and its chunks lie under table/<epoch>/<digest>/.
#ifndef SLUICE_CONTROL_MEMBERSHIP_TABLE_STORE_H_
#define SLUICE_CONTROL_MEMBERSHIP_TABLE_STORE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checksum.h"
#include "control/cluster_block/cluster_block.h"
#include "control/membership/documents.h"
#include "control/membership/membership.h"
#include "control/table/table.h"

namespace sluice {

inline constexpr char kTableHeadKey[] = "table/head";
// This many epochs stay readable, the newest included; older ones are erased when a new one is
// published.
inline constexpr uint64_t kKeptTableEpochs = 8;

struct TableHead {
  uint64_t epoch = 0;
  uint32_t chunks = 0;
  Digest128 digest;       // XXH3-128 of the chunks, one after the other
  Revision revision = 0;  // of table/head in the cluster block
};

// NOT_FOUND when there is no table yet.
absl::StatusOr<TableHead> load_table_head(ClusterBlock& block);
// The newest table, or that of one epoch. NOT_FOUND when there is none; DATA_LOSS naming the key
// when it is damaged.
absl::StatusOr<DistributionTable> load_table(ClusterBlock& block);
absl::StatusOr<DistributionTable> load_table(ClusterBlock& block, uint64_t epoch);
// Makes `table` the newest one. ABORTED when the newest is not that of epoch table.epoch() - 1:
// somebody else was first; load and compute again. Publishing the very same table twice succeeds.
absl::Status publish_table(ClusterBlock& block, const DistributionTable& table);

// The members as the table's algorithm takes them, by number.
std::vector<TableMember> table_members(const std::vector<Member>& members);

}  // namespace sluice

#endif  // SLUICE_CONTROL_MEMBERSHIP_TABLE_STORE_H_

// What an SQLite cluster block's database and its table of leases have to do with each other.
// Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_LEASES_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_LEASES_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/lease_table.h"
#include "control/cluster_block/sqlite_database.h"

namespace sluice::cluster_block {

// The table of leases of this database. One that is missing or damaged is made again, and the
// leases that keys have begin their whole time anew; one of an earlier boot of the machine begins
// empty: its leases are over. Not within a transaction of `database`. UNAVAILABLE when the database
// was moved, removed or replaced and the table cannot be found beside it.
absl::StatusOr<std::shared_ptr<LeaseTable>> open_lease_table(Database& database,
                                                             const Clock& clock);

// The leases that keys have, in the order of their newest keys.
absl::StatusOr<std::vector<LeaseId>> leases_of_keys(Database& database);

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_LEASES_H_

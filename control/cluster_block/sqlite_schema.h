// The tables of an SQLite cluster block. Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_SCHEMA_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_SCHEMA_H_

#include <string>

#include "absl/status/status.h"
#include "control/cluster_block/sqlite_database.h"

namespace sluice::cluster_block {

// Makes the tables where `create` allows it and there are none; checks that they are this format's.
// NOT_FOUND for an empty file that must not be filled; FAILED_PRECONDITION for a database of
// another program or another format version.
absl::Status prepare_schema(Database& database, bool create, int busy_timeout_ms);

// Settings that each connection needs.
absl::Status prepare_connection(Database& database);

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_SQLITE_SCHEMA_H_

// A copy of a record store as it is now, in a directory beside it: hard links of its tables, copies
// of the small files that say which tables and which part of the log belong to it.
//
// As rocksdb::Checkpoint, with two differences. Everything is made durable in one round: its syncs
// go to the disk together, where RocksDB makes one after the other and leaves some out. And a log
// that is short is copied instead of flushed: flushing makes a table for each family, with several
// syncs each, and keeps writers waiting, to save whoever opens the copy from reading a few
// kilobytes.
#ifndef SLUICE_DATAPLANE_STORE_CHECKPOINT_H_
#define SLUICE_DATAPLANE_STORE_CHECKPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "dataplane/store/store_db.h"

namespace sluice {

// A log of less than this is copied.
inline constexpr uint64_t kCopiedLogBytes = uint64_t{1} << 20;

// Writes memtables to disk where the log is longer: make_checkpoint() has less to do then. To be
// called while writers go on.
absl::Status prepare_checkpoint(StoreDb& db);

// Makes `folder`, which must not be there. Durable with its name when it returns OK; after an error
// something of it may be there. Nobody writes to the store meanwhile. What was committed before is
// in it, synced or not.
absl::Status make_checkpoint(StoreDb& db, const std::string& folder);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_CHECKPOINT_H_

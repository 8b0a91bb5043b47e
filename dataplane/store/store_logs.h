// The write-ahead logs of a store, between RocksDB and its file system, with two rules that RocksDB
// does not have.
//
// Order. RocksDB begins a log whenever it begins a memtable, and syncs neither then: after a power
// loss the new log can be on the disk without the end of the one before it. Opening replays both
// and notices nothing when the gap is between two entries; a slot digest of the new log then counts
// records that were in the gap. Here a log begins only once the one before it is durable to its
// end.
//
// Full disks. RocksDB does not touch a log again that could not be written to, and cannot always
// leave it. Here such a log is completed once there is room: what it lacks is kept in memory
// (batches that were under way: the store begins no others meanwhile), and RocksDB notices nothing.
//
// Failing disks. RocksDB's assertions end a process that syncs a log which could not be written to
// or not be synced, as one thread may while another one's write or sync fails. Here neither ever
// fails for RocksDB: whoever needs a log durable asks sync(), and no table and no log begins behind
// a failure.
#ifndef SLUICE_DATAPLANE_STORE_STORE_LOGS_H_
#define SLUICE_DATAPLANE_STORE_STORE_LOGS_H_

#include <rocksdb/env.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace sluice {

class LogChain;

// Thread-safe. Of one database, which is gone before it is.
class StoreLogs {
 public:
  // Of the database in `directory`. `base` outlives it.
  StoreLogs(rocksdb::Env* base, std::string directory);
  ~StoreLogs();
  StoreLogs(const StoreLogs&) = delete;
  StoreLogs& operator=(const StoreLogs&) = delete;

  // `base`, with these logs; as long as this object.
  rocksdb::Env* env() const { return env_.get(); }

  // Whether everything that RocksDB has written stands in its logs: a sync says nothing about what
  // they lack. RESOURCE_EXHAUSTED while the disk is full; final once a log could not be written to
  // for another reason, or not be synced.
  absl::Status lacks_nothing() const;
  // Makes durable what RocksDB had written before the call; an error, also that of lacks_nothing(),
  // where that may not be so. In place of RocksDB's own, which is not told of failures.
  absl::Status sync();
  // Writes what is lacking, and syncs. Nothing lacks when this succeeds, unless
  // closed_incomplete().
  absl::Status complete();
  // Whether RocksDB has closed a log that lacked something: it closes those whose records are in
  // tables, and those that it takes for durable. Until are_in_tables() says that all memtables have
  // been written to tables, something lacks.
  bool closed_incomplete() const;
  void are_in_tables();

 private:
  const std::shared_ptr<LogChain> chain_;
  const std::unique_ptr<rocksdb::Env> env_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STORE_STORE_LOGS_H_

// The leases of an SQLite cluster block: deadlines in a file of one page beside the database, which
// all processes map and share. Internal to control/cluster_block.
//
// A deadline is not a durable fact: it is a reading of this boot's monotonic clock. Kept apart from
// the database, leases are granted, renewed and ended without a transaction, a lock or a disk, so
// neither a slow commit nor a writer that holds the database makes a living holder miss its
// renewal.
// 1. A slot is one atomic word: a deadline and a generation. Every change is a compare-and-swap of
//    the whole word, so of a renewal and an ending at the same time exactly one succeeds.
// 2. A lease is over once its id (slot, generation, time to live) is not in the table. It never
//    comes back, because each grant of a slot takes the next generation.
// 3. The database says only which keys have which lease. Keys whose lease is over are gone from
//    that moment on; who next writes erases them.
// 4. The page also has the counter of commits, which wakes the watches of all processes. It is a
//    hint, as a deadline is: a commit counts without it.
// 5. What the file holds is not trusted. A file that is missing, damaged or of an earlier boot is
//    replaced by another file, never changed in size, and whoever has mapped the old one notices.
//
// Thread-safe, and safe between processes.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_TABLE_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/file.h"
#include "control/cluster_block/change_counter.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/pulse.h"

namespace sluice::cluster_block {

class LeaseTable {
 public:
  static constexpr size_t kBytes = 4096;
  static constexpr uint32_t kFormat = 1;

  static std::string path_beside(const std::string& database) { return database + "-leases"; }

  // The table `id` at `path`. NOT_FOUND where there is none; DATA_LOSS for a file that is not a
  // whole table, or another one: it may be replaced. Any other error: it must not be.
  static absl::StatusOr<std::shared_ptr<LeaseTable>> open(const std::string& path,
                                                          std::string_view id);
  // Puts a new table at `path`, in place of what is there, readable for whom the database is. Each
  // of `leases` begins its whole time anew; of two with one slot the later one counts. The caller
  // sees to it that nobody else makes one at the same time.
  static absl::StatusOr<std::shared_ptr<LeaseTable>> make(const std::string& path,
                                                          const std::string& database,
                                                          std::string_view id,
                                                          const std::vector<LeaseId>& leases,
                                                          const Clock& clock);
  ~LeaseTable();
  LeaseTable(const LeaseTable&) = delete;
  LeaseTable& operator=(const LeaseTable&) = delete;

  // The mapped file is there and has its size.
  bool is_whole() const;
  // It has its size, named or not: it can be read and written.
  bool is_mapped() const;
  // No other file has taken its name.
  bool has_its_name() const;

  // Raised after each commit of the database.
  ChangeCounter& commits();

  // RESOURCE_EXHAUSTED when all slots are taken.
  absl::StatusOr<LeaseId> grant(int64_t ttl_ms, const Clock& clock);
  // False when the lease is over. One that is late, but which nobody has ended, is renewed.
  bool renew(LeaseId lease, const Clock& clock);
  void end(LeaseId lease);
  // Ends the lease if its time is over, unless its holder may have stood still together with this
  // process: then it gets half of its time more, once. False when the lease is over.
  bool is_alive(LeaseId lease, const Clock& clock, const Pulse& pulse);

 private:
  struct File;
  LeaseTable(std::string path, UniqueFd fd, File* file);

  const std::string path_;
  const UniqueFd fd_;
  File* const file_;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_LEASE_TABLE_H_

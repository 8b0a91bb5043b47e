// What a restore is asked for and what it answers: plain data, with the fields that the command
// line prints.
#ifndef SLUICE_CONTROL_RESTORE_RESULTS_H_
#define SLUICE_CONTROL_RESTORE_RESULTS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "control/peers/stage_report.h"
#include "control/restore/restore_state.h"

namespace sluice {

struct RestoreRequest {
  // One of these: a backup known to `source_cluster`, or the folders of an archive that this
  // process can read.
  std::string backup;  // name or UUID
  std::vector<std::string> archive_folders;
  std::string source_cluster;          // URL; empty: the destination's own
  std::string prefix;                  // only keys that begin so
  std::optional<std::string> renamed;  // what takes the prefix's place in the cluster
  OnConflict on_conflict = OnConflict::kNewest;
  // With kArchive: keys in the restored range that the archive does not have are deleted.
  bool delete_extra = false;
  bool dry_run = false;  // reports what it would write; writes nothing
  // For archive_folders: this process sends, over the nodes' own driver.
  size_t arena_bytes = size_t{64} << 20;
};

struct RestoreNode {
  std::string name;
  uint64_t records = 0;
  uint64_t bytes = 0;
};

// The proof at a restore's end: each replica's digest of each slot against the archive's.
struct RestoreProof {
  bool checked = false;  // false for a dry run, and where a prefix or another slot_bits makes
                         // digests incomparable
  uint64_t copies = 0;   // slot copies compared
  uint64_t equal = 0;
  uint64_t newer = 0;        // that have every record of the archive, and newer or other ones
  uint64_t differing = 0;    // others: no restore with such copies has completed
  uint64_t unreachable = 0;  // copies on nodes that did not answer
  struct Difference {
    uint32_t slot = 0;
    std::string node;
  };
  std::vector<Difference> first_differing;  // at most 64
};

// A block of the archive that failed its check, and so was not written.
struct DamagedBlock {
  uint32_t slot = 0;
  std::string part;    // "archive of NODE"
  std::string reason;  // with file and offset
  uint64_t records = 0;
  uint64_t deletions = 0;
};

// Why records remain on the retry list.
struct RestoreCause {
  std::string node;      // a replica, or "archive of NODE"
  bool damaged = false;  // the archive's blocks failed their check
  uint64_t records = 0;
  uint64_t deletions = 0;
  uint64_t blocks = 0;
  std::string reason;  // of the first
};

struct RestoreOutcome {
  std::string restore;  // id
  RestoreState state = RestoreState::kRunning;
  std::string reason;
  uint64_t records = 0;  // in the archive, or of the prefix
  uint64_t bytes = 0;
  uint64_t written = 0;  // records durable on all replicas by this restore
  // Records and deletions of which the cluster has a newer one, which stays. In a dry run, and so
  // the next ones: as it would be.
  uint64_t kept_newer = 0;
  uint64_t kept_deleted = 0;      // records that were deleted later, and stay so
  uint64_t restored_over = 0;     // records that took the place of a newer one, or of a deletion
  uint64_t deleted_extra = 0;     // keys that the archive does not have
  uint64_t retried = 0;           // requests sent again
  uint64_t failed = 0;            // records that remain on the retry list
  uint64_t failed_deletions = 0;  // and deletions
  uint64_t extra_left = 0;        // of deleted_extra: not on all replicas yet, and why
  std::string extra_reason;
  bool undoes = false;  // with kArchive
  bool dry_run = false;
  double seconds = 0;
  std::vector<RestoreNode> nodes;
  std::vector<StageReport> stages;  // of the nodes, and of the process that read the archive
  RestoreProof proof;
  std::vector<RestoreCause> causes;
  std::vector<DamagedBlock> damaged;  // of those that failed, the first 1000
  bool data_bad = false;              // it failed because the archive is damaged
};

struct RestoreProgress {
  std::string restore;  // id, once there is a job
  RestoreState state = RestoreState::kRunning;
  std::string_view stage = "restoring";  // then deleting, comparing
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;  // 0: not known yet
  std::string message;
};

// A restore as those see it who do not drive it.
struct RestoreView {
  std::string restore;  // id
  std::string backup;   // name
  RestoreState state = RestoreState::kRunning;
  std::string reason;
  std::string prefix;
  std::optional<std::string> renamed;
  OnConflict on_conflict = OnConflict::kNewest;
  bool delete_extra = false;
  std::string stage;  // while it runs: restoring, deleting, comparing
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;       // 0: not known
  uint64_t bytes_per_second = 0;  // of the last attempt
  std::optional<double> seconds_left;
  // Once it has ended, as in RestoreOutcome.
  uint64_t records = 0;
  uint64_t written = 0;
  uint64_t kept_newer = 0;
  uint64_t kept_deleted = 0;
  uint64_t restored_over = 0;
  uint64_t deleted_extra = 0;
  uint64_t failed = 0;
  uint64_t failed_deletions = 0;
  int64_t created_ms = 0;
  int64_t changed_ms = 0;
};

// A record on a retry list; or, where `key` is empty, so many whose keys cannot be read.
struct FailedRecord {
  std::string restore;
  std::string key;
  std::string node;
  std::string reason;
  uint64_t records = 0;
  uint64_t deletions = 0;  // records that the archive has as deleted
  uint32_t slot = 0;       // the archive's, and the blocks there that hold them
  uint32_t first_block = 0;
  uint32_t blocks = 0;
};

using RestoreCallback = std::function<void(const RestoreProgress&)>;
using FailedCallback = std::function<absl::Status(const FailedRecord& record)>;

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESULTS_H_

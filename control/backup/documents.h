// The schedule documents of a backup, and their keys in the cluster block. Heads lie together under
// backups/, so that listing backups is cheap; what is large lies under backup/<uuid>/.
//
// Decoding treats its input as hostile: what is not exactly such a document is DATA_LOSS naming the
// key it came from. Pure.
#ifndef SLUICE_CONTROL_BACKUP_DOCUMENTS_H_
#define SLUICE_CONTROL_BACKUP_DOCUMENTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/checksum.h"
#include "control/peers/stage_report.h"
#include "control/schedule/planner.h"
#include "control/schedule/states.h"

namespace sluice {

inline constexpr char kBackupsPrefix[] = "backups/";
inline constexpr char kBackupNamesPrefix[] = "backup-names/";
inline constexpr size_t kMaxScheduleChunkBytes = size_t{512} << 10;

std::string backup_head_key(std::string_view uuid);    // backups/<uuid>
std::string backup_name_key(std::string_view name);    // backup-names/<name>, holds the uuid
std::string backup_folder_key(std::string_view uuid);  // backup/<uuid>/
std::string backup_plan_key(std::string_view uuid, uint64_t attempt,
                            uint32_t chunk);                // .../plan/<attempt>/<chunk>
std::string backup_progress_prefix(std::string_view uuid);  // backup/<uuid>/progress/
std::string backup_progress_key(std::string_view uuid, std::string_view node);

// 1 to 128 bytes of [A-Za-z0-9._-], not beginning with a dot or dash, and not of a UUID's form.
// INVALID_ARGUMENT naming it and the rule.
absl::Status check_backup_name(std::string_view name);

struct Divergence {
  uint64_t stale = 0;        // a replica had an older version
  uint64_t missing = 0;      // a replica had no version
  uint64_t conflicting = 0;  // the same version with another value
  Divergence& operator+=(const Divergence& other);
  friend bool operator==(const Divergence&, const Divergence&) = default;
};

struct BackupTotals {
  uint64_t records = 0;         // live, of the consolidated copy
  uint64_t bytes = 0;           // their keys and values
  uint64_t wire_bytes = 0;      // sent, to nodes' own targets as well
  uint64_t local_bytes = 0;     // of these: to nodes' own targets, on no wire
  uint64_t repeated_bytes = 0;  // sent to targets that had these blocks already
  uint64_t dropped_bytes = 0;   // sent, not durable yet, and for nothing: their slots began again
  uint32_t slots = 0;           // of the cluster
  uint32_t slots_agreed = 0;
  uint32_t slots_divergent = 0;
  uint32_t slots_empty = 0;
  Divergence divergence;
  friend bool operator==(const BackupTotals&, const BackupTotals&) = default;
};

// Nothing in it grows with the cluster: every node reads it whenever it changes. The rest is in
// documents of its own (backup_details.h).
struct BackupHead {
  std::string uuid;
  std::string name;
  BackupState state = BackupState::kPlanning;
  std::string coordinator;  // node name
  uint64_t attempt = 1;     // fencing number
  uint64_t cut = 0;         // T, a stamp; 0 while none is armed
  uint64_t epoch = 0;       // of the distribution table
  uint32_t slot_bits = 0;
  uint32_t plan_chunks = 0;   // of this attempt; 0 before there is a plan
  uint64_t plan_attempt = 0;  // under which attempt the plan was stored
  double makespan_s = 0;
  double lower_bound_s = 0;
  BackupTotals totals;
  uint32_t parts = 0;         // of the archive, once it is consolidated
  Digest128 manifest_digest;  // of the committed root manifest, once completed
  // Its deletion has begun: the parts that are stored are those that remain, and the state is
  // cancelled.
  bool deleting = false;
  int64_t created_ms = 0;
  int64_t changed_ms = 0;
  // How long its coordinators have been at work, by their monotonic clocks: wall clocks are set.
  uint64_t elapsed_ms = 0;
  std::string error;  // why it failed or was cancelled
  friend bool operator==(const BackupHead&, const BackupHead&) = default;
};
std::string encode(const BackupHead& head);
absl::StatusOr<BackupHead> decode_backup_head(std::string_view key, std::string_view document);

// What one node says of its parts.
struct NodeProgress {
  std::string node;
  uint64_t attempt = 0;
  BackupState source_state = BackupState::kPlanning;
  BackupState target_state = BackupState::kPlanning;
  uint64_t sent_slots = 0;
  uint64_t sent_bytes = 0;
  uint64_t local_bytes = 0;  // of these: to itself
  uint64_t done_slots = 0;   // durable here, as target
  uint64_t done_bytes = 0;
  uint64_t received_bytes = 0;  // on the wire
  uint64_t repeated_bytes = 0;  // of all attempts, as target: see BackupTotals
  uint64_t dropped_bytes = 0;
  uint64_t records = 0;  // live, as target
  Divergence divergence;
  std::vector<StageReport> stages;
  std::vector<std::string> trees;  // that it has sent: BackupTree messages
  int64_t changed_ms = 0;
  std::string error;
  friend bool operator==(const NodeProgress&, const NodeProgress&) = default;
};
std::string encode(const NodeProgress& progress);
absl::StatusOr<NodeProgress> decode_node_progress(std::string_view key, std::string_view document);

// A plan in chunks below kMaxScheduleChunkBytes each.
std::vector<std::string> encode_plan(const Plan& plan, std::string_view backup, uint64_t attempt);
// All chunks, in order; keys[i] is where chunks[i] came from. What they say of backup and attempt
// must be as given.
absl::StatusOr<Plan> decode_plan(std::string_view backup, uint64_t attempt,
                                 const std::vector<std::string>& keys,
                                 const std::vector<std::string>& chunks);

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_DOCUMENTS_H_

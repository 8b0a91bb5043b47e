// What the operations of a ClusterClient answer: plain data, with the fields that the command line
// prints.
#ifndef SLUICE_CONTROL_CLIENT_RESULTS_H_
#define SLUICE_CONTROL_CLIENT_RESULTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/backup/backup_details.h"
#include "control/membership/membership.h"
#include "control/membership/weights.h"
#include "dataplane/archive/reader.h"

namespace sluice {

struct NodeView {
  std::string name;
  NodeState state = NodeState::kDown;
  double weight = 0;
  Bottleneck weight_from;  // where it comes from, and what bounds the node
  MeasuredRates rates;     // as they were when the weight was settled
  std::string rack;
  std::string control_address;
  std::string data_address;
  std::string driver;
  std::string archive_folder;
  int64_t process = 0;  // process id while it is live; 0 when down
  // Copies held by the distribution table, and what stands in them. `reached` is false where the
  // node did not answer: records and bytes are then 0.
  uint64_t slots = 0;
  uint64_t records = 0;  // live ones
  uint64_t bytes = 0;    // keys and values
  bool reached = false;
  // Of the node's machine: its clock minus the median of the cluster's. And how far the node's
  // stamps are ahead of the clock that they follow.
  int64_t clock_offset_ms = 0;
  int64_t stamps_ahead_ms = 0;
};

struct RecordFailure {
  std::string key;
  std::string reason;
};

struct WriteTotals {
  uint64_t records = 0;  // acknowledged: durable on W replicas
  uint64_t bytes = 0;    // keys and values of those
  uint64_t failed = 0;
  std::vector<RecordFailure> failures;  // the first kKeptFailures of them
  static constexpr size_t kKeptFailures = 100;
};

struct ExportTotals {
  uint64_t records = 0;
  uint64_t bytes = 0;
};

struct ArchivePlace {
  std::string node;
  std::string path;
  uint64_t stored_bytes = 0;  // of its files; 0: not known
};

// What is left of a deleted backup on a node that could not be reached then.
struct OrphanView {
  std::string backup;  // name
  std::string uuid;
  std::string node;
  std::string path;  // empty: not known
  int64_t deleted_ms = 0;
};

struct PlanView {
  double makespan_s = 0;
  double lower_bound_s = 0;
  std::vector<PlannedNode> nodes;
};

// A tree of a node, as it is in a backup.
struct TreeView {
  struct Path {
    std::string path;  // printable
    std::string why;
  };
  std::string name;
  std::string node;
  uint64_t files = 0;
  uint64_t directories = 0;
  uint64_t links = 0;     // symbolic ones
  uint64_t specials = 0;  // pipes and devices
  uint64_t bytes = 0;     // of the files
  uint64_t skipped = 0;   // sockets, what was excluded, other file systems
  uint64_t sent_bytes = 0;
  uint64_t read_bytes = 0;
  uint64_t changed = 0;             // while they were read
  uint64_t vanished = 0;            // between look and reading
  uint64_t failed = 0;              // could not be read
  std::vector<Path> changed_paths;  // the first few
  std::vector<Path> failed_paths;
};

struct BackupView {
  std::string backup;  // name
  std::string uuid;
  BackupState state = BackupState::kPlanning;
  std::string reason;       // why it failed, or what its deletion waits for
  bool deleting = false;    // its deletion has begun; archives: the parts that remain
  std::string coordinator;  // node
  bool dry_run = false;
  int64_t created_ms = 0;
  uint64_t stored_bytes = 0;  // of its archive's files; 0: not known
  uint64_t cut = 0;
  uint64_t records = 0;      // live ones, each once
  uint64_t bytes = 0;        // their keys and values
  uint64_t wire_bytes = 0;   // all that the backup's streams sent, framing, acknowledgements and
                             // what nodes sent to themselves included
  uint64_t local_bytes = 0;  // of wire_bytes: what nodes sent to themselves, on no wire
  // Of wire_bytes, what was sent in vain, over all attempts as far as was reported: to targets that
  // had these blocks already, and of slots that began again because a stream broke off.
  uint64_t repeated_bytes = 0;
  uint64_t dropped_bytes = 0;
  uint64_t slots = 0;
  uint64_t slots_agreed = 0;
  uint64_t slots_divergent = 0;
  Divergence divergence;
  double seconds = 0;
  std::vector<StageReport> stages;
  std::vector<TreeView> trees;
  std::vector<ArchivePlace> archives;
  PlanView plan;
};

struct BackupProgress {
  std::string backup;
  std::optional<BackupState> state;  // none: as before
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;  // 0: not known yet
  std::string message;       // what changed; often empty
};

struct VerifyResult {
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  // Files are "NODE:PATH" when a node checked them.
  std::vector<VerifyProblem> bad;
  std::vector<VerifyProblem> unreadable;  // not checked: the system did not let them be read
};

// One copy of a schedule: a slot as one source sends it to its target.
struct ScheduledCopy {
  uint32_t slot = 0;
  std::string source;
  std::string target;
  BackupState state = BackupState::kPlanning;
  bool divergent = false;
  uint64_t bytes = 0;
};

// A node's part of a backup: as long as its last plan says, and as it was.
struct ScheduledNode {
  std::string name;
  double predicted_s = 0;  // sending or receiving, whichever takes longer
  double actual_s = 0;     // from its first work on; 0 without any
  enum class Bottleneck {
    kNone,     // without any work
    kWaiting,  // nothing took half of its time
    kDisk,
    kLink,
    kCpu,
  };
  Bottleneck bottleneck = Bottleneck::kNone;  // what took most of its time
};
// Empty for kNone.
std::string_view name_of(ScheduledNode::Bottleneck bottleneck);

struct ScheduleView {
  BackupView backup;
  std::vector<ScheduledNode> nodes;
  std::vector<ScheduledCopy> copies;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_RESULTS_H_

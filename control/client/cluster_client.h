// A client of a cluster: finds its nodes through the cluster block and asks them.
//
// Threads: every method may be called from any thread; callbacks run on the calling thread (those
// of an ImportWriter: see there). Errors: INVALID_ARGUMENT for what the caller gave, NOT_FOUND and
// ALREADY_EXISTS naming what, UNAVAILABLE when no node (or not enough replicas of a slot, named
// with their nodes) answers within the deadline. A write that failed may or may not have happened.
// Every request has a deadline; requests that never began are tried again on other nodes.
#ifndef SLUICE_CONTROL_CLIENT_CLUSTER_CLIENT_H_
#define SLUICE_CONTROL_CLIENT_CLUSTER_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/client/results.h"
#include "control/cluster_block/cluster_block.h"
#include "control/contents/backup_contents.h"
#include "control/membership/documents.h"
#include "control/restore/results.h"
#include "control/table/table.h"
#include "drivers/registry.h"

namespace sluice {

class PeerDialer;

struct ClientOptions {
  int64_t request_timeout_ms = 20'000;  // of one small request, retries included
  int64_t idle_timeout_ms = 120'000;    // a long job that reports nothing for so long is given up
  size_t import_bytes_in_flight = size_t{32} << 20;
  Clock* clock = nullptr;         // the system's when null
  PeerDialer* dialer = nullptr;   // gRPC's when null; outlives the client
  TransportFactory transport;     // make_transport when empty
  ClusterBlockOpener open_block;  // open_cluster_block when empty
};

struct BackupOptions {
  std::string name;                  // empty: made from the date; [A-Za-z0-9][A-Za-z0-9._-]{0,63}
  std::vector<std::string> targets;  // node names; empty: all live nodes
  bool dry_run = false;
  std::vector<std::string> trees = {};  // names; empty: all
  bool no_records = false;              // trees alone
  bool rescan = false;                  // read all files of trees, whatever is known of them
};

// Many writes at once. add() and erase() may wait for room; finish() waits for all answers.
// Confined to one thread.
class ImportWriter {
 public:
  virtual ~ImportWriter() = default;
  // Errors here are the caller's (sizes); a write that fails is in finish()'s totals.
  virtual absl::Status put(std::string_view key, std::string_view value) = 0;
  virtual absl::Status erase(std::string_view key) = 0;
  virtual WriteTotals finish() = 0;
};

class ClusterClient {
 public:
  static absl::StatusOr<std::unique_ptr<ClusterClient>> open(std::string_view cluster_url,
                                                             const ClientOptions& options = {});
  // On an open block, which must outlive the client. `cluster_url` is what nodes are told to reach
  // it by; may be empty where no restore between clusters is asked for.
  static absl::StatusOr<std::unique_ptr<ClusterClient>> open(ClusterBlock& block,
                                                             std::string_view cluster_url,
                                                             const ClientOptions& options = {});
  virtual ~ClusterClient() = default;

  virtual ClusterBlock& block() = 0;
  virtual const ClusterInfo& cluster() const = 0;
  // The table that requests are routed by.
  virtual absl::StatusOr<DistributionTable> table() = 0;
  virtual absl::StatusOr<std::vector<NodeView>> nodes() = 0;

  virtual absl::Status put(std::string_view key, std::string_view value) = 0;
  // NOT_FOUND for a key that is not there (or deleted).
  virtual absl::StatusOr<std::string> get(std::string_view key) = 0;
  virtual absl::Status erase(std::string_view key) = 0;
  virtual absl::StatusOr<uint64_t> count(std::string_view prefix = {}) = 0;
  virtual std::unique_ptr<ImportWriter> import() = 0;
  // Hands out every live record whose key begins with `prefix`: by slot, within a slot in key
  // order. Ends with the callback's error.
  using RecordCallback = std::function<absl::Status(std::string_view key, std::string_view value)>;
  virtual absl::StatusOr<ExportTotals> export_records(std::string_view prefix,
                                                      const RecordCallback& callback) = 0;
  // The same with at most the first `value_bytes` of each value, which saves the network the rest.
  virtual absl::StatusOr<ExportTotals> export_heads(std::string_view prefix, uint32_t value_bytes,
                                                    const RecordCallback& callback) = 0;

  // The result's state is completed (a dry run: planning), failed or cancelled; a status other than
  // OK means that no backup was begun, or that its end could not be seen (the message names it; it
  // goes on).
  using BackupCallback = std::function<void(const BackupProgress&)>;
  virtual absl::StatusOr<BackupView> backup_create(const BackupOptions& options,
                                                   const BackupCallback& progress) = 0;
  virtual absl::StatusOr<BackupView> backup_resume(std::string_view backup,
                                                   const BackupCallback& progress) = 0;
  virtual absl::StatusOr<std::vector<BackupView>> backup_list() = 0;
  virtual absl::StatusOr<BackupView> backup_show(std::string_view backup) = 0;
  using VerifyCallback = std::function<void(uint64_t bytes_done, uint64_t bytes_total)>;
  virtual absl::StatusOr<VerifyResult> backup_verify(std::string_view backup,
                                                     const VerifyCallback& progress) = 0;
  virtual absl::StatusOr<BackupView> backup_cancel(std::string_view backup) = 0;
  // Removes its archive from its nodes and its documents. FAILED_PRECONDITION, and nothing removed,
  // while it runs, while a part is being read, and where something else stands in a part's place;
  // ABORTED naming the holders whose parts remain: the backup is then listed as cancelled, holders
  // that were away remove their parts when they return, and another call continues. With `force`,
  // holders that are not live are no obstacle: their parts are remembered, and removed when they
  // return.
  virtual absl::Status backup_delete(std::string_view backup, bool force) = 0;
  absl::Status backup_delete(std::string_view backup) { return backup_delete(backup, false); }
  // Parts that are remembered so.
  virtual absl::StatusOr<std::vector<OrphanView>> backup_orphans() = 0;
  // What a completed backup holds, read from its holders. The client outlives it.
  virtual absl::StatusOr<std::unique_ptr<BackupContents>> backup_contents(
      std::string_view backup, const TreeChoice& choice) = 0;
  virtual absl::StatusOr<ScheduleView> schedule_show(std::string_view backup) = 0;

  virtual absl::StatusOr<RestoreOutcome> restore(const RestoreRequest& options,
                                                 const RestoreCallback& progress) = 0;
  // Hands out what remains on the retry lists of all restores into this cluster, every record of
  // it. Keys are read from the archives. Ends with the callback's error.
  virtual absl::Status restore_failed(const FailedCallback& visit) = 0;
  // Restores into this cluster, whoever drives or drove them.
  virtual absl::StatusOr<std::vector<RestoreView>> restore_list() = 0;
  // `restore`: its id, or the name of a backup that only one restore is of.
  virtual absl::StatusOr<RestoreView> restore_show(std::string_view restore) = 0;
  // FAILED_PRECONDITION for one that has ended otherwise.
  virtual absl::StatusOr<RestoreView> restore_cancel(std::string_view restore) = 0;
  // Continues an interrupted one as it was begun; what was written after that stays.
  virtual absl::StatusOr<RestoreOutcome> restore_resume(std::string_view restore,
                                                        const RestoreCallback& progress) = 0;
  // Drives all retry lists again; the sum of the results.
  virtual absl::StatusOr<RestoreOutcome> restore_retry(const RestoreCallback& progress) = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_CLUSTER_CLIENT_H_

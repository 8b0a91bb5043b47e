// The ClusterClient, in parts: records, backups, restores.
#ifndef SLUICE_CONTROL_CLIENT_CLUSTER_CLIENT_IMPL_H_
#define SLUICE_CONTROL_CLIENT_CLUSTER_CLIENT_IMPL_H_

#include <grpcpp/client_context.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "control/backup/backup_store.h"
#include "control/client/cluster_client.h"
#include "control/client/remote_contents.h"
#include "control/peers/cluster_connection.h"

namespace sluice {

// Whether another node may do what one did not: it is away, late or has too much to do.
bool is_answered_elsewhere(grpc::StatusCode code);

class ClusterClientImpl final : public ClusterClient {
 public:
  ClusterClientImpl(std::unique_ptr<ClusterConnection> connection, const ClientOptions& options)
      : connection_(std::move(connection)), options_(options) {}

  ClusterBlock& block() override { return connection_->block(); }
  const ClusterInfo& cluster() const override { return connection_->cluster(); }
  absl::StatusOr<DistributionTable> table() override;
  absl::StatusOr<std::vector<NodeView>> nodes() override;

  absl::Status put(std::string_view key, std::string_view value) override;
  absl::StatusOr<std::string> get(std::string_view key) override;
  absl::Status erase(std::string_view key) override;
  absl::StatusOr<uint64_t> count(std::string_view prefix) override;
  std::unique_ptr<ImportWriter> import() override;
  absl::StatusOr<ExportTotals> export_records(std::string_view prefix,
                                              const RecordCallback& callback) override {
    return export_heads(prefix, UINT32_MAX, callback);
  }
  absl::StatusOr<ExportTotals> export_heads(std::string_view prefix, uint32_t value_bytes,
                                            const RecordCallback& callback) override;

  absl::StatusOr<BackupView> backup_create(const BackupOptions& options,
                                           const BackupCallback& progress) override;
  absl::StatusOr<BackupView> backup_resume(std::string_view backup,
                                           const BackupCallback& progress) override;
  absl::StatusOr<std::vector<BackupView>> backup_list() override;
  absl::StatusOr<BackupView> backup_show(std::string_view backup) override;
  absl::StatusOr<VerifyResult> backup_verify(std::string_view backup,
                                             const VerifyCallback& progress) override;
  absl::StatusOr<BackupView> backup_cancel(std::string_view backup) override;
  using ClusterClient::backup_delete;
  absl::Status backup_delete(std::string_view backup, bool force) override;
  absl::StatusOr<std::vector<OrphanView>> backup_orphans() override;
  absl::StatusOr<std::unique_ptr<BackupContents>> backup_contents(
      std::string_view backup, const TreeChoice& choice) override {
    return open_remote_contents(*connection_, backup, choice);
  }
  absl::StatusOr<ScheduleView> schedule_show(std::string_view backup) override;

  absl::StatusOr<RestoreOutcome> restore(const RestoreRequest& request,
                                         const RestoreCallback& progress) override;
  absl::StatusOr<std::vector<RestoreView>> restore_list() override;
  absl::StatusOr<RestoreView> restore_show(std::string_view restore) override;
  absl::StatusOr<RestoreView> restore_cancel(std::string_view restore) override;
  absl::StatusOr<RestoreOutcome> restore_resume(std::string_view restore,
                                                const RestoreCallback& progress) override;
  absl::Status restore_failed(const FailedCallback& visit) override;
  absl::StatusOr<RestoreOutcome> restore_retry(const RestoreCallback& progress) override;

  ClusterConnection& connection() { return *connection_; }
  Peers& peers() { return connection_->peers(); }
  Directory& directory() { return connection_->directory(); }
  const ClientOptions& options() const { return options_; }
  Clock& clock() { return connection_->clock(); }

  // Nodes to ask, the likeliest to answer first: `first` (may be empty), live ones, then the
  // others.
  std::vector<std::string> candidates(std::string_view first);
  // Calls `call` for one node after the other until one answers otherwise than UNAVAILABLE,
  // DEADLINE_EXCEEDED or RESOURCE_EXHAUSTED, for at most the request timeout. Sets the context's
  // deadline.
  absl::Status ask_any(std::string_view first,
                       const std::function<grpc::Status(PeerNode&, grpc::ClientContext&)>& call) {
    Deadline deadline(clock(), options_.request_timeout_ms);
    return ask_any(first, deadline, options_.request_timeout_ms, call);
  }
  // The first try of each node may take `first_try_ms`, later ones longer.
  absl::Status ask_any(std::string_view first, Deadline& deadline, int64_t first_try_ms,
                       const std::function<grpc::Status(PeerNode&, grpc::ClientContext&)>& call);
  // The largest stamp that a write of this client has had, or was acknowledged as of: its next
  // versions are above it, whichever node makes them.
  uint64_t floor() const { return floor_; }
  void keep_above(uint64_t stamp);
  // The first replica of the key's slot.
  std::string primary_of(std::string_view key);

 private:
  absl::Status write(std::string_view key, std::string_view value, bool tombstone);
  absl::StatusOr<BackupView> view(const BackupHead& head);
  absl::StatusOr<BackupView> follow_backup(const std::string& uuid, const BackupCallback& progress);

  const std::unique_ptr<ClusterConnection> connection_;
  const ClientOptions options_;
  std::atomic<uint64_t> floor_{0};
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_CLUSTER_CLIENT_IMPL_H_

// The part of ClusterClient that restores.
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <utility>

#include "base/arena.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/client/cluster_client_impl.h"
#include "control/membership/membership.h"
#include "control/peers/archive_reference.h"
#include "control/peers/rpc.h"
#include "control/restore/restore_job.h"
#include "control/restore/restore_jobs.h"
#include "control/restore/restore_listing.h"
#include "control/restore/restore_parts.h"
#include "control/restore/restore_store.h"
#include "dataplane/archive/reader.h"

namespace sluice {

namespace {

constexpr int64_t kCheckMs = 5'000;

absl::StatusOr<std::string> absolute_path(const std::string& path) {
  char* resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return errno_status(errno, path);
  std::string absolute = resolved;
  free(resolved);
  return absolute;
}

// Where the archive is that was asked for.
absl::Status find_archive_folders(const RestoreRequest& request, RestoreHead* head) {
  std::vector<std::string> folders;
  for (const std::string& folder : request.archive_folders) {
    SLUICE_ASSIGN_OR_RETURN(std::string absolute, absolute_path(folder));
    folders.push_back(std::move(absolute));
  }
  SLUICE_ASSIGN_OR_RETURN(const auto archive, ArchiveReader::open(folders));
  if (const auto missing = archive->missing_parts(); !missing.empty()) {
    return failed_precondition(
        "parts of the archive are missing ({}): give the directories of all parts",
        fmt::join(missing, ", "));
  }
  head->backup = archive->manifest().identity.backup;
  head->name = archive->manifest().identity.name;
  head->archive_cluster = archive->manifest().identity.cluster;
  head->manifest_digest = archive->manifest_digest();
  for (const auto& part : archive->parts()) head->sources.push_back({part.node, "", part.folder});
  return absl::OkStatus();
}

// Before anything is sent: no holder may have something else in its part's place. One that does not
// answer is left to the restore, which names it.
absl::Status check_sources(Peers& peers, const RestoreHead& head) {
  std::vector<absl::Status> statuses(head.sources.size());
  parallel_for(head.sources.size(), [&](size_t i) {
    const std::string& node = head.sources[i].node;
    const auto peer = peers.find(node);
    if (!peer.ok()) return;
    grpc::ClientContext call;
    set_timeout(call, kCheckMs);
    v1::ArchiveState state;
    const grpc::Status status = (*peer)->peer().CheckArchive(
        &call,
        make_reference({head.archive_cluster, head.backup, node, head.manifest_digest}, head.name),
        &state);
    statuses[i] = from_peer(status, node);
  });
  for (const absl::Status& status : statuses) {
    if (!absl::IsDataLoss(status)) continue;
    return data_loss("backup {} is not restored, nothing was written: {}", head.name,
                     message_of(status));
  }
  return absl::OkStatus();
}

absl::Status find_backup_parts(ClusterConnection& own, const RestoreRequest& request,
                               RestoreHead* head) {
  head->source_cluster = request.source_cluster;
  SLUICE_ASSIGN_OR_RETURN(const auto holders, SourceCluster::open(own, head->source_cluster));
  ClusterConnection& source = holders->connection();
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(source.block(), request.backup));
  SLUICE_RETURN_IF_ERROR(check_completed(stored.head));
  head->archive_cluster = source.cluster().uuid;
  head->manifest_digest = stored.head.manifest_digest;
  head->backup = stored.head.uuid;
  head->name = stored.head.name;
  SLUICE_ASSIGN_OR_RETURN(const auto parts, load_all_parts(source.block(), stored.head));
  for (const ArchivePart& part : parts) {
    head->sources.push_back({part.node, part.node, {}});
  }
  return check_sources(source.peers(), *head);
}

// Its parts go one after the other: what a deletion takes from a restore is not damage.
void note_deletion(ClusterConnection& own, const RestoreRequest& request, const std::string& backup,
                   RestoreOutcome* outcome) {
  const auto holders = SourceCluster::open(own, request.source_cluster);
  if (!holders.ok()) return;
  const auto now = load_backup((*holders)->connection().block(), backup);
  const bool is_deleted =
      now.ok() ? !check_completed(now->head).ok() : absl::IsNotFound(now.status());
  if (!is_deleted) return;
  outcome->data_bad = false;
  outcome->reason = fmt::format("backup {} was deleted while it was restored", request.backup);
}

void add_proof(const RestoreProof& proof, RestoreProof* sum) {
  sum->checked = sum->checked || proof.checked;
  sum->copies += proof.copies;
  sum->equal += proof.equal;
  sum->newer += proof.newer;
  sum->differing += proof.differing;
  sum->unreachable += proof.unreachable;
  for (const auto& difference : proof.first_differing) sum->first_differing.push_back(difference);
}

}  // namespace

absl::StatusOr<RestoreOutcome> ClusterClientImpl::restore(const RestoreRequest& request,
                                                          const RestoreCallback& progress) {
  RestoreHead head;
  head.mapping.prefix = request.prefix;
  head.mapping.renames = request.renamed.has_value();
  head.mapping.renamed = request.renamed.value_or("");
  head.on_conflict = request.on_conflict;
  head.delete_extra = request.delete_extra;
  if (head.delete_extra && head.on_conflict != OnConflict::kArchive) {
    return invalid_argument(
        "keys that the archive does not have are only deleted where its state wins");
  }
  if (request.archive_folders.empty()) {
    SLUICE_RETURN_IF_ERROR(find_backup_parts(*connection_, request, &head));
  } else {
    SLUICE_RETURN_IF_ERROR(find_archive_folders(request, &head));
  }
  head.id = head.backup;
  std::string range = request.prefix;
  if (request.renamed.has_value()) range += fmt::format("={}", *request.renamed);
  if (!range.empty()) head.id += fmt::format("-{:08x}", xxh3_64(range) & 0xffffffff);
  const std::string backup = head.backup;
  RestoreJob job(*connection_, request, progress);
  auto outcome = job.run(std::move(head));
  if (outcome.ok() && outcome->data_bad && request.archive_folders.empty()) {
    note_deletion(*connection_, request, backup, &*outcome);
  }
  return outcome;
}

absl::StatusOr<RestoreOutcome> ClusterClientImpl::restore_retry(const RestoreCallback& progress) {
  SLUICE_ASSIGN_OR_RETURN(const auto heads, list_restores(block()));
  RestoreOutcome sum;
  sum.state = RestoreState::kCompleted;
  for (const RestoreHead& head : heads) {
    if (head.state == RestoreState::kFailed || head.state == RestoreState::kCancelled) {
      // Only a whole run knows what it lacks.
      if (head.failed == 0) continue;
      sum.state = head.state;
      sum.reason =
          fmt::format("restore {} is {}: run the restore again", head.id, name_of(head.state));
      sum.failed += head.failed;
      sum.failed_deletions += head.failed_deletions;
      continue;
    }
    if (head.state != RestoreState::kCompletedWithFailures) continue;
    RestoreRequest request;
    request.prefix = head.mapping.prefix;
    RestoreJob job(*connection_, request, progress);
    const auto outcome = job.retry(head.id);
    if (!outcome.ok()) {
      // The others' lists are driven all the same.
      sum.state = RestoreState::kFailed;
      sum.reason = message_of(outcome.status());
      sum.data_bad = sum.data_bad || absl::IsDataLoss(outcome.status());
      sum.failed += head.failed;
      sum.failed_deletions += head.failed_deletions;
      continue;
    }
    const RestoreOutcome& one = *outcome;
    sum.restore = sum.restore.empty() ? one.restore : sum.restore + "," + one.restore;
    if (one.state != RestoreState::kCompleted) {
      if (sum.state != RestoreState::kFailed) sum.state = one.state;
      sum.reason = one.reason;
      sum.data_bad = sum.data_bad || one.data_bad;
    }
    sum.records += one.records;
    sum.bytes += one.bytes;
    sum.written += one.written;
    sum.kept_newer += one.kept_newer;
    sum.kept_deleted += one.kept_deleted;
    sum.restored_over += one.restored_over;
    sum.deleted_extra += one.deleted_extra;
    sum.retried += one.retried;
    sum.failed += one.failed;
    sum.failed_deletions += one.failed_deletions;
    for (const RestoreCause& cause : one.causes) sum.causes.push_back(cause);
    for (const DamagedBlock& block : one.damaged) sum.damaged.push_back(block);
    sum.seconds += one.seconds;
    add_proof(one.proof, &sum.proof);
    for (const RestoreNode& node : one.nodes) sum.nodes.push_back(node);
  }
  return sum;
}

absl::StatusOr<std::vector<RestoreView>> ClusterClientImpl::restore_list() {
  return view_restores(block());
}

absl::StatusOr<RestoreView> ClusterClientImpl::restore_show(std::string_view restore) {
  SLUICE_ASSIGN_OR_RETURN(const StoredRestore stored, find_restore(block(), restore));
  return view_restore(block(), stored.head);
}

absl::StatusOr<RestoreView> ClusterClientImpl::restore_cancel(std::string_view restore) {
  SLUICE_RETURN_IF_ERROR(cancel_restore(block(), clock(), restore));
  return restore_show(restore);
}

absl::StatusOr<RestoreOutcome> ClusterClientImpl::restore_resume(std::string_view restore,
                                                                 const RestoreCallback& progress) {
  SLUICE_ASSIGN_OR_RETURN(const StoredRestore stored, find_restore(block(), restore));
  RestoreRequest request;
  request.prefix = stored.head.mapping.prefix;
  RestoreJob job(*connection_, request, progress);
  return job.resume(stored.head);
}

absl::Status ClusterClientImpl::restore_failed(const FailedCallback& visit) {
  SLUICE_ASSIGN_OR_RETURN(const auto heads, list_restores(block()));
  for (const RestoreHead& head : heads) {
    SLUICE_RETURN_IF_ERROR(list_failed(*connection_, head, visit));
  }
  return absl::OkStatus();
}

}  // namespace sluice

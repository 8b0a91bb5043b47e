// The part of ServingService that is about backups.
#include <functional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/peers/archive_reference.h"
#include "control/peers/rpc.h"
#include "control/service/request_limits.h"
#include "control/service/serving_service.h"

namespace sluice {

namespace {
constexpr int64_t kUpdateMs = 500;
constexpr int64_t kVerifyMs = 24 * 3600 * int64_t{1000};
}  // namespace

absl::Status ServingService::create_backup(IncomingCall& call,
                                           const v1::CreateBackupRequest& request,
                                           PageSink<v1::BackupUpdate>* pages) {
  SLUICE_RETURN_IF_ERROR(check_count("targets", request.targets_size()));
  BackupRequest wanted;
  wanted.name = request.name();
  wanted.targets.assign(request.targets().begin(), request.targets().end());
  wanted.dry_run = request.dry_run();
  SLUICE_RETURN_IF_ERROR(check_count("trees", request.trees_size()));
  wanted.sources.trees.assign(request.trees().begin(), request.trees().end());
  wanted.sources.records = !request.no_records();
  wanted.sources.rescan = request.rescan();
  return follow(backups_.create(wanted), call, *pages);
}

absl::Status ServingService::resume_backup(IncomingCall& call, const v1::BackupRequest& request,
                                           PageSink<v1::BackupUpdate>* pages) {
  return follow(backups_.resume(request.backup()), call, *pages);
}

// Tells of the run until it ends or the client goes away; the run does not depend on the client.
absl::Status ServingService::follow(absl::StatusOr<std::shared_ptr<BackupRun>> begun,
                                    const IncomingCall& call, PageSink<v1::BackupUpdate>& pages) {
  if (!begun.ok()) return begun.status();
  const std::shared_ptr<BackupRun> run = *std::move(begun);
  uint64_t version = 0;
  bool first = true;
  while (true) {
    const BackupRun::Report report = run->wait(version, first ? 0 : kUpdateMs);
    if (stopping_ && !report.finished) return unavailable("the node stops; another one goes on");
    if (call.cancelled()) return cancelled("the client went away");
    if (report.version == version && !first) continue;
    first = false;
    version = report.version;
    v1::BackupUpdate update;
    update.set_backup(report.head.name);
    update.set_uuid(report.head.uuid);
    update.set_state(std::string(name_of(report.head.state)));
    update.set_bytes_done(report.bytes_done);
    update.set_bytes_total(report.bytes_total);
    update.set_message(report.message);
    if (report.finished) {
      if (report.status.code() == absl::StatusCode::kAborted) {
        return unavailable("{}", message_of(report.status));
      }
      BackupHead head = report.head;
      if (!report.status.ok() && head.error.empty()) head.error = message_of(report.status);
      update.set_last(true);
      update.set_result(encode(head));
      put(report.details, update.mutable_details());
    }
    SLUICE_RETURN_IF_ERROR(pages.write(update));
    if (report.finished) return absl::OkStatus();
  }
}

absl::Status ServingService::cancel_backup(IncomingCall&, const v1::BackupRequest& request,
                                           v1::Empty*) {
  return backups_.cancel(request.backup());
}

namespace {

// What the holders of a backup's parts found, in one stream. Confined to one thread.
class Verification {
 public:
  Verification(const NodeContext& context, const BackupHead& head,
               PageSink<v1::VerifyUpdate>& pages, const std::function<bool()>& stop)
      : context_(context), head_(head), pages_(pages), stop_(stop) {}

  // CANCELLED when the client goes away. Everything else is told in the stream, or by finish().
  absl::Status check(const ArchivePart& part);
  // What could not be checked at all, unless damage was found elsewhere: then it is in the stream.
  absl::Status finish();

 private:
  absl::Status read(const std::string& node, grpc::ClientReaderInterface<v1::VerifyUpdate>& reader);
  absl::Status add(const ArchivePart& part, const absl::Status& status, bool damage);

  const NodeContext& context_;
  const BackupHead& head_;
  PageSink<v1::VerifyUpdate>& pages_;
  const std::function<bool()>& stop_;
  uint64_t blocks_ = 0;
  uint64_t bytes_ = 0;
  bool bad_ = false;
  absl::Status unchecked_;
};

absl::Status Verification::check(const ArchivePart& part) {
  const auto peer = context_.peers->find(part.node);
  if (!peer.ok()) return add(part, peer.status(), false);
  grpc::ClientContext call;
  set_timeout(call, kVerifyMs);
  const v1::ArchiveReference request = make_reference(
      {context_.cluster().uuid, head_.uuid, part.node, head_.manifest_digest}, head_.name);
  const auto reader = (*peer)->peer().VerifyArchive(&call, request);
  if (const absl::Status status = read(part.node, *reader); !status.ok()) {
    (*peer)->link().cancel(call);
    reader->Finish();
    return status;
  }
  const grpc::Status status = reader->Finish();
  (*peer)->note(status);
  if (status.ok()) return absl::OkStatus();
  const bool damage = status.error_code() == grpc::StatusCode::NOT_FOUND ||
                      status.error_code() == grpc::StatusCode::DATA_LOSS;
  return add(part, damage ? from_grpc(status) : from_peer(status, part.node), damage);
}

absl::Status Verification::read(const std::string& node,
                                grpc::ClientReaderInterface<v1::VerifyUpdate>& reader) {
  v1::VerifyUpdate update;
  while (reader.Read(&update)) {
    blocks_ += update.blocks();
    bytes_ += update.bytes();
    update.clear_blocks();
    update.clear_bytes();
    update.set_last(false);
    bad_ = bad_ || update.bad_size() > 0;
    for (auto* problems : {update.mutable_bad(), update.mutable_unreadable()}) {
      for (v1::Problem& problem : *problems) {
        problem.set_file(fmt::format("{}:{}", node, problem.file()));
      }
    }
    if (stop_()) return cancelled("the client went away, or the node stops");
    SLUICE_RETURN_IF_ERROR(pages_.write(update));
  }
  return absl::OkStatus();
}

absl::Status Verification::add(const ArchivePart& part, const absl::Status& status, bool damage) {
  v1::VerifyUpdate update;
  v1::Problem* problem = damage ? update.add_bad() : update.add_unreadable();
  problem->set_file(fmt::format("{}:{}", part.node, part.path));
  problem->set_slot(-1);
  problem->set_reason(std::string(message_of(status)));
  bad_ = bad_ || damage;
  if (!damage && unchecked_.ok()) unchecked_ = status;
  return pages_.write(update);
}

absl::Status Verification::finish() {
  // What was missing or could not be read may have been removed meanwhile.
  if (bad_ || !unchecked_.ok()) {
    const auto now = load_backup(*context_.block, head_.uuid);
    if (absl::IsNotFound(now.status())) {
      return failed_precondition("backup {} was deleted while it was verified", head_.name);
    }
    SLUICE_RETURN_IF_ERROR(now.status());
    SLUICE_RETURN_IF_ERROR(check_completed(now->head));
  }
  if (!bad_) SLUICE_RETURN_IF_ERROR(unchecked_);
  v1::VerifyUpdate last;
  last.set_last(true);
  last.set_blocks(blocks_);
  last.set_bytes(bytes_);
  return pages_.write(last);
}

}  // namespace

// Each holder checks its own part, one after the other; what they find is passed on as it comes.
absl::Status ServingService::verify_backup(IncomingCall& call, const v1::BackupRequest& request,
                                           PageSink<v1::VerifyUpdate>* pages) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored,
                          load_backup(*context_.block, request.backup()));
  SLUICE_RETURN_IF_ERROR(check_completed(stored.head));
  const std::function<bool()> stop = [&] { return stopping_ || call.cancelled(); };
  Verification verification(context_, stored.head, *pages, stop);
  SLUICE_ASSIGN_OR_RETURN(const auto parts, load_all_parts(*context_.block, stored.head));
  for (const ArchivePart& part : parts) {
    SLUICE_RETURN_IF_ERROR(verification.check(part));
  }
  return verification.finish();
}

}  // namespace sluice

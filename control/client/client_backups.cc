// The part of ClusterClient that is about backups.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/client/cluster_client_impl.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {
constexpr int64_t kFollowPollMs = 200;
constexpr int64_t kLongestJobMs = 24 * 3600 * int64_t{1000};

TreeView view_of(const v1::BackupTree& tree) {
  TreeView view;
  view.name = tree.name();
  view.node = tree.node();
  view.files = tree.files();
  view.directories = tree.directories();
  view.links = tree.links();
  view.specials = tree.specials();
  view.bytes = tree.bytes();
  view.skipped = tree.skipped();
  view.sent_bytes = tree.sent_bytes();
  view.read_bytes = tree.read_bytes();
  view.changed = tree.changed();
  view.vanished = tree.vanished();
  view.failed = tree.failed();
  for (const auto& path : tree.changed_paths()) {
    view.changed_paths.push_back({path.path(), path.why()});
  }
  for (const auto& path : tree.failed_paths()) {
    view.failed_paths.push_back({path.path(), path.why()});
  }
  return view;
}

BackupView view_of(const BackupHead& head, const BackupDetails& details) {
  BackupView view;
  view.backup = head.name;
  view.uuid = head.uuid;
  view.state = head.state;
  view.created_ms = head.created_ms;
  view.reason = head.error;
  view.deleting = head.deleting;
  view.coordinator = head.coordinator;
  view.cut = head.cut;
  view.records = head.totals.records;
  view.bytes = head.totals.bytes;
  view.wire_bytes = head.totals.wire_bytes;
  view.repeated_bytes = head.totals.repeated_bytes;
  view.dropped_bytes = head.totals.dropped_bytes;
  view.local_bytes = head.totals.local_bytes;
  view.slots = head.totals.slots;
  view.slots_agreed = head.totals.slots_agreed;
  view.slots_divergent = head.totals.slots_divergent;
  view.divergence = head.totals.divergence;
  view.stages = details.stages;
  for (const v1::BackupTree& tree : details.trees) view.trees.push_back(view_of(tree));
  view.seconds = static_cast<double>(head.elapsed_ms) / 1000;
  for (const ArchivePart& part : details.archives) {
    view.archives.push_back({part.node, part.path, part.stored_bytes});
    view.stored_bytes += part.stored_bytes;
  }
  view.plan = {head.makespan_s, head.lower_bound_s, details.planned};
  return view;
}

VerifyProblem problem_of(const v1::Problem& problem) {
  return {problem.file(), problem.offset(), problem.slot(), problem.reason()};
}

struct Followed {
  std::string uuid;
  std::optional<BackupView> result;
  absl::Status status;
};

// Reads updates until the last one or the stream's end.
Followed read_updates(grpc::ClientReaderInterface<v1::BackupUpdate>& reader,
                      const ClusterClient::BackupCallback& progress) {
  Followed followed;
  v1::BackupUpdate update;
  while (reader.Read(&update)) {
    followed.uuid = update.uuid();
    if (progress) {
      progress({update.backup(), backup_state_named(update.state()), update.bytes_done(),
                update.bytes_total(), update.message()});
    }
    if (!update.last()) continue;
    auto head = decode_backup_head(backup_head_key(update.uuid()), update.result());
    if (head.ok()) {
      followed.result = view_of(*head, details_of(update.details()));
    } else {
      followed.status = head.status();
    }
  }
  const grpc::Status status = reader.Finish();
  if (followed.status.ok()) followed.status = from_grpc(status);
  return followed;
}

// Who looks at the terminal would see nothing move.
void warn_of_lost_coordinator(const absl::Status& why) {
  if (is_away(why)) spdlog::warn("{}; another node goes on with the backup", message_of(why));
}

}  // namespace

absl::StatusOr<BackupView> ClusterClientImpl::backup_create(const BackupOptions& options,
                                                            const BackupCallback& progress) {
  if (!options.name.empty()) SLUICE_RETURN_IF_ERROR(check_backup_name(options.name));
  v1::CreateBackupRequest request;
  request.set_name(options.name);
  for (const std::string& target : options.targets) request.add_targets(target);
  request.set_dry_run(options.dry_run);
  for (const std::string& tree : options.trees) request.add_trees(tree);
  request.set_no_records(options.no_records);
  request.set_rescan(options.rescan);
  Followed followed;
  absl::Status status = unavailable("no node is known");
  for (const std::string& name : candidates({})) {
    SLUICE_ASSIGN_OR_RETURN(const auto peer, peers().find(name));
    grpc::ClientContext context;
    set_timeout(context, kLongestJobMs);
    const auto reader = peer->serving().CreateBackup(&context, request);
    followed = read_updates(*reader, progress);
    status = with_context(followed.status, name);
    // Nothing was begun where nothing was told.
    if (!followed.uuid.empty() || status.code() != absl::StatusCode::kUnavailable) break;
  }
  if (followed.result.has_value()) {
    BackupView view = *std::move(followed.result);
    view.dry_run = options.dry_run;
    return view;
  }
  if (followed.uuid.empty() || options.dry_run) return status;
  warn_of_lost_coordinator(status);
  return follow_backup(followed.uuid, progress);
}

absl::StatusOr<BackupView> ClusterClientImpl::backup_resume(std::string_view backup,
                                                            const BackupCallback& progress) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(block(), backup));
  v1::BackupRequest request;
  request.set_backup(stored.head.uuid);
  for (const std::string& name : candidates({})) {
    SLUICE_ASSIGN_OR_RETURN(const auto peer, peers().find(name));
    grpc::ClientContext context;
    set_timeout(context, kLongestJobMs);
    const auto reader = peer->serving().ResumeBackup(&context, request);
    const Followed followed = read_updates(*reader, progress);
    if (followed.result.has_value()) return *followed.result;
    if (!followed.uuid.empty()) {
      warn_of_lost_coordinator(with_context(followed.status, name));
      break;
    }
    if (followed.status.code() == absl::StatusCode::kAlreadyExists) {
      // It runs already, under another coordinator, or another backup does.
      SLUICE_ASSIGN_OR_RETURN(const StoredBackup now, load_backup(block(), stored.head.uuid));
      if (now.head.state == BackupState::kFailed) return followed.status;
      break;
    }
    if (followed.status.code() != absl::StatusCode::kUnavailable) return followed.status;
  }
  return follow_backup(stored.head.uuid, progress);
}

absl::StatusOr<BackupView> ClusterClientImpl::view(const BackupHead& head) {
  SLUICE_ASSIGN_OR_RETURN(const BackupDetails details, load_details(block(), head));
  return view_of(head, details);
}

// Follows the schedule's head alone: its coordinator is another node now.
absl::StatusOr<BackupView> ClusterClientImpl::follow_backup(const std::string& uuid,
                                                            const BackupCallback& progress) {
  Deadline idle(clock(), options_.idle_timeout_ms);
  Revision revision = 0;
  uint64_t done = 0;
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(block(), uuid));
    uint64_t now_done = 0;
    if (const auto all = load_progress(block(), uuid); all.ok()) {
      for (const NodeProgress& node : *all) now_done += node.received_bytes + node.sent_bytes;
    }
    if (stored.revision != revision || now_done != done) {
      revision = stored.revision;
      done = now_done;
      idle.restart();
      if (progress) {
        progress({stored.head.name, stored.head.state, done, 0, {}});
      }
    }
    if (has_ended(stored.head.state)) return view(stored.head);
    if (!idle.pause(kFollowPollMs)) {
      return deadline_exceeded("backup {} is {} and has not moved for {} s; it can be resumed",
                               stored.head.name, name_of(stored.head.state),
                               options_.idle_timeout_ms / 1000);
    }
  }
}

absl::StatusOr<std::vector<BackupView>> ClusterClientImpl::backup_list() {
  SLUICE_ASSIGN_OR_RETURN(const BackupList list, list_backups(block()));
  std::vector<BackupView> views;
  for (const StoredBackup& stored : list.backups) {
    auto loaded = view(stored.head);
    // Deleted since it was listed, or details of it are damaged: the others are listed all the
    // same.
    views.push_back(loaded.ok() ? *std::move(loaded) : view_of(stored.head, {}));
  }
  for (const UnreadableBackup& bad : list.unreadable) {
    BackupView view;
    view.uuid = bad.uuid;
    view.backup = bad.name.empty() ? bad.uuid : bad.name;
    view.state = BackupState::kFailed;
    view.reason = message_of(bad.status);
    views.push_back(std::move(view));
  }
  return views;
}

absl::StatusOr<BackupView> ClusterClientImpl::backup_show(std::string_view backup) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(block(), backup));
  return view(stored.head);
}

absl::StatusOr<VerifyResult> ClusterClientImpl::backup_verify(std::string_view backup,
                                                              const VerifyCallback& progress) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(block(), backup));
  v1::BackupRequest request;
  request.set_backup(stored.head.uuid);
  VerifyResult result;
  bool complete = false;
  const absl::Status status = ask_any({}, [&](PeerNode& node, grpc::ClientContext& context) {
    set_timeout(context, kLongestJobMs);
    result = {};
    complete = false;
    const auto reader = node.serving().VerifyBackup(&context, request);
    v1::VerifyUpdate update;
    while (reader->Read(&update)) {
      for (const v1::Problem& problem : update.bad()) result.bad.push_back(problem_of(problem));
      for (const v1::Problem& problem : update.unreadable()) {
        result.unreadable.push_back(problem_of(problem));
      }
      if (update.last()) {
        complete = true;
        result.blocks = update.blocks();
        result.bytes = update.bytes();
      } else if (progress) {
        progress(update.done(), update.total());
      }
    }
    return reader->Finish();
  });
  SLUICE_RETURN_IF_ERROR(status);
  if (!complete) return unavailable("the verification of backup {} ended early", stored.head.name);
  return result;
}

absl::StatusOr<BackupView> ClusterClientImpl::backup_cancel(std::string_view backup) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(block(), backup));
  v1::BackupRequest request;
  request.set_backup(stored.head.uuid);
  // Its coordinator knows best.
  SLUICE_RETURN_IF_ERROR(
      ask_any(stored.head.coordinator, [&](PeerNode& node, grpc::ClientContext& context) {
        v1::Empty reply;
        return node.serving().CancelBackup(&context, request, &reply);
      }));
  return backup_show(stored.head.uuid);
}

absl::StatusOr<std::vector<OrphanView>> ClusterClientImpl::backup_orphans() {
  SLUICE_ASSIGN_OR_RETURN(const auto orphans, list_orphans(block()));
  std::vector<OrphanView> views;
  for (const OrphanedPart& orphan : orphans) {
    views.push_back({orphan.name, orphan.backup, orphan.node, orphan.path, orphan.created_ms});
  }
  return views;
}

absl::Status ClusterClientImpl::backup_delete(std::string_view backup, bool force) {
  SLUICE_ASSIGN_OR_RETURN(const std::string uuid, find_backup(block(), backup));
  v1::BackupRequest request;
  request.set_backup(uuid);
  request.set_force(force);
  return ask_any({}, [&](PeerNode& node, grpc::ClientContext& context) {
    set_timeout(context, options_.idle_timeout_ms);
    v1::Empty reply;
    return node.serving().DeleteBackup(&context, request, &reply);
  });
}

namespace {

// Half of its time: what is busy for less waits for something else.
constexpr double kBusy = 0.5;

ScheduledNode::Bottleneck bottleneck_in(DataStage stage) {
  switch (stage) {
    case DataStage::kWire:
      return ScheduledNode::Bottleneck::kLink;
    case DataStage::kDisk:
      return ScheduledNode::Bottleneck::kDisk;
    default:
      return ScheduledNode::Bottleneck::kCpu;
  }
}

ScheduledNode scheduled_node(const Plan& plan, size_t index,
                             const std::vector<StageReport>& stages) {
  const PlanNode& node = plan.nodes[index];
  const NodeLoad& load = plan.loads[index];
  ScheduledNode scheduled;
  scheduled.name = node.name;
  scheduled.predicted_s = std::max(static_cast<double>(load.send_bytes) / node.send_rate,
                                   static_cast<double>(load.receive_bytes) / node.receive_rate);
  std::vector<StageReport> own;
  for (const StageReport& stage : stages) {
    if (stage.node != node.name) continue;
    own.push_back(stage);
    scheduled.actual_s =
        std::max(scheduled.actual_s, static_cast<double>(stage.busy_ms + stage.wait_ms) / 1000);
  }
  if (const StageReport* busiest = bottleneck_of(own); busiest != nullptr) {
    scheduled.bottleneck = busiest->busy_share() < kBusy ? ScheduledNode::Bottleneck::kWaiting
                                                         : bottleneck_in(busiest->stage);
  }
  return scheduled;
}

}  // namespace

std::string_view name_of(ScheduledNode::Bottleneck bottleneck) {
  constexpr std::string_view kNames[] = {"", "waiting", "disk", "link", "cpu"};
  return kNames[static_cast<size_t>(bottleneck)];
}

absl::StatusOr<ScheduleView> ClusterClientImpl::schedule_show(std::string_view backup) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(block(), backup));
  ScheduleView view;
  SLUICE_ASSIGN_OR_RETURN(view.backup, this->view(stored.head));
  if (stored.head.plan_chunks == 0) return view;
  SLUICE_ASSIGN_OR_RETURN(const Plan plan, load_plan(block(), stored.head));
  SLUICE_ASSIGN_OR_RETURN(const auto progress, load_progress(block(), stored.head.uuid));
  if (!has_ended(stored.head.state)) {
    for (const NodeProgress& one : progress) {
      view.backup.stages.insert(view.backup.stages.end(), one.stages.begin(), one.stages.end());
    }
  }
  for (size_t n = 0; n < plan.nodes.size(); ++n) {
    view.nodes.push_back(scheduled_node(plan, n, view.backup.stages));
  }
  const auto find = [&](const std::string& node) -> const NodeProgress* {
    for (const NodeProgress& one : progress) {
      if (one.node == node && one.attempt == stored.head.attempt) return &one;
    }
    return nullptr;
  };
  for (const SlotPlan& slot : plan.slots) {
    const std::string& target = plan.nodes[slot.target].name;
    const NodeProgress* receiving = find(target);
    for (const PlanCopy& copy : plan.senders_of(slot)) {
      const std::string& source = plan.nodes[copy.node].name;
      const NodeProgress* sending = find(source);
      // A copy is as far as its target's part is, or its source's.
      BackupState state = stored.head.state == BackupState::kPlanning ? BackupState::kPlanning
                                                                      : BackupState::kEnabled;
      if (sending != nullptr && sending->source_state == BackupState::kSent) {
        state = BackupState::kSent;
      }
      if (receiving != nullptr && (receiving->target_state == BackupState::kCopyCompleted ||
                                   receiving->target_state == BackupState::kConsolidated)) {
        state = receiving->target_state;
      }
      if (has_ended(stored.head.state)) state = stored.head.state;
      view.copies.push_back({slot.slot, source, target, state, !slot.agreed, copy.bytes});
    }
  }
  return view;
}

}  // namespace sluice

#include "control/restore/restore_jobs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/deadline.h"
#include "base/status.h"
#include "base/text.h"

namespace sluice {

namespace {

constexpr int kCancelTries = 20;
constexpr int64_t kReleaseMs = 10'000;
constexpr int64_t kReleasePauseMs = 50;

absl::StatusOr<bool> is_locked(ClusterBlock& block, const std::string& id) {
  SLUICE_ASSIGN_OR_RETURN(const auto lock, block.get(restore_lock_key(id)));
  return lock.has_value();
}

}  // namespace

absl::StatusOr<RestoreView> view_restore(ClusterBlock& block, const RestoreHead& head) {
  RestoreView view;
  view.restore = head.id;
  view.backup = head.name;
  view.state = head.state;
  view.reason = head.reason;
  view.prefix = head.mapping.prefix;
  if (head.mapping.renames) view.renamed = head.mapping.renamed;
  view.on_conflict = head.on_conflict;
  view.delete_extra = head.delete_extra;
  view.records = head.records;
  view.written = head.written;
  view.kept_newer = head.kept_newer;
  view.kept_deleted = head.kept_deleted;
  view.restored_over = head.restored_over;
  view.deleted_extra = head.deleted_extra;
  view.failed = head.failed;
  view.failed_deletions = head.failed_deletions + head.extra_left;
  view.created_ms = head.created_ms;
  view.changed_ms = head.changed_ms;
  SLUICE_ASSIGN_OR_RETURN(const auto position, load_position(block, head));
  if (position.has_value()) {
    view.stage = position->stage;
    view.bytes_done = position->bytes_done;
    view.bytes_total = position->bytes_total;
    view.bytes_per_second = position->bytes_per_second;
    view.changed_ms = std::max(view.changed_ms, position->changed_ms);
  }
  if (head.state != RestoreState::kRunning) {
    view.stage.clear();
    // Of one that came to its end.
    if (!is_resumable(head.state)) view.bytes_done = view.bytes_total;
    return view;
  }
  SLUICE_ASSIGN_OR_RETURN(const bool driven, is_locked(block, head.id));
  if (!driven) {
    view.state = RestoreState::kFailed;
    view.reason = fmt::format(
        "the process that drove it is gone; 'sluice restore resume {}' goes on with it", head.id);
  } else if (view.bytes_per_second > 0 && view.bytes_total > 0) {
    view.seconds_left =
        static_cast<double>(view.bytes_total - std::min(view.bytes_total, view.bytes_done)) /
        static_cast<double>(view.bytes_per_second);
  }
  return view;
}

absl::StatusOr<std::vector<RestoreView>> view_restores(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(auto heads, list_restores(block));
  std::stable_sort(heads.begin(), heads.end(), [](const RestoreHead& a, const RestoreHead& b) {
    return a.created_ms < b.created_ms;
  });
  std::vector<RestoreView> views;
  for (const RestoreHead& head : heads) {
    SLUICE_ASSIGN_OR_RETURN(RestoreView view, view_restore(block, head));
    views.push_back(std::move(view));
  }
  return views;
}

absl::StatusOr<StoredRestore> find_restore(ClusterBlock& block, std::string_view restore) {
  SLUICE_ASSIGN_OR_RETURN(const auto heads, list_restores(block));
  std::vector<std::string> found;
  for (const RestoreHead& head : heads) {
    if (head.id == restore) {
      found = {head.id};
      break;
    }
    if (head.name == restore || head.backup == restore) found.push_back(head.id);
  }
  if (found.empty()) {
    return not_found("no restore '{}'; 'sluice restore list' names them", printable(restore, 100));
  }
  if (found.size() > 1) {
    return failed_precondition("several restores are of backup {}, name one: {}",
                               printable(restore, 100), fmt::join(found, ", "));
  }
  SLUICE_ASSIGN_OR_RETURN(StoredRestore stored, load_restore(block, found.front()));
  if (stored.revision == 0) return not_found("no restore {}", found.front());
  return stored;
}

// The head's change alone ends it: parts and driver watch the head, and store nothing under another
// revision.
absl::Status cancel_restore(ClusterBlock& block, Clock& clock, std::string_view restore) {
  SLUICE_ASSIGN_OR_RETURN(StoredRestore stored, find_restore(block, restore));
  for (int tries = 0; stored.head.state != RestoreState::kCancelled; ++tries) {
    if (tries == kCancelTries) return aborted("restore {} keeps changing", stored.head.id);
    RestoreHead head = stored.head;
    if (!is_resumable(head.state)) {
      return failed_precondition("restore {} is {} already", head.id, name_of(head.state));
    }
    head.state = RestoreState::kCancelled;
    head.reason = "cancelled by the operator";
    head.driven = false;
    head.changed_ms = clock.wall_ms();
    const auto swapped =
        block.compare_and_swap(restore_head_key(head.id), encode(head), stored.revision);
    if (!swapped.ok() && !absl::IsAborted(swapped.status())) return swapped.status();
    SLUICE_ASSIGN_OR_RETURN(stored, load_restore(block, head.id));
    if (stored.revision == 0) return not_found("no restore {}", head.id);
  }
  Deadline deadline(clock, kReleaseMs);
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool driven, is_locked(block, stored.head.id));
    if (!driven || !deadline.pause(kReleasePauseMs)) return absl::OkStatus();
  }
}

}  // namespace sluice

#include "control/restore/restore_job.h"

#include <algorithm>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "base/text.h"
#include "control/peers/rpc.h"
#include "control/restore/restore_extra.h"
#include "control/restore/restore_moment.h"
#include "control/restore/restore_stages.h"

namespace sluice {

namespace {

constexpr size_t kDifferencesNamed = 64;

}  // namespace

// Each slot needs a live replica to take its records; records whose other replicas are down end on
// the retry list.
absl::Status RestoreJob::check_destination() {
  SLUICE_RETURN_IF_ERROR(cluster_.directory().refresh());
  const auto snapshot = cluster_.directory().snapshot();
  if (snapshot->table == nullptr) return unavailable("the cluster has no distribution table yet");
  size_t dead = 0;
  uint32_t first = 0;
  for (uint32_t slot = 0; slot < snapshot->table->slots(); ++slot) {
    const auto replicas = snapshot->table->replicas_of(slot);
    const bool lives = std::any_of(replicas.begin(), replicas.end(), [&](uint16_t member) {
      return snapshot->live(snapshot->table->members()[member].name);
    });
    if (!lives && dead++ == 0) first = slot;
  }
  if (dead == 0) return absl::OkStatus();
  return unavailable("no replica of {} slots (slot {} first) is live", dead, first);
}

// Whether all nodes are known to hold nothing.
absl::StatusOr<bool> RestoreJob::is_empty() {
  Patience patience = cluster_.patience();
  patience.gone_ms = 0;
  SLUICE_ASSIGN_OR_RETURN(const NodeDigests digests, read_digests(cluster_, patience));
  const auto empty = [](const SlotDigest& digest) { return digest.empty(); };
  return digests.size() == cluster_.directory().snapshot()->table->members().size() &&
         std::all_of(digests.begin(), digests.end(), [&](const auto& node) {
           return std::all_of(node.second.begin(), node.second.end(), empty);
         });
}

absl::StatusOr<std::unique_ptr<Job>> RestoreJob::take(const std::string& id,
                                                      const std::string& name) {
  return Job::take(cluster_.block(),
                   {fmt::format("restore {}", name), restore_head_key(id), restore_lock_key(id)},
                   "restoring",
                   {"this process", &cluster_.clock(), kBlockPatienceMs, kBlockPatienceMs});
}

absl::Status RestoreJob::load() {
  SLUICE_ASSIGN_OR_RETURN(stored_, load_restore(cluster_.block(), outcome_.restore));
  job_->adopt(stored_.revision, stored_.head.attempt);
  return absl::OkStatus();
}

absl::Status RestoreJob::store(RestoreHead head) {
  head.changed_ms = cluster_.clock().wall_ms();
  SLUICE_RETURN_IF_ERROR(job_->store({encode(head), head.attempt}));
  stored_ = {std::move(head), job_->head()};
  return absl::OkStatus();
}

// Resumes an interrupted restore of the same archive; one that ended is restarted. So is one that
// undoes, unless it was asked to go on at its moment: whoever runs a restore expects it to undo all
// that was written before it was run.
absl::Status RestoreJob::begin(const RestoreHead& wanted, bool at_its_moment) {
  constexpr int kTries = 3;
  absl::Status status;
  // An attempt that lost its lock a moment ago may change the head once more.
  for (int i = 0; i < kTries; ++i) {
    SLUICE_RETURN_IF_ERROR(load());
    const RestoreHead& before = stored_.head;
    if (stored_.revision != 0 && (before.mapping.prefix != wanted.mapping.prefix ||
                                  before.mapping.renames != wanted.mapping.renames ||
                                  before.mapping.renamed != wanted.mapping.renamed)) {
      return already_exists("restore {} is one of another prefix", wanted.id);
    }
    if (at_its_moment && (stored_.revision == 0 || !is_resumable(before.state))) {
      return failed_precondition("restore {} is {} meanwhile", wanted.id, name_of(before.state));
    }
    RestoreHead head = wanted;
    const bool same_archive =
        stored_.revision != 0 && before.manifest_digest == wanted.manifest_digest;
    const bool undoes = wanted.on_conflict == OnConflict::kArchive;
    const bool same_work = same_archive && before.on_conflict == wanted.on_conflict &&
                           before.delete_extra == wanted.delete_extra;
    const bool resumes = same_work && before.progress != 0 && is_resumable(before.state) &&
                         (!undoes || at_its_moment);
    head.created_ms = cluster_.clock().wall_ms();
    head.attempt = before.attempt + 1;
    head.driven = true;
    head.state = RestoreState::kRunning;
    head.reason.clear();
    head.extra_left = 0;
    // What is listed stays listed until this attempt has ended.
    if (same_archive && !defect(Defect::kListsGoAtTheBeginning)) {
      head.lists = before.lists;
      head.failed = before.failed;
      head.failed_deletions = before.failed_deletions;
    }
    if (resumes) {
      head.created_ms = before.created_ms;
      head.into_empty = before.into_empty;
      head.progress = before.progress;
      head.mapping.restamp = before.mapping.restamp;
      head.deleted_extra = before.deleted_extra;
    } else {
      if (undoes) {
        SLUICE_ASSIGN_OR_RETURN(head.mapping.restamp, take_moment(cluster_));
      }
      SLUICE_ASSIGN_OR_RETURN(head.into_empty, is_empty());
      head.progress = head.attempt;
    }
    status = store(std::move(head));
    if (!absl::IsAborted(status)) break;
  }
  SLUICE_RETURN_IF_ERROR(status);
  // Left by attempts that ended by a crash; what cannot be erased now is erased later.
  erase_unnamed(cluster_.block(), stored_).IgnoreError();
  return absl::OkStatus();
}

absl::StatusOr<RestoreOutcome> RestoreJob::run(RestoreHead head) {
  outcome_.undoes = head.on_conflict == OnConflict::kArchive;
  outcome_.dry_run = request_.dry_run;
  if (!request_.dry_run) return drive(head, /*at_its_moment=*/false);
  const int64_t start = cluster_.clock().monotonic_ns();
  outcome_.restore = head.id;
  SLUICE_RETURN_IF_ERROR(check_destination());
  SLUICE_RETURN_IF_ERROR(foresee(head));
  outcome_.seconds = static_cast<double>(cluster_.clock().monotonic_ns() - start) / 1e9;
  return outcome_;
}

absl::StatusOr<RestoreOutcome> RestoreJob::resume(const RestoreHead& head) {
  if (!is_resumable(head.state)) {
    return failed_precondition(
        "restore {} is {}, there is nothing to resume: to restore again, run 'sluice restore {}'",
        head.id, name_of(head.state), head.name);
  }
  return drive(head, /*at_its_moment=*/true);
}

absl::StatusOr<RestoreOutcome> RestoreJob::drive(const RestoreHead& head, bool at_its_moment) {
  const int64_t start = cluster_.clock().monotonic_ns();
  outcome_.restore = head.id;
  outcome_.undoes = head.on_conflict == OnConflict::kArchive;
  SLUICE_RETURN_IF_ERROR(check_destination());
  auto taken = take(head.id, head.name);
  if (absl::IsAborted(taken.status())) {
    return already_exists("backup {} is being restored into this cluster already", head.name);
  }
  SLUICE_ASSIGN_OR_RETURN(job_, std::move(taken));
  SLUICE_RETURN_IF_ERROR(begin(head, at_its_moment));
  report_stage("restoring");
  if (absl::Status status = end(run_parts(false), false); !status.ok()) return overtaken(status);
  outcome_.seconds = static_cast<double>(cluster_.clock().monotonic_ns() - start) / 1e9;
  return outcome_;
}

// Somebody else has changed the head: another process that drives it, or an operator who has
// cancelled the restore.
absl::StatusOr<RestoreOutcome> RestoreJob::overtaken(const absl::Status& status) {
  if (!absl::IsAborted(status)) return status;
  const auto now = load_restore(cluster_.block(), outcome_.restore);
  if (!now.ok() || now->head.state != RestoreState::kCancelled) return status;
  outcome_.state = RestoreState::kCancelled;
  outcome_.reason = now->head.reason;
  return outcome_;
}

// What a restore would do. The cluster's other keys are told from those of the archive by counting.
absl::Status RestoreJob::foresee(const RestoreHead& head) {
  RestoreParts::Work work;
  work.dry_run = true;
  std::vector<RestoreParts::Ended> ended;
  SLUICE_RETURN_IF_ERROR(parts_.run(head, work, &ended));
  for (const RestoreParts::Ended& each : ended) add(each.result);
  outcome_.state = RestoreState::kCompleted;
  SLUICE_RETURN_IF_ERROR(check_matches());
  if (head.on_conflict != OnConflict::kArchive) return absl::OkStatus();
  outcome_.restored_over = outcome_.kept_newer + outcome_.kept_deleted;
  outcome_.kept_newer = outcome_.kept_deleted = 0;
  if (!head.delete_extra) return absl::OkStatus();
  v1::CountRequest request;
  request.set_prefix(head.mapping.target_prefix());
  request.set_slots(cluster_.cluster().slots());
  absl::Status status = unavailable("no node is live");
  for (const std::string& node : cluster_.directory().snapshot()->live_names()) {
    v1::CountReply reply;
    status = call_patiently(cluster_.peers(), node, cluster_.patience(),
                            [&](PeerNode& peer, grpc::ClientContext& call) {
                              return peer.serving().Count(&call, request, &reply);
                            });
    if (!status.ok()) continue;
    outcome_.deleted_extra = reply.count() - std::min(reply.count(), live_here_);
    break;
  }
  return status;
}

// A prefix that is mistyped must not look like a restore, and must delete nothing.
absl::Status RestoreJob::check_matches() const {
  const std::string& prefix = request_.prefix;
  if (prefix.empty() || outcome_.records > 0) return absl::OkStatus();
  return not_found("no record of the backup has a key that begins with '{}': nothing was restored",
                   printable(prefix, 200));
}

// Whether this attempt may still change something.
absl::Status RestoreJob::stop_status() {
  SLUICE_RETURN_IF_ERROR(job_->hold());
  return job_->check_unchanged();
}

// After everything else has been written: only then is what is older than the moment no record of
// the archive.
absl::Status RestoreJob::delete_extra_keys() {
  report_stage("deleting");
  ExtraDeletion deletion;
  deletion.cluster = &cluster_;
  deletion.prefix = stored_.head.mapping.target_prefix();
  deletion.moment = stored_.head.mapping.restamp;
  Mutex mutex;  // the job is confined to one thread at a time
  deletion.check = [&] {
    const MutexLock lock(mutex);
    return stop_status();
  };
  SLUICE_ASSIGN_OR_RETURN(const ExtraDeleted deleted, delete_extra(deletion));
  outcome_.deleted_extra += deleted.deleted;
  outcome_.extra_left = deleted.left;
  outcome_.extra_reason = deleted.reason;
  return absl::OkStatus();
}

void RestoreJob::report(RestoreProgress progress) {
  if (!progress_) return;
  if (job_ != nullptr) progress.restore = outcome_.restore;
  progress_(progress);
}

void RestoreJob::keep_position(const RestoreProgress& progress) {
  const MutexLock lock(position_mutex_);
  last_progress_ = progress;
  if (position_ != nullptr) position_->set(progress);
}

void RestoreJob::report_stage(std::string_view stage) {
  RestoreProgress progress;
  {
    const MutexLock lock(position_mutex_);
    last_progress_.stage = stage;
    if (position_ != nullptr) position_->set(last_progress_);
    progress = last_progress_;
  }
  report(std::move(progress));
}

absl::StatusOr<RestoreOutcome> RestoreJob::retry(const std::string& id) {
  const int64_t start = cluster_.clock().monotonic_ns();
  outcome_.restore = id;
  SLUICE_RETURN_IF_ERROR(check_destination());
  auto taken = take(id, id);
  if (absl::IsAborted(taken.status())) return already_exists("restore {} is running", id);
  SLUICE_ASSIGN_OR_RETURN(job_, std::move(taken));
  SLUICE_RETURN_IF_ERROR(load());
  if (stored_.revision == 0) return not_found("no restore {}", id);
  // Of another one's records it is not known that they were all sent.
  if (stored_.head.state != RestoreState::kCompletedWithFailures) {
    return failed_precondition("restore {} is {}: run the restore again", id,
                               name_of(stored_.head.state));
  }
  SLUICE_ASSIGN_OR_RETURN(const FailedCounts listed, count_failed(cluster_.block(), stored_.head));
  if (listed.units == 0 && stored_.head.extra_left == 0) {
    return data_loss(
        "restore {}: {} records failed, but the retry list is empty: run the restore "
        "again",
        id, stored_.head.failed);
  }
  RestoreHead head = stored_.head;
  ++head.attempt;
  head.driven = true;
  SLUICE_RETURN_IF_ERROR(store(std::move(head)));
  if (absl::Status status = end(run_parts(true), true); !status.ok()) return overtaken(status);
  outcome_.seconds = static_cast<double>(cluster_.clock().monotonic_ns() - start) / 1e9;
  return outcome_;
}

absl::Status RestoreJob::run_parts(bool retry) {
  RestoreParts::Work work;
  work.retry = retry;
  std::vector<RestoreParts::Ended> ended;
  const std::vector<StageReport> before = read_stages(cluster_);
  {
    const MutexLock lock(position_mutex_);
    last_progress_ = {};
    position_ =
        std::make_unique<PositionKeeper>(cluster_.block(), cluster_.clock(), fence_of(stored_));
  }
  const absl::Status status = parts_.run(stored_.head, work, &ended);
  outcome_.stages = stages_since(before, read_stages(cluster_));
  lists_ = stored_.head.lists;
  for (const RestoreParts::Ended& each : ended) {
    if (!each.status.ok() && !absl::IsCancelled(each.status)) continue;
    add(each.result);
    // A retry that was cancelled has stored no list: the one before holds.
    if (retry && each.result.cancelled() && !defect(Defect::kCancelledRetryLosesList)) continue;
    std::erase_if(lists_, [&](const RestoreList& list) {
      return std::find(each.parts.begin(), each.parts.end(), list.part) != each.parts.end();
    });
    for (const std::string& part : each.result.listed()) lists_.push_back({part, each.list});
  }
  return status;
}

void RestoreJob::add(const v1::RestorePartResult& part) {
  outcome_.records += part.records();
  outcome_.bytes += part.bytes();
  outcome_.written += part.written();
  outcome_.kept_newer += part.kept_newer() - std::min(part.kept_newer(), part.kept_deleted());
  outcome_.kept_deleted += part.kept_deleted();
  outcome_.restored_over += part.replaced();
  live_here_ += part.live_here();
  outcome_.retried += part.retried();
  archive_bits_ = std::max(archive_bits_, part.slot_bits());
  const std::vector<StageReport> stages = stages_of(part.stages());
  part_stages_.insert(part_stages_.end(), stages.begin(), stages.end());
  for (const auto& node : part.nodes()) {
    RestoreNode& sum = nodes_[node.name()];
    sum.name = node.name();
    sum.records += node.records();
    sum.bytes += node.bytes();
  }
  for (const auto& slot : part.expected()) {
    SlotDigest digest;
    ByteReader reader{std::string_view(slot.digest())};
    if (!SlotDigest::decode(reader, &digest)) continue;
    // With other slot_bits several parts may have records of one slot.
    SlotDigest& sum = expected_[slot.slot()];
    sum.sum += digest.sum;
    sum.records += digest.records;
    sum.tombstones += digest.tombstones;
    sum.bytes += digest.bytes;
  }
}

// A copy that equals the archive by its digest is proved. Another one has to hold every record of
// it, at its version or a newer one: others may have written meanwhile, also into a cluster that
// was empty.
absl::Status RestoreJob::prove(bool retry) {
  if (defect(Defect::kProgressBySlot)) return absl::OkStatus();
  report_stage("comparing");
  SLUICE_RETURN_IF_ERROR(
      with_patience(cluster_.clock(), [this] { return cluster_.directory().refresh(); }));
  SLUICE_ASSIGN_OR_RETURN(const NodeDigests digests, read_digests(cluster_, cluster_.patience()));
  const auto table = cluster_.directory().snapshot()->table;
  // A retry of records that were picked or regrouped does not know what the slots hold as a whole.
  const bool known = !expected_.empty() || (!retry && outcome_.records == 0);
  DigestComparison comparison = compare_digests(*table, digests, known ? &expected_ : nullptr,
                                                stored_.head.into_empty || !known);
  const std::set<SlotCopy> suspect = comparison.differing;
  if (!suspect.empty()) SLUICE_RETURN_IF_ERROR(find_lacking(comparison, suspect));
  RestoreProof& proof = outcome_.proof;
  proof.checked = true;
  proof.copies = comparison.copies;
  proof.equal = comparison.equal;
  proof.differing = comparison.differing.size();
  proof.unreachable = comparison.unreachable.size();
  proof.newer = proof.copies - proof.equal - proof.differing - proof.unreachable;
  for (const auto& [slot, node] : comparison.differing) {
    if (proof.first_differing.size() == kDifferencesNamed) break;
    proof.first_differing.push_back({slot, node});
  }
  return judge(comparison);
}

// Of copies whose digests differ, leaves those as differing that lack records.
absl::Status RestoreJob::find_lacking(DigestComparison& comparison,
                                      const std::set<SlotCopy>& suspect) {
  RestoreParts::Work work;
  work.check = true;
  work.check_slots = archive_slots_of(suspect, cluster_.cluster().slot_bits, archive_bits_);
  // Keys with other names may come from any slot.
  if (stored_.head.mapping.renames) {
    for (uint32_t slot = 0; slot < uint32_t{1} << archive_bits_; ++slot) {
      work.check_slots.insert(slot);
    }
  }
  std::vector<RestoreParts::Ended> ended;
  SLUICE_RETURN_IF_ERROR(parts_.run(stored_.head, work, &ended));
  comparison.differing.clear();
  std::set<std::string> unreachable;
  for (const RestoreParts::Ended& each : ended) {
    for (const auto& lacking : each.result.lacking()) {
      for (const uint32_t slot : lacking.slots()) {
        // Of slots that were equal by their digests, nothing can be lacking.
        if (suspect.contains({slot, lacking.node()})) {
          comparison.differing.emplace(slot, lacking.node());
        }
      }
    }
    for (const std::string& node : each.result.unreachable()) unreachable.insert(node);
  }
  for (const SlotCopy& copy : suspect) {
    if (unreachable.contains(copy.second) && !comparison.differing.contains(copy)) {
      comparison.unreachable.insert(copy);
    }
  }
  return absl::OkStatus();
}

absl::Status RestoreJob::judge(const DigestComparison& comparison) {
  const RestoreProof& proof = outcome_.proof;
  if (!comparison.differing.empty()) {
    const auto& [slot, node] = *comparison.differing.begin();
    outcome_.state = RestoreState::kFailed;
    outcome_.reason = fmt::format(
        "{} of {} slot copies lack records of the archive, first slot {} of {}; "
        "run again, it restores these slots once more",
        proof.differing, proof.copies, slot, node);
    // What was done there does not count next time.
    SLUICE_RETURN_IF_ERROR(forget(comparison.differing));
  } else if (!comparison.unreachable.empty()) {
    const auto& [slot, node] = *comparison.unreachable.begin();
    outcome_.state = RestoreState::kFailed;
    outcome_.reason = fmt::format(
        "all records are written, but {} of {} slot copies could not be compared with the archive, "
        "first slot {} of {}; run again when all nodes are live",
        proof.unreachable, proof.copies, slot, node);
  }
  return absl::OkStatus();
}

absl::Status RestoreJob::forget(const std::set<SlotCopy>& copies) {
  // Of keys with other names, no progress is kept.
  if (stored_.head.mapping.renames) return absl::OkStatus();
  const std::set<uint32_t> slots =
      archive_slots_of(copies, cluster_.cluster().slot_bits, archive_bits_);
  const RestoreFence fence = fence_of(stored_);
  for (const RestoreSource& source : stored_.head.sources) {
    SLUICE_ASSIGN_OR_RETURN(DurableSlots progress,
                            load_progress(cluster_.block(), fence, source.part));
    std::set<uint32_t> chunks;
    for (const uint32_t slot : slots) {
      if (!progress.slots().contains(slot)) continue;
      progress.remove(slot);
      chunks.insert(progress_chunk(slot));
    }
    for (const uint32_t chunk : chunks) {
      SLUICE_RETURN_IF_ERROR(with_patience(cluster_.clock(), [&] {
        return store_progress(cluster_.block(), fence, source.part, chunk,
                              encode_progress(progress, chunk));
      }));
    }
  }
  return absl::OkStatus();
}

// Blocks of the archive that failed their check are on the retry list with the others, but no retry
// can write them.
void RestoreJob::tell_failures(const FailedCounts& counts) {
  outcome_.failed = counts.records;
  outcome_.failed_deletions = counts.deletions;
  outcome_.damaged = counts.damaged;
  outcome_.causes = counts.causes;
  std::string reason;
  for (const RestoreCause& cause : counts.causes) {
    if (!reason.empty()) reason += "; ";
    std::string what = fmt::format("{} records", cause.records);
    if (cause.deletions > 0) what += fmt::format(" and {} deletions", cause.deletions);
    reason += cause.damaged
                  ? fmt::format("{} are in {} damaged blocks of the {} and cannot be read: {}",
                                what, cause.blocks, cause.node, cause.reason)
                  : fmt::format("{} because of {}: {}", what,
                                cause.node.empty() ? "their route" : cause.node, cause.reason);
  }
  outcome_.reason = reason;
}

// Deletions that a replica lacks are left, as records on the retry list are.
void RestoreJob::tell_extra() {
  if (outcome_.extra_left == 0) return;
  outcome_.failed_deletions += outcome_.extra_left;
  if (!outcome_.reason.empty()) outcome_.reason += "; ";
  outcome_.reason +=
      fmt::format("{} deletions of keys that the archive does not have are not on all replicas: {}",
                  outcome_.extra_left, outcome_.extra_reason);
}

absl::Status RestoreJob::end(const absl::Status& status, bool retry) {
  if (absl::IsAborted(status)) return status;
  for (auto& [name, node] : nodes_) outcome_.nodes.push_back(node);
  outcome_.stages.insert(outcome_.stages.begin(), part_stages_.begin(), part_stages_.end());
  RestoreHead head = stored_.head;
  head.lists = lists_;
  FailedCounts counts;
  SLUICE_RETURN_IF_ERROR(with_patience(cluster_.clock(), [&]() -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(counts, count_failed(cluster_.block(), head));
    return absl::OkStatus();
  }));
  tell_failures(counts);
  absl::Status ended = status;
  if (ended.ok() && !retry && counts.units == 0) ended = check_matches();
  if (ended.ok() && counts.units == 0 && head.delete_extra) {
    ended = delete_extra_keys();
    if (absl::IsAborted(ended)) return ended;
    head.extra_left = outcome_.extra_left;
    head.extra_reason = outcome_.extra_reason;
    tell_extra();
  }
  if (ended.ok() && (counts.units > 0 || head.extra_left > 0)) {
    outcome_.state = RestoreState::kCompletedWithFailures;
  } else if (ended.ok()) {
    outcome_.state = RestoreState::kCompleted;
    ended = prove(retry);
    if (absl::IsAborted(ended)) return ended;
  }
  if (!ended.ok()) {
    outcome_.state = absl::IsCancelled(ended) ? RestoreState::kCancelled : RestoreState::kFailed;
    outcome_.reason = message_of(ended);
    outcome_.data_bad = absl::IsDataLoss(ended);
  }
  // A retry that could not be driven as a whole leaves the state as it is; one that could not be
  // proved has nothing left to drive.
  if (!retry || ended.ok() || (counts.units == 0 && head.extra_left == 0)) {
    head.state = outcome_.state;
    head.reason = outcome_.reason;
  }
  head.failed = counts.records;
  head.failed_deletions = counts.deletions;
  head.written = retry ? head.written + outcome_.written : outcome_.written;
  head.kept_newer = retry ? head.kept_newer + outcome_.kept_newer : outcome_.kept_newer;
  head.kept_deleted = retry ? head.kept_deleted + outcome_.kept_deleted : outcome_.kept_deleted;
  head.restored_over = retry ? head.restored_over + outcome_.restored_over : outcome_.restored_over;
  head.deleted_extra += outcome_.deleted_extra;
  if (!retry) {
    head.records = outcome_.records;
    head.bytes = outcome_.bytes;
  }
  {
    const MutexLock lock(position_mutex_);
    position_.reset();
  }
  if (head.state == RestoreState::kCompleted) head.progress = 0;
  head.driven = false;
  SLUICE_RETURN_IF_ERROR(store(std::move(head)));
  // What a crash here leaves is erased by the next attempt.
  erase_unnamed(cluster_.block(), stored_).IgnoreError();
  return absl::OkStatus();
}

}  // namespace sluice

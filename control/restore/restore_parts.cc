#include "control/restore/restore_parts.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/parallel.h"
#include "base/status.h"
#include "control/peers/archive_reference.h"
#include "control/peers/client_exchange.h"
#include "control/peers/patient_call.h"
#include "control/peers/rpc.h"
#include "control/peers/stage_report.h"
#include "dataplane/block/record.h"
#include "dataplane/block/slot_digest.h"

namespace sluice {

namespace {

constexpr int64_t kLongestJobMs = 7 * 24 * 3600 * int64_t{1000};

// Who reads a part does not know what it is called.
void name_stages(const std::string& node, v1::RestorePartResult* result) {
  for (v1::StageReport& stage : *result->mutable_stages()) stage.set_node(node);
}

}  // namespace

ArchivePartId part_id(const RestoreHead& head, const std::string& part) {
  return {head.archive_cluster, head.backup, part, head.manifest_digest};
}

absl::Status check_result(const v1::RestorePartResult& result, uint32_t cluster_slots) {
  if (result.slot_bits() > kMaxSlotBits) {
    return data_loss("an archive of 2^{} slots: at most 2^{}", result.slot_bits(), kMaxSlotBits);
  }
  for (const auto& slot : result.expected()) {
    if (slot.slot() >= cluster_slots) {
      return data_loss("a digest of slot {}, of {} slots", slot.slot(), cluster_slots);
    }
    if (slot.digest().size() != SlotDigest::kEncodedBytes) {
      return data_loss("a digest of {} bytes, of slot {}", slot.digest().size(), slot.slot());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SourceCluster>> SourceCluster::open(ClusterConnection& own,
                                                                   const std::string& url) {
  auto source = std::unique_ptr<SourceCluster>(new SourceCluster(own));
  if (!url.empty()) {
    SLUICE_ASSIGN_OR_RETURN(source->other_, ClusterConnection::open(url, own.options()));
  }
  return source;
}

absl::Status RestoreParts::run(const RestoreHead& head, const Work& work,
                               std::vector<Ended>* ended) {
  std::vector<std::string> here;
  std::vector<std::string> parts_here;
  std::vector<RestoreSource> there;
  for (const RestoreSource& source : head.sources) {
    if (source.node.empty()) {
      here.push_back(source.folder);
      parts_here.push_back(source.part);
    } else {
      there.push_back(source);
    }
  }
  const size_t jobs = there.size() + (here.empty() ? 0 : 1);
  {
    const MutexLock lock(mutex_);
    passed_.clear();
    jobs_ = jobs;
  }
  ended->assign(jobs, {});
  parallel_for(
      jobs,
      [&](size_t i) {
        Ended& each = (*ended)[i];
        if (i < there.size()) {
          each.parts = {there[i].part};
          each.status = run_there(head, there[i], parts_here, work, &each);
        } else {
          each.parts = parts_here;
          each.status = run_here(head, here, parts_here, work, &each);
        }
        if (each.status.ok() && each.result.cancelled()) {
          each.status = cancelled("part {} was cancelled", fmt::join(each.parts, ", "));
        }
      },
      jobs);
  for (const Ended& each : *ended) SLUICE_RETURN_IF_ERROR(each.status);
  return absl::OkStatus();
}

// Each call has a generation of its own: what a call that was given up stores never counts.
std::string RestoreParts::next_list(const RestoreHead& head) {
  const MutexLock lock(mutex_);
  return fmt::format("{}-{}", head.attempt, ++calls_);
}

absl::Status RestoreParts::run_here(const RestoreHead& head,
                                    const std::vector<std::string>& folders,
                                    const std::vector<std::string>& together, const Work& work,
                                    Ended* ended) {
  // Twice as many buffers as requests, for repacking.
  constexpr size_t kRequests = 12;
  const size_t members = cluster_.directory().snapshot()->members.size();
  SLUICE_ASSIGN_OR_RETURN(
      const auto exchange,
      ClientExchange::open(cluster_, "restore",
                           std::max<size_t>(options_.arena_bytes,
                                            ClientExchange::arena_bytes(members, 2 * kRequests))));
  Cancellation cancellation;
  RestoreRun run;
  run.peers = &cluster_.peers();
  run.exchange = &exchange->exchange();
  run.folders = folders;
  run.expected = part_id(head, "");
  run.id = head.id;
  run.attempt = head.attempt;
  run.list = ended->list = next_list(head);
  run.mapping = head.mapping;
  run.retry = work.retry;
  run.dry_run = work.dry_run;
  run.check = work.check;
  run.check_slots = work.check_slots;
  run.together = {together.begin(), together.end()};
  run.cancellation = &cancellation;
  run.requests = std::min(kRequests, exchange->spare_buffers() / 2);
  run.progress = [this](uint64_t done, uint64_t total) { report("", done, total); };
  SLUICE_ASSIGN_OR_RETURN(ended->result, run_restore(run));
  put({report_of("", DataStage::kWire, exchange->exchange().times())},
      ended->result.mutable_stages());
  name_stages("client", &ended->result);
  return absl::OkStatus();
}

// A part whose node breaks off, or is late, is asked for again: what is durable is not sent twice.
absl::Status RestoreParts::run_there(const RestoreHead& head, const RestoreSource& source,
                                     const std::vector<std::string>& together, const Work& work,
                                     Ended* ended) {
  SLUICE_ASSIGN_OR_RETURN(const auto holders, SourceCluster::open(cluster_, head.source_cluster));
  v1::RestorePartRequest request;
  if (!head.source_cluster.empty()) request.set_cluster_url(cluster_.url());
  *request.mutable_archive() = make_reference(part_id(head, source.part), head.name);
  request.set_prefix(head.mapping.prefix);
  request.set_renames(head.mapping.renames);
  request.set_renamed(head.mapping.renamed);
  if (head.mapping.restamps()) {
    request.mutable_restamp()->set_stamp(head.mapping.restamp.stamp);
    request.mutable_restamp()->set_node(head.mapping.restamp.node);
  }
  request.set_restore(head.id);
  request.set_attempt(head.attempt);
  request.set_retry(work.retry);
  request.set_dry_run(work.dry_run);
  request.set_check(work.check);
  for (const std::string& part : together) request.add_together(part);
  if (work.check) request.set_check_slots(slot_bitmap(work.check_slots));
  std::atomic<int64_t> alive_ns{cluster_.clock().monotonic_ns()};
  Patience patience = cluster_.patience();
  patience.call_ms = 0;
  patience.alive_ns = &alive_ns;
  bool last = false;
  SLUICE_RETURN_IF_ERROR(
      call_patiently(holders->connection().peers(), source.node, patience,
                     [&](PeerNode& peer, grpc::ClientContext& call) {
                       ended->list = next_list(head);
                       request.set_list(ended->list);
                       set_timeout(call, kLongestJobMs);
                       const auto reader = peer.serving().RestorePart(&call, request);
                       v1::RestoreUpdate update;
                       while (reader->Read(&update)) {
                         alive_ns = cluster_.clock().monotonic_ns();
                         report(source.part, update.bytes_done(), update.bytes_total());
                         if (!update.has_result()) continue;
                         last = true;
                         ended->result = std::move(*update.mutable_result());
                       }
                       return reader->Finish();
                     }));
  if (!last) return unavailable("{}: ended without a result", source.node);
  if ((head.mapping.renames || head.on_conflict == OnConflict::kArchive) && !ended->result.maps()) {
    return failed_precondition(
        "{} runs an earlier version of sluice, which restores neither over newer records nor under "
        "other names: upgrade it",
        source.node);
  }
  name_stages(source.node, &ended->result);
  return with_context(check_result(ended->result, cluster_.cluster().slots()), source.node);
}

// The last report of a part, and what a check or a count reports, name no total: what was known
// stays.
void RestoreParts::report(const std::string& part, uint64_t done, uint64_t total) {
  const MutexLock lock(mutex_);
  if (total > 0) {
    auto& passed = passed_[part];
    // A part that was asked again begins with what is durable.
    passed = {std::max(passed.first, std::min(done, total)), total};
    if (options_.store) options_.store(sum());
  }
  if (options_.progress) options_.progress(sum());
}

RestoreProgress RestoreParts::sum() const {
  RestoreProgress progress;
  for (const auto& [part, each] : passed_) {
    progress.bytes_done += each.first;
    progress.bytes_total += each.second;
  }
  if (passed_.size() < jobs_) progress.bytes_total = 0;
  return progress;
}

}  // namespace sluice

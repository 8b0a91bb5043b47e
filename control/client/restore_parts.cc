#include "control/client/restore_parts.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/status.h"
#include "control/client/archive_reference.h"
#include "base/parallel.h"
#include "control/client/patient_call.h"
#include "control/client/rpc.h"
#include "drivers/registry.h"

namespace sluice {

namespace {

constexpr int64_t kLongestJobMs = 7 * 24 * 3600 * int64_t{1000};
constexpr size_t kReceiveBlocks = 2;

// What a sender must speak so that every live node understands it.
absl::StatusOr<std::string> common_driver(const Directory::Snapshot& snapshot) {
  const Member* first = nullptr;
  for (const Member& member : snapshot.members) {
    if (!member.live) continue;
    if (first == nullptr) first = &member;
    if (member.info.driver != first->info.driver) {
      return failed_precondition("{} moves blocks by {}, {} by {}: give all nodes the same driver",
                                 first->info.name, first->info.driver, member.info.name,
                                 member.info.driver);
    }
  }
  if (first == nullptr) return unavailable("no node of the cluster is live");
  return first->info.driver;
}

}  // namespace

ArchivePartId part_id(const RestoreHead& head, const std::string& part) {
  return {head.archive_cluster, head.backup, part, head.manifest_digest};
}

absl::StatusOr<std::unique_ptr<SourceCluster>> SourceCluster::open(ClusterClientImpl& client,
                                                                   const std::string& url) {
  auto source = std::unique_ptr<SourceCluster>(new SourceCluster(client));
  if (url.empty()) return source;
  SLUICE_ASSIGN_OR_RETURN(source->block_, open_cluster_block(url));
  SLUICE_ASSIGN_OR_RETURN(source->directory_, Directory::open(*source->block_));
  source->other_ = std::make_unique<Peers>(*source->directory_, client.clock());
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
  ended->assign(jobs, {});
  parallel_for(
      jobs,
      [&](size_t i) {
        Ended& each = (*ended)[i];
        if (i < there.size()) {
          each.parts = {there[i].part};
          each.status = run_there(head, there[i], work, &each);
        } else {
          each.parts = parts_here;
          each.status = run_here(head, here, work, &each);
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
  const std::lock_guard lock(mutex_);
  return fmt::format("{}-{}", head.attempt, ++calls_);
}

absl::Status RestoreParts::run_here(const RestoreHead& head,
                                    const std::vector<std::string>& folders, const Work& work,
                                    Ended* ended) {
  SLUICE_ASSIGN_OR_RETURN(const std::string driver, common_driver(*client_.directory().snapshot()));
  SLUICE_ASSIGN_OR_RETURN(const auto transport, make_transport(driver));
  SLUICE_ASSIGN_OR_RETURN(
      const auto arena,
      Arena::create({.bytes = options_.arena_bytes, .pages = transport->limits().arena_pages}));
  Exchange::Options options;
  options.arena = arena.get();
  options.transport = transport.get();
  options.node = "restore";
  options.own_buffers = 2;
  options.control_buffers = 8;
  options.receive_blocks = kReceiveBlocks;
  SLUICE_ASSIGN_OR_RETURN(const auto exchange, Exchange::open(options));
  Cancellation cancellation;
  RestoreRun run;
  run.peers = &client_.peers();
  run.exchange = exchange.get();
  run.folders = folders;
  run.expected = part_id(head, "");
  run.id = head.id;
  run.attempt = head.attempt;
  run.list = ended->list = next_list(head);
  run.prefix = head.prefix;
  run.retry = work.retry;
  run.dry_run = work.dry_run;
  run.check = work.check;
  run.check_slots = work.check_slots;
  run.cancellation = &cancellation;
  // What the streams leave of the arena, half of it for repacking.
  const size_t streams = 16 + kReceiveBlocks * client_.directory().snapshot()->members.size();
  if (arena->buffers() < streams + 4) {
    return resource_exhausted("an arena of {} MiB is too small for {} nodes: give at least {} MiB",
                              options_.arena_bytes >> 20,
                              client_.directory().snapshot()->members.size(), streams + 8);
  }
  run.requests = std::min<size_t>(12, (arena->buffers() - streams) / 2);
  run.progress = [this](uint64_t bytes) { report("", bytes); };
  SLUICE_ASSIGN_OR_RETURN(ended->result, run_restore(run));
  return absl::OkStatus();
}

// A part whose node breaks off, or is late, is asked for again: what is durable is not sent twice.
absl::Status RestoreParts::run_there(const RestoreHead& head, const RestoreSource& source,
                                     const Work& work, Ended* ended) {
  SLUICE_ASSIGN_OR_RETURN(const auto cluster, SourceCluster::open(client_, head.source_cluster));
  v1::RestorePartRequest request;
  if (!head.source_cluster.empty()) request.set_cluster_url(options_.url);
  *request.mutable_archive() = make_reference(part_id(head, source.part), head.name);
  request.set_prefix(head.prefix);
  request.set_restore(head.id);
  request.set_attempt(head.attempt);
  request.set_retry(work.retry);
  request.set_dry_run(work.dry_run);
  request.set_check(work.check);
  if (work.check) request.set_check_slots(slot_bitmap(work.check_slots));
  std::atomic<int64_t> alive_ns{client_.clock().monotonic_ns()};
  Patience patience;
  patience.limit_ms = client_.options().idle_timeout_ms;
  patience.call_ms = 0;
  patience.alive_ns = &alive_ns;
  bool last = false;
  SLUICE_RETURN_IF_ERROR(call_patiently(
      cluster->peers(), source.node, patience, [&](PeerNode& peer, grpc::ClientContext& call) {
        ended->list = next_list(head);
        request.set_list(ended->list);
        set_timeout(call, kLongestJobMs);
        const auto reader = peer.serving().RestorePart(&call, request);
        v1::RestoreUpdate update;
        while (reader->Read(&update)) {
          alive_ns = client_.clock().monotonic_ns();
          report(source.part, update.bytes_done());
          if (!update.has_result()) continue;
          last = true;
          ended->result = std::move(*update.mutable_result());
        }
        return reader->Finish();
      }));
  if (!last) return unavailable("{}: ended without a result", source.node);
  return absl::OkStatus();
}

void RestoreParts::report(const std::string& part, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  done_[part] = bytes;
  if (!options_.progress) return;
  uint64_t done = 0;
  for (const auto& [name, each] : done_) done += each;
  options_.progress({"running", done, 0, {}});
}

}  // namespace sluice

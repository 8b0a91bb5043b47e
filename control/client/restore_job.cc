#include "control/client/restore_job.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "control/client/archive_reference.h"
#include "control/client/lease_lock.h"
#include "control/client/parallel.h"
#include "control/client/restore_runner.h"
#include "control/client/rpc.h"
#include "drivers/registry.h"

namespace sluice {

namespace {

constexpr int64_t kDigestsMs = 20'000;
constexpr int64_t kLongestJobMs = 7 * 24 * 3600 * int64_t{1000};
constexpr size_t kDifferencesNamed = 64;
constexpr size_t kReceiveBlocks = 2;

// Peers of the cluster that holds an archive, where that is another one.
struct SourceCluster {
  std::unique_ptr<ClusterBlock> block;
  std::unique_ptr<Directory> directory;
  std::unique_ptr<Peers> peers;
};

absl::StatusOr<std::unique_ptr<SourceCluster>> open_source(ClusterClientImpl& client,
                                                           const std::string& url) {
  auto source = std::make_unique<SourceCluster>();
  if (url.empty()) return source;
  SLUICE_ASSIGN_OR_RETURN(source->block, open_cluster_block(url));
  SLUICE_ASSIGN_OR_RETURN(source->directory, Directory::open(*source->block));
  source->peers = std::make_unique<Peers>(*source->directory, client.clock());
  return source;
}

ArchivePartId part_id(const RestoreHead& head, const std::string& node) {
  return {head.archive_cluster, head.backup, node, head.manifest_digest};
}

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

// Each slot needs a live replica to take its records; records whose other replicas are down end on
// the retry list.
absl::Status RestoreJob::check_destination() {
  SLUICE_RETURN_IF_ERROR(client_.directory().refresh());
  const auto snapshot = client_.directory().snapshot();
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

absl::StatusOr<RestoreJob::Digests> RestoreJob::read_digests() {
  const auto names = client_.directory().snapshot()->live_names();
  std::vector<absl::StatusOr<std::vector<SlotDigest>>> answers(names.size());
  parallel_for(names.size(), [&](size_t i) {
    const auto peer = client_.peers().find(names[i]);
    if (!peer.ok()) {
      answers[i] = peer.status();
      return;
    }
    grpc::ClientContext call;
    set_timeout(call, kDigestsMs);
    v1::DigestsRequest request;
    request.set_slots(client_.cluster().slots());
    v1::DigestsReply reply;
    const grpc::Status status = (*peer)->peer().Digests(&call, request, &reply);
    (*peer)->note(status);
    if (status.ok()) {
      answers[i] = decode_digests(reply.digests(), client_.cluster().slots());
    } else {
      answers[i] = from_peer(status, names[i]);
    }
  });
  Digests digests;
  for (size_t i = 0; i < names.size(); ++i) {
    if (answers[i].ok()) {
      digests[names[i]] = *std::move(answers[i]);
    } else if (!is_away(answers[i].status())) {
      return answers[i].status();
    }
  }
  return digests;
}

// Goes on with an interrupted restore of the same archive; one that ended is begun anew.
absl::Status RestoreJob::begin(RestoreHead head) {
  ClusterBlock& block = client_.block();
  SLUICE_ASSIGN_OR_RETURN(stored_, load_restore(block, head.id));
  const RestoreHead before = stored_.head;
  if (stored_.revision != 0 && before.prefix != head.prefix) {
    return already_exists("restore {} is one of another prefix", head.id);
  }
  const bool goes_on =
      stored_.revision != 0 && before.manifest_digest == head.manifest_digest &&
      (before.state == "running" || before.state == "failed" || before.state == "cancelled");
  head.created_ms = head.changed_ms = client_.clock().wall_ms();
  head.attempt = before.attempt + 1;
  head.state = "running";
  if (goes_on) {
    head.created_ms = before.created_ms;
    head.into_empty = before.into_empty;
  } else {
    SLUICE_ASSIGN_OR_RETURN(const Digests digests, read_digests());
    const auto snapshot = client_.directory().snapshot();
    const auto& members = snapshot->table->members();
    head.into_empty = std::all_of(members.begin(), members.end(), [&](const auto& member) {
      const auto found = digests.find(member.name);
      return found != digests.end() &&
             std::all_of(found->second.begin(), found->second.end(),
                         [](const SlotDigest& digest) { return digest.empty(); });
    });
    if (stored_.revision != 0) {
      // An attempt that lost its lock stores nothing from here on, so what is erased stays erased;
      // and the old progress does not count for the new attempt should this process end here.
      ++stored_.head.attempt;
      SLUICE_RETURN_IF_ERROR(store_restore(block, stored_));
      head.attempt = stored_.head.attempt + 1;
    }
    SLUICE_RETURN_IF_ERROR(erase_restore_progress(block, head.id));
  }
  stored_.head = std::move(head);
  return store_restore(block, stored_);
}

absl::StatusOr<RestoreOutcome> RestoreJob::run(RestoreHead head,
                                               const ClusterClient::RestoreCallback& progress) {
  progress_ = progress;
  const int64_t start = client_.clock().monotonic_ns();
  outcome_.restore = head.id;
  SLUICE_RETURN_IF_ERROR(check_destination());
  std::unique_ptr<LeaseLock> lock;
  if (request_.dry_run) {
    stored_.head = std::move(head);
    SLUICE_RETURN_IF_ERROR(run_parts(false));
    outcome_.state = "completed";
  } else {
    auto taken = LeaseLock::take(client_.block(), restore_lock_key(head.id), "restoring");
    if (absl::IsAborted(taken.status())) {
      return already_exists("backup {} is being restored into this cluster already", head.name);
    }
    SLUICE_RETURN_IF_ERROR(taken.status());
    lock = *std::move(taken);
    SLUICE_RETURN_IF_ERROR(begin(std::move(head)));
    absl::Status status = run_parts(false);
    if (status.ok()) {
      const auto digests = read_digests();
      status = digests.status();
      if (status.ok()) prove(*digests);
    }
    SLUICE_RETURN_IF_ERROR(end(status, false, *lock));
  }
  outcome_.seconds = static_cast<double>(client_.clock().monotonic_ns() - start) / 1e9;
  return outcome_;
}

absl::StatusOr<RestoreOutcome> RestoreJob::retry(const std::string& id,
                                                 const ClusterClient::RestoreCallback& progress) {
  progress_ = progress;
  const int64_t start = client_.clock().monotonic_ns();
  outcome_.restore = id;
  SLUICE_RETURN_IF_ERROR(check_destination());
  auto taken = LeaseLock::take(client_.block(), restore_lock_key(id), "retrying");
  if (absl::IsAborted(taken.status())) return already_exists("restore {} is running", id);
  SLUICE_RETURN_IF_ERROR(taken.status());
  SLUICE_ASSIGN_OR_RETURN(stored_, load_restore(client_.block(), id));
  if (stored_.revision == 0) return not_found("no restore {}", id);
  // Of another one's records it is not known that they were all sent.
  if (stored_.head.state != "completed_with_failures") {
    return failed_precondition("restore {} is {}: run the restore again", id, stored_.head.state);
  }
  size_t listed = 0;
  for (const RestoreSource& source : stored_.head.sources) {
    SLUICE_ASSIGN_OR_RETURN(const auto units, load_failed_units(client_.block(), id, source.part));
    listed += units.size();
  }
  if (listed == 0) {
    return data_loss(
        "restore {}: {} records failed, but the retry list is empty: run the restore "
        "again",
        id, stored_.head.failed);
  }
  ++stored_.head.attempt;
  SLUICE_RETURN_IF_ERROR(store_restore(client_.block(), stored_));
  absl::Status status = run_parts(true);
  if (status.ok() && outcome_.failed == 0 && !expected_.empty()) {
    const auto digests = read_digests();
    status = digests.status();
    if (status.ok()) prove(*digests);
  }
  SLUICE_RETURN_IF_ERROR(end(status, true, **taken));
  outcome_.seconds = static_cast<double>(client_.clock().monotonic_ns() - start) / 1e9;
  return outcome_;
}

absl::Status RestoreJob::run_parts(bool retry) {
  // Parts that this process reads go through one exchange; each other one is sent by its holder,
  // all at once.
  std::vector<std::string> here;
  std::vector<RestoreSource> there;
  for (const RestoreSource& source : stored_.head.sources) {
    if (source.node.empty()) {
      here.push_back(source.folder);
    } else {
      there.push_back(source);
    }
  }
  const size_t jobs = there.size() + (here.empty() ? 0 : 1);
  std::vector<v1::RestorePartResult> results(jobs);
  std::vector<absl::Status> statuses(jobs);
  parallel_for(
      jobs,
      [&](size_t i) {
        statuses[i] = i < there.size() ? run_there(there[i], retry, &results[i])
                                       : run_here(here, retry, &results[i]);
      },
      jobs);
  absl::Status first;
  for (size_t i = 0; i < jobs; ++i) {
    if (statuses[i].ok()) add(results[i]);
    if (first.ok()) first = statuses[i];
    if (statuses[i].ok() && results[i].cancelled() && first.ok())
      first = cancelled("a part was cancelled");
  }
  return first;
}

absl::Status RestoreJob::run_here(const std::vector<std::string>& folders, bool retry,
                                  v1::RestorePartResult* result) {
  SLUICE_ASSIGN_OR_RETURN(const std::string driver, common_driver(*client_.directory().snapshot()));
  SLUICE_ASSIGN_OR_RETURN(const auto transport, make_transport(driver));
  SLUICE_ASSIGN_OR_RETURN(
      const auto arena,
      Arena::create({.bytes = request_.arena_bytes, .pages = transport->limits().arena_pages}));
  Exchange::Options options;
  options.arena = arena.get();
  options.transport = transport.get();
  options.node = "restore";
  options.hello_buffers = 1;
  options.control_buffers = 8;
  options.receive_blocks = kReceiveBlocks;
  SLUICE_ASSIGN_OR_RETURN(const auto exchange, Exchange::open(options));
  RestoreRun run;
  run.peers = &client_.peers();
  run.exchange = exchange.get();
  run.folders = folders;
  run.expected = part_id(stored_.head, "");
  run.id = stored_.head.id;
  run.attempt = stored_.head.attempt;
  run.prefix = stored_.head.prefix;
  run.retry = retry;
  run.dry_run = request_.dry_run;
  // What the streams leave of the arena, half of it for repacking.
  const size_t streams = 16 + kReceiveBlocks * client_.directory().snapshot()->members.size();
  if (arena->buffers() < streams + 4) {
    return resource_exhausted("an arena of {} MiB is too small for {} nodes: give at least {} MiB",
                              request_.arena_bytes >> 20,
                              client_.directory().snapshot()->members.size(), streams + 8);
  }
  run.requests = std::min<size_t>(12, (arena->buffers() - streams) / 2);
  run.progress = [this](uint64_t bytes) { report("", bytes); };
  SLUICE_ASSIGN_OR_RETURN(*result, run_restore(run));
  return absl::OkStatus();
}

absl::Status RestoreJob::run_there(const RestoreSource& source, bool retry,
                                   v1::RestorePartResult* result) {
  const std::string& other = stored_.head.source_cluster;
  SLUICE_ASSIGN_OR_RETURN(const auto cluster, open_source(client_, other));
  Peers& peers = other.empty() ? client_.peers() : *cluster->peers;
  SLUICE_ASSIGN_OR_RETURN(const auto peer, peers.find(source.node));
  // It may have come back a moment ago.
  peer->connect(5'000);
  v1::RestorePartRequest request;
  if (!other.empty()) request.set_cluster_url(url_);
  *request.mutable_archive() =
      make_reference(part_id(stored_.head, source.part), stored_.head.name);
  request.set_prefix(stored_.head.prefix);
  request.set_restore(stored_.head.id);
  request.set_attempt(stored_.head.attempt);
  request.set_retry(retry);
  request.set_dry_run(request_.dry_run);
  grpc::ClientContext call;
  set_timeout(call, kLongestJobMs);
  const auto reader = peer->serving().RestorePart(&call, request);
  v1::RestoreUpdate update;
  bool last = false;
  while (reader->Read(&update)) {
    report(source.part, update.bytes_done());
    if (!update.has_result()) continue;
    last = true;
    *result = std::move(*update.mutable_result());
  }
  const grpc::Status status = reader->Finish();
  peer->note(status);
  if (!status.ok()) return from_peer(status, source.node);
  if (!last) return unavailable("{}: ended without a result", source.node);
  return absl::OkStatus();
}

void RestoreJob::report(const std::string& part, uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  done_[part] = bytes;
  if (!progress_) return;
  uint64_t done = 0;
  for (const auto& [name, each] : done_) done += each;
  progress_({"running", done, 0, {}});
}

void RestoreJob::add(const v1::RestorePartResult& part) {
  outcome_.records += part.records();
  outcome_.bytes += part.bytes();
  outcome_.written += part.written();
  outcome_.kept_newer += part.kept_newer();
  outcome_.retried += part.retried();
  outcome_.failed += part.failed_records();
  // Units may fail that hold tombstones alone.
  if (part.failed_units() > 0 && part.failed_records() == 0) ++outcome_.failed;
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

void RestoreJob::prove(const Digests& digests) {
  RestoreProof& proof = outcome_.proof;
  proof.checked = true;
  const auto snapshot = client_.directory().snapshot();
  const DistributionTable& table = *snapshot->table;
  for (uint32_t slot = 0; slot < table.slots(); ++slot) {
    const auto wanted = expected_.find(slot);
    if (wanted == expected_.end() && !stored_.head.into_empty) continue;
    const SlotDigest expected = wanted == expected_.end() ? SlotDigest() : wanted->second;
    for (const uint16_t member : table.replicas_of(slot)) {
      const std::string& node = table.members()[member].name;
      ++proof.copies;
      const auto found = digests.find(node);
      if (found == digests.end()) {
        ++proof.unreachable;
      } else if (found->second[slot] == expected) {
        ++proof.equal;
      } else {
        ++proof.differing;
        if (proof.first_differing.size() < kDifferencesNamed) {
          proof.first_differing.push_back({slot, node});
        }
      }
    }
  }
}

// A cluster that was empty holds the archive after its restore, and nothing else.
void RestoreJob::judge_proof() {
  RestoreHead& head = stored_.head;
  const RestoreProof& proof = outcome_.proof;
  if (!proof.checked || !head.into_empty || outcome_.state != "completed") return;
  if (proof.differing > 0) {
    outcome_.state = "failed";
    outcome_.reason = fmt::format(
        "{} of {} slot copies differ from the archive, first slot {} of {}, though the cluster was "
        "empty when the restore began: a copy is bad, or somebody wrote meanwhile; run again, it "
        "sends everything once more",
        proof.differing, proof.copies, proof.first_differing[0].slot,
        proof.first_differing[0].node);
  } else if (proof.unreachable > 0) {
    outcome_.state = "failed";
    outcome_.reason = fmt::format(
        "all records are written, but {} of {} slot copies could not be compared with the archive; "
        "run again when all nodes are live",
        proof.unreachable, proof.copies);
  }
}

// Blocks of the archive that failed their check are on the retry list with the others, but no retry
// can write them.
absl::Status RestoreJob::name_damage() {
  for (const RestoreSource& source : stored_.head.sources) {
    SLUICE_ASSIGN_OR_RETURN(const auto units,
                            load_failed_units(client_.block(), stored_.head.id, source.part));
    for (const RestoreUnit& unit : units) {
      if (unit.damaged()) outcome_.damaged.push_back({unit.slot, unit.node, unit.reason});
    }
  }
  if (outcome_.damaged.empty()) return absl::OkStatus();
  outcome_.reason = fmt::format("{} blocks of the archive are damaged and were not written: {}",
                                outcome_.damaged.size(), outcome_.damaged.front().reason);
  return absl::OkStatus();
}

absl::Status RestoreJob::end(const absl::Status& status, bool retry, const LeaseLock& lock) {
  if (!lock.held()) {
    return aborted(
        "restore {}: its lock was lost, and another process may drive it now; run it again",
        stored_.head.id);
  }
  for (auto& [name, node] : nodes_) outcome_.nodes.push_back(node);
  RestoreHead& head = stored_.head;
  if (!status.ok()) {
    outcome_.state = absl::IsCancelled(status) ? "cancelled" : "failed";
    outcome_.reason = message_of(status);
    outcome_.data_bad = absl::IsDataLoss(status);
  } else if (outcome_.failed > 0) {
    outcome_.state = "completed_with_failures";
    SLUICE_RETURN_IF_ERROR(name_damage());
  } else {
    outcome_.state = "completed";
  }
  judge_proof();
  const bool bad = outcome_.state == "failed" && outcome_.proof.differing > 0;
  // A retry that could not be driven leaves the earlier end as it is.
  if (!retry || status.ok()) {
    head.state = outcome_.state;
    head.reason = outcome_.reason;
    head.failed = outcome_.failed;
    head.written = retry ? head.written + outcome_.written : outcome_.written;
    if (!retry) {
      head.records = outcome_.records;
      head.kept_newer = outcome_.kept_newer;
    }
  }
  if (bad) {
    // Nothing that was done counts next time, and what others wrote is not held against it again.
    SLUICE_RETURN_IF_ERROR(erase_restore_progress(client_.block(), head.id));
    head.into_empty = false;
  }
  head.changed_ms = client_.clock().wall_ms();
  return store_restore(client_.block(), stored_);
}

absl::Status read_failed_keys(ClusterClientImpl& client, const RestoreHead& head,
                              const RestoreSource& source, const std::vector<RestoreUnit>& units,
                              const std::function<absl::Status(size_t, std::string_view)>& visit) {
  if (source.node.empty()) {
    return read_unit_keys(source.folder, part_id(head, source.part), units, visit);
  }
  SLUICE_ASSIGN_OR_RETURN(const auto cluster, open_source(client, head.source_cluster));
  Peers& peers = head.source_cluster.empty() ? client.peers() : *cluster->peers;
  SLUICE_ASSIGN_OR_RETURN(const auto peer, peers.find(source.node));
  v1::ReadUnitsRequest request;
  *request.mutable_archive() = make_reference(part_id(head, source.part), head.name);
  for (const RestoreUnit& unit : units) {
    auto* out = request.add_units();
    out->set_part(unit.part);
    out->set_slot(unit.slot);
    out->set_first_sequence(unit.first_sequence);
    out->set_blocks(unit.blocks);
  }
  grpc::ClientContext call;
  set_timeout(call, client.options().idle_timeout_ms);
  const auto reader = peer->serving().ReadUnits(&call, request);
  v1::UnitKeys page;
  absl::Status visited;
  while (visited.ok() && reader->Read(&page)) {
    if (page.unit() >= units.size()) {
      visited = data_loss("{}: its answer breaks the protocol", source.node);
    }
    for (const std::string& key : page.keys()) {
      if (visited.ok()) visited = visit(page.unit(), key);
    }
  }
  if (!visited.ok()) call.TryCancel();
  const grpc::Status status = reader->Finish();
  SLUICE_RETURN_IF_ERROR(visited);
  return from_peer(status, source.node);
}

}  // namespace sluice

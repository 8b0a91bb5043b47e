#include "control/client/remote_contents.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/backup/backup_store.h"
#include "control/backup/backup_trees.h"
#include "control/client/part_answers.h"
#include "control/peers/archive_reference.h"
#include "control/peers/patient_call.h"
#include "control/peers/rpc.h"
#include "control/restore/restore_runner.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

// Of one call; a listing takes as many as it needs, as long as each gets further.
constexpr int64_t kContentsCallMs = 300'000;
constexpr size_t kListedAtOnce = 8;  // parts

class RemoteContents final : public BackupContents {
 public:
  RemoteContents(ClusterConnection& cluster, BackupHead head, std::vector<std::string> nodes,
                 uint32_t tree)
      : cluster_(cluster),
        tree_(tree),
        head_(std::move(head)),
        nodes_(std::move(nodes)),
        description_(fmt::format("backup {}", head_.name)) {}

  const std::string& description() const override { return description_; }
  absl::StatusOr<BackupSlots> slots() override {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(load_slots_locked());
    return *slots_;
  }
  absl::Status list(const ContentsListing& listing, const VisitEntry& visit) override;
  absl::StatusOr<Values> read(const std::vector<std::string>& keys) override;
  absl::Status records(const VisitRecord& visit) override;

 private:
  // Runs `one` for each node at the same time; after an error the others end soon.
  absl::Status for_each_part(
      const std::vector<std::string>& nodes,
      const std::function<absl::Status(const std::string& node, const std::atomic<bool>& failed,
                                       Mutex& visiting)>& one);
  absl::Status read_records(const std::string& node, const VisitRecord& visit);
  v1::ArchiveReference reference(const std::string& node) const {
    return make_reference({cluster_.cluster().uuid, head_.uuid, node, head_.manifest_digest},
                          head_.name);
  }
  // Reads the pages of a call to one holder with `take`, whose error ends it. The call is repeated
  // where the node was late; `begin` makes it.
  template <typename Page, typename Begin, typename Take>
  absl::Status read_pages(const std::string& node, const Begin& begin, const Take& take);
  absl::Status list_part(const std::string& node, const ContentsListing& listing,
                         const VisitEntry& visit);
  absl::Status load_slots_locked() SLUICE_REQUIRES(mutex_);
  absl::StatusOr<BackupSlots> fetch_slots(const std::string& node);
  absl::Status read_part(const std::string& node, const std::vector<std::string>& keys,
                         const std::vector<size_t>& places, Values* values);
  // Of statuses of several parts the one that says most; what a deletion took is not damage.
  absl::Status conclude(const std::vector<absl::Status>& statuses);

  ClusterConnection& cluster_;
  const uint32_t tree_;  // its number; 0: the records
  const BackupHead head_;
  const std::vector<std::string> nodes_;
  const std::string description_;
  Mutex mutex_;
  std::optional<BackupSlots> slots_ SLUICE_GUARDED_BY(mutex_);
};

template <typename Page, typename Begin, typename Take>
absl::Status RemoteContents::read_pages(const std::string& node, const Begin& begin,
                                        const Take& take) {
  std::atomic<int64_t> alive_ns{cluster_.clock().monotonic_ns()};
  Patience patience = cluster_.patience();
  patience.call_ms = kContentsCallMs;
  patience.alive_ns = &alive_ns;
  absl::Status taken;
  const absl::Status status =
      call_patiently(cluster_.peers(), node, patience,
                     [&](PeerNode& peer, grpc::ClientContext& call) -> grpc::Status {
                       const auto reader = begin(peer, &call);
                       Page page;
                       while (taken.ok() && reader->Read(&page)) {
                         taken = take(page);
                         alive_ns = cluster_.clock().monotonic_ns();
                       }
                       if (!taken.ok()) {
                         peer.link().cancel(call);
                         reader->Finish();
                         return grpc::Status::OK;
                       }
                       const grpc::Status answer = reader->Finish();
                       // It cut off a reader that was busy for long.
                       if (answer.error_code() != grpc::StatusCode::CANCELLED) return answer;
                       return {grpc::StatusCode::UNAVAILABLE, answer.error_message()};
                     });
  SLUICE_RETURN_IF_ERROR(taken);
  return status;
}

absl::Status RemoteContents::list_part(const std::string& node, const ContentsListing& listing,
                                       const VisitEntry& visit) {
  v1::ListContentsRequest request;
  *request.mutable_archive() = reference(node);
  request.set_tree(tree_);
  request.set_path(listing.path);
  request.set_children(listing.children);
  request.set_prefix(listing.prefix);
  request.set_digests(listing.digests);
  request.set_linked(listing.linked);
  request.set_heads(listing.heads);
  request.set_content_bytes(
      static_cast<uint32_t>(std::min(listing.content_bytes, kMaxTreeEntryBytes)));
  request.set_skip_damage(listing.skip_damage != nullptr);
  request.set_slots(slot_bitmap(listing.slots));
  PartListing part(node, listing, visit);
  SLUICE_RETURN_IF_ERROR(read_pages<v1::ContentsPage>(
      node,
      [&](PeerNode& peer, grpc::ClientContext* call) {
        request.set_first_slot(part.place().slot);
        request.set_after(part.place().after);
        return peer.serving().ListContents(call, request);
      },
      [&](v1::ContentsPage& page) { return part.take(page); }));
  if (!part.done()) return data_loss("{}: its listing of an archive has no end", node);
  return absl::OkStatus();
}

absl::Status RemoteContents::list(const ContentsListing& listing, const VisitEntry& visit) {
  std::vector<std::string> nodes = nodes_;
  if (!listing.slots.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const BackupSlots all, slots());
    std::set<std::string> holders;
    for (const uint32_t slot : listing.slots) {
      const auto found = all.slots.find(slot);
      if (found != all.slots.end()) holders.insert(found->second.node);
    }
    nodes.assign(holders.begin(), holders.end());
  }
  return for_each_part(
      nodes, [&](const std::string& node, const std::atomic<bool>& failed, Mutex& visiting) {
        return list_part(node, listing, [&](BackupEntry entry) -> absl::Status {
          if (failed) return cancelled("another part of the backup could not be read");
          const MutexLock lock(visiting);
          return visit(std::move(entry));
        });
      });
}

absl::Status RemoteContents::for_each_part(
    const std::vector<std::string>& nodes,
    const std::function<absl::Status(const std::string& node, const std::atomic<bool>& failed,
                                     Mutex& visiting)>& one) {
  Mutex visiting;
  std::atomic<bool> failed{false};
  std::vector<absl::Status> statuses(nodes.size());
  parallel_for(
      nodes.size(),
      [&](size_t i) {
        statuses[i] = one(nodes[i], failed, visiting);
        if (!statuses[i].ok()) failed = true;
      },
      kListedAtOnce);
  return conclude(statuses);
}

absl::Status RemoteContents::read_records(const std::string& node, const VisitRecord& visit) {
  v1::ReadRecordsRequest request;
  *request.mutable_archive() = reference(node);
  request.set_tree(tree_);
  bool done = false;
  const absl::Status read = read_pages<v1::RecordsPage>(
      node,
      [&](PeerNode& peer, grpc::ClientContext* call) {
        return peer.serving().ReadRecords(call, request);
      },
      [&](v1::RecordsPage& page) -> absl::Status {
        for (const auto& record : page.records()) {
          SLUICE_RETURN_IF_ERROR(visit(record.key(), record.value()));
        }
        // Where the node is asked again, it goes on from here.
        request.set_first_slot(page.slot());
        request.set_after(page.after());
        done = page.last();
        return absl::OkStatus();
      });
  SLUICE_RETURN_IF_ERROR(read);
  if (!done) return data_loss("{}: its records of a tree have no end", node);
  return absl::OkStatus();
}

absl::Status RemoteContents::records(const VisitRecord& visit) {
  return for_each_part(nodes_, [&](const std::string& node, const std::atomic<bool>& failed,
                                   Mutex& visiting) {
    return read_records(node, [&](std::string_view key, std::string_view value) -> absl::Status {
      if (failed) return cancelled("another part of the backup could not be read");
      const MutexLock lock(visiting);
      return visit(key, value);
    });
  });
}

absl::StatusOr<BackupSlots> RemoteContents::fetch_slots(const std::string& node) {
  v1::ListSlotsRequest request;
  *request.mutable_archive() = reference(node);
  request.set_tree(tree_);
  std::optional<ManifestSlots> slots;
  SLUICE_RETURN_IF_ERROR(read_pages<v1::PartSlots>(
      node,
      [&](PeerNode& peer, grpc::ClientContext* call) {
        slots.emplace(node);
        return peer.serving().ListSlots(call, request);
      },
      [&](const v1::PartSlots& page) { return slots->take(page); }));
  if (!slots.has_value() || !slots->done()) {
    return data_loss("{}: its slots of an archive have no end", node);
  }
  return slots->move_out();
}

// Every holder has the manifest: those that are known to answer are asked first.
absl::Status RemoteContents::load_slots_locked() {
  if (slots_.has_value()) return absl::OkStatus();
  std::vector<std::string> nodes = nodes_;
  const auto now = cluster_.directory().snapshot();
  std::stable_partition(nodes.begin(), nodes.end(),
                        [&](const std::string& node) { return now->live(node); });
  absl::Status first;
  for (const std::string& node : nodes) {
    absl::StatusOr<BackupSlots> slots = fetch_slots(node);
    if (slots.ok()) {
      slots_ = *std::move(slots);
      return absl::OkStatus();
    }
    if (first.ok()) first = slots.status();
  }
  return conclude({first});
}

absl::Status RemoteContents::read_part(const std::string& node,
                                       const std::vector<std::string>& keys,
                                       const std::vector<size_t>& places, Values* values) {
  v1::ReadContentsRequest request;
  *request.mutable_archive() = reference(node);
  request.set_tree(tree_);
  for (const size_t place : places) request.add_keys(keys[place]);
  std::optional<PartValues> part;
  SLUICE_RETURN_IF_ERROR(read_pages<v1::ContentsPiece>(
      node,
      [&](PeerNode& peer, grpc::ClientContext* call) {
        part.emplace(node, places.size());
        return peer.serving().ReadContents(call, request);
      },
      [&](const v1::ContentsPiece& piece) { return part->take(piece); }));
  if (!part.has_value() || !part->done()) {
    return data_loss("{}: its answer about an archive has no end", node);
  }
  for (size_t i = 0; i < places.size(); ++i) (*values)[places[i]] = part->move_out(i);
  return absl::OkStatus();
}

absl::StatusOr<BackupContents::Values> RemoteContents::read(const std::vector<std::string>& keys) {
  std::map<std::string, std::vector<size_t>> of_nodes;
  {
    const MutexLock lock(mutex_);
    SLUICE_RETURN_IF_ERROR(load_slots_locked());
    for (size_t i = 0; i < keys.size(); ++i) {
      const uint32_t bits = slots_->slot_bits;
      const auto found = slots_->slots.find(
          tree_ == 0 ? slot_of(keys[i], bits) : tree_slot(tree_, tree_shard_of(keys[i], bits)));
      if (found != slots_->slots.end()) of_nodes[found->second.node].push_back(i);
    }
  }
  std::vector<const std::pair<const std::string, std::vector<size_t>>*> jobs;
  jobs.reserve(of_nodes.size());
  for (const auto& job : of_nodes) jobs.push_back(&job);
  Values values(keys.size());
  std::vector<absl::Status> statuses(jobs.size());
  parallel_for(jobs.size(), [&](size_t i) {
    statuses[i] = read_part(jobs[i]->first, keys, jobs[i]->second, &values);
  });
  SLUICE_RETURN_IF_ERROR(conclude(statuses));
  return values;
}

absl::Status RemoteContents::conclude(const std::vector<absl::Status>& statuses) {
  absl::Status worst;
  for (const absl::Status& status : statuses) {
    // One that was ended because another failed says nothing.
    const bool says_more = worst.ok() || absl::IsCancelled(worst) ||
                           (absl::IsDataLoss(status) && !absl::IsDataLoss(worst));
    if (!status.ok() && says_more) worst = status;
  }
  if (worst.ok() || absl::IsCancelled(worst)) return worst;
  const auto now = load_backup(cluster_.block(), head_.uuid);
  const bool is_deleted =
      now.ok() ? !check_completed(now->head).ok() : absl::IsNotFound(now.status());
  if (!is_deleted) return worst;
  return failed_precondition("{} was deleted while it was read", description_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BackupContents>> open_remote_contents(ClusterConnection& cluster,
                                                                     std::string_view backup,
                                                                     const TreeChoice& choice) {
  SLUICE_ASSIGN_OR_RETURN(const StoredBackup stored, load_backup(cluster.block(), backup));
  SLUICE_RETURN_IF_ERROR(check_completed(stored.head));
  SLUICE_ASSIGN_OR_RETURN(const auto parts, load_all_parts(cluster.block(), stored.head));
  std::vector<std::string> nodes;
  nodes.reserve(parts.size());
  for (const ArchivePart& part : parts) nodes.push_back(part.node);
  uint32_t tree = 0;
  if (!choice.tree.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const BackupTrees trees, load_trees(cluster.block(), stored.head.uuid));
    SLUICE_ASSIGN_OR_RETURN(tree, number_of(choice, archived_trees(trees)));
  }
  return std::make_unique<RemoteContents>(cluster, stored.head, std::move(nodes), tree);
}

}  // namespace sluice

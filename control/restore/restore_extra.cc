#include "control/restore/restore_extra.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/peers/patient_call.h"
#include "control/peers/rpc.h"
#include "control/restore/restore_proof.h"

namespace sluice {

namespace {

constexpr size_t kSlotsAtOnce = 6;
constexpr size_t kKeysAtOnce = 1000;
constexpr int64_t kPageMs = 10'000;
constexpr int64_t kScanMs = 3'600'000;
constexpr int kPasses = 16;  // over one slot

Patience replica_patience() {
  Patience patience;
  patience.limit_ms = 60'000;
  return patience;
}

void add_to(std::string* reasons, const absl::Status& status) {
  *reasons += fmt::format("{}{}", reasons->empty() ? "" : "; ", message_of(status));
}

// The records of one slot on one replica, in key order.
class ReplicaScan {
 public:
  ReplicaScan(std::shared_ptr<PeerNode> peer, const v1::ScanRequest& request)
      : peer_(std::move(peer)), stream_(peer_->link().scan_slot(request, kScanMs)) {}

  // Moves to the next record; false at the end.
  absl::StatusOr<bool> next() {
    if (++at_ < page_.items_size()) return check();
    at_ = 0;
    do {
      page_.Clear();
      if (!stream_->read(&page_, kPageMs)) {
        at_ = -1;
        SLUICE_RETURN_IF_ERROR(from_peer(stream_->status(), peer_->name()));
        return false;
      }
    } while (page_.items_size() == 0);
    return check();
  }
  const v1::ScanItem& item() const { return page_.items(at_); }

 private:
  absl::StatusOr<bool> check() {
    if (item().key().empty() || item().key() <= last_) {
      return data_loss("{}: its answer has keys out of order", peer_->name());
    }
    last_ = item().key();
    return true;
  }

  const std::shared_ptr<PeerNode> peer_;
  const std::unique_ptr<PageStream<v1::ScanPage>> stream_;
  v1::ScanPage page_;
  int at_ = -1;
  std::string last_;
};

class Deleter {
 public:
  explicit Deleter(const ExtraDeletion& deletion) : deletion_(deletion) {}

  absl::StatusOr<ExtraDeleted> run() {
    SLUICE_RETURN_IF_ERROR(deletion_.cluster->directory().refresh());
    const auto snapshot = deletion_.cluster->directory().snapshot();
    if (snapshot->table == nullptr) return unavailable("the cluster has no distribution table");
    const uint32_t slots = snapshot->table->slots();
    SLUICE_ASSIGN_OR_RETURN(digests_, read_digests(*deletion_.cluster, replica_patience()));
    std::atomic<bool> failed{false};
    std::vector<absl::Status> statuses(slots);
    parallel_for(
        slots,
        [&](size_t slot) {
          if (failed) return;
          statuses[slot] = clear_slot(static_cast<uint32_t>(slot));
          if (!statuses[slot].ok()) failed = true;
          const MutexLock lock(mutex_);
          ++slots_done_;
          if (deletion_.progress) deletion_.progress(slots_done_, slots);
        },
        kSlotsAtOnce);
    for (const absl::Status& status : statuses) SLUICE_RETURN_IF_ERROR(status);
    const MutexLock lock(mutex_);
    return result_;
  }

 private:
  using Replicas = std::vector<std::string>;

  // Whether all replicas said that they have no record with a value.
  bool is_empty(uint32_t slot) const {
    const auto table = deletion_.cluster->directory().snapshot()->table;
    const auto replicas = table->replicas_of(slot);
    return std::all_of(replicas.begin(), replicas.end(), [&](uint16_t member) {
      const auto found = digests_.find(table->members()[member].name);
      return found != digests_.end() && found->second[slot].records == 0;
    });
  }

  // Until a pass finds nothing: a write that was begun before the moment may arrive meanwhile.
  absl::Status clear_slot(uint32_t slot) {
    if (is_empty(slot)) return absl::OkStatus();
    for (int pass = 0; pass < kPasses; ++pass) {
      SLUICE_RETURN_IF_ERROR(deletion_.check());
      SLUICE_ASSIGN_OR_RETURN(const uint64_t found, pass_over(slot));
      if (found == 0) return absl::OkStatus();
    }
    return unavailable("slot {}: keys older than the restore keep coming; run it again", slot);
  }

  absl::StatusOr<uint64_t> pass_over(uint32_t slot) {
    const auto snapshot = deletion_.cluster->directory().snapshot();
    Replicas replicas;
    for (const uint16_t member : snapshot->table->replicas_of(slot)) {
      replicas.push_back(snapshot->table->members()[member].name);
    }
    std::vector<std::unique_ptr<ReplicaScan>> scans;
    std::string reasons;
    size_t readable = 0;
    for (const std::string& name : replicas) {
      absl::StatusOr<std::unique_ptr<ReplicaScan>> scan = unreachable(name);
      if (scan.ok()) scan = open(name, slot);
      if (is_late(scan.status())) {
        note_unreachable(name, scan.status());
        add_to(&reasons, scan.status());
        continue;
      }
      SLUICE_RETURN_IF_ERROR(scan.status());
      ++readable;
      if (*scan != nullptr) scans.push_back(*std::move(scan));
    }
    if (readable < deletion_.cluster->cluster().read_quorum()) {
      return unavailable("slot {}: {} of the {} replicas that have to be read can be: {}", slot,
                         readable, deletion_.cluster->cluster().read_quorum(), reasons);
    }
    return merge(slot, snapshot->table->epoch(), replicas, scans);
  }

  // Who has not answered is not waited for again: null, or why it did not.
  absl::StatusOr<std::unique_ptr<ReplicaScan>> unreachable(const std::string& name) {
    const MutexLock lock(mutex_);
    const auto found = unreachable_.find(name);
    if (found == unreachable_.end()) return nullptr;
    return found->second;
  }
  void note_unreachable(const std::string& name, const absl::Status& why) {
    const MutexLock lock(mutex_);
    unreachable_.emplace(name, why);
  }

  // At its first record. Null where it has none.
  absl::StatusOr<std::unique_ptr<ReplicaScan>> open(const std::string& name, uint32_t slot) {
    SLUICE_ASSIGN_OR_RETURN(auto peer, deletion_.cluster->peers().find(name));
    v1::ScanRequest request;
    request.set_slot(slot);
    request.set_prefix(deletion_.prefix);
    auto scan = std::make_unique<ReplicaScan>(std::move(peer), request);
    SLUICE_ASSIGN_OR_RETURN(const bool more, scan->next());
    return more ? std::move(scan) : nullptr;
  }

  absl::StatusOr<uint64_t> merge(uint32_t slot, uint64_t epoch, const Replicas& replicas,
                                 std::vector<std::unique_ptr<ReplicaScan>>& scans) {
    uint64_t found = 0;
    v1::ApplyRequest batch;
    batch.set_epoch(epoch);
    while (!scans.empty()) {
      const auto least = std::min_element(scans.begin(), scans.end(), [](auto& a, auto& b) {
        return a->item().key() < b->item().key();
      });
      const std::string key = (*least)->item().key();
      bool live = false;
      bool later = false;
      for (size_t i = 0; i < scans.size();) {
        const v1::ScanItem& item = scans[i]->item();
        if (item.key() != key) {
          ++i;
          continue;
        }
        // What one replica has of later, all have or will have. The deletion itself, which was cut
        // short here, is made again.
        const Version version{item.stamp(), item.node()};
        later = later || version > deletion_.moment ||
                (version == deletion_.moment && !item.tombstone());
        live = live || !item.tombstone();
        SLUICE_ASSIGN_OR_RETURN(const bool more, scans[i]->next());
        if (more) {
          ++i;
        } else {
          scans.erase(scans.begin() + static_cast<std::ptrdiff_t>(i));
        }
      }
      if (!live || later || !key.starts_with(deletion_.prefix)) continue;
      auto* record = batch.add_records();
      record->set_key(key);
      record->set_tombstone(true);
      record->set_stamp(deletion_.moment.stamp);
      record->set_node(deletion_.moment.node);
      ++found;
      if (static_cast<size_t>(batch.records_size()) < kKeysAtOnce) continue;
      SLUICE_RETURN_IF_ERROR(apply(slot, replicas, batch));
      batch.clear_records();
    }
    if (batch.records_size() > 0) SLUICE_RETURN_IF_ERROR(apply(slot, replicas, batch));
    return found;
  }

  absl::Status apply(uint32_t slot, const Replicas& replicas, const v1::ApplyRequest& batch) {
    SLUICE_RETURN_IF_ERROR(deletion_.check());
    std::vector<absl::Status> statuses(replicas.size());
    parallel_for(replicas.size(), [&](size_t i) {
      v1::ApplyReply reply;
      statuses[i] = unreachable(replicas[i]).status();
      if (!statuses[i].ok()) return;
      statuses[i] = call_patiently(deletion_.cluster->peers(), replicas[i], replica_patience(),
                                   [&](PeerNode& peer, grpc::ClientContext& call) {
                                     reply.Clear();
                                     return peer.peer().Apply(&call, batch, &reply);
                                   });
      if (is_late(statuses[i])) note_unreachable(replicas[i], statuses[i]);
      if (statuses[i].ok() && reply.epoch() != batch.epoch()) {
        statuses[i] = unavailable("{}: it has the table of epoch {}, not {}", replicas[i],
                                  reply.epoch(), batch.epoch());
      }
    });
    size_t durable = 0;
    std::string reasons;
    for (const absl::Status& status : statuses) {
      if (status.ok()) {
        ++durable;
      } else {
        add_to(&reasons, status);
      }
    }
    if (durable < deletion_.cluster->cluster().write_quorum()) {
      return unavailable("slot {}: keys that the archive does not have cannot be deleted: {}", slot,
                         reasons);
    }
    const auto keys = static_cast<uint64_t>(batch.records_size());
    const MutexLock lock(mutex_);
    result_.deleted += keys;
    if (reasons.empty()) return absl::OkStatus();
    result_.left += keys;
    if (result_.reason.empty()) result_.reason = reasons;
    return absl::OkStatus();
  }

  const ExtraDeletion& deletion_;
  NodeDigests digests_;  // fixed before the first slot
  Mutex mutex_;
  std::map<std::string, absl::Status> unreachable_ SLUICE_GUARDED_BY(mutex_);
  uint32_t slots_done_ SLUICE_GUARDED_BY(mutex_) = 0;
  ExtraDeleted result_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<ExtraDeleted> delete_extra(const ExtraDeletion& deletion) {
  return Deleter(deletion).run();
}

}  // namespace sluice

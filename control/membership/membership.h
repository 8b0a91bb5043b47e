// Who is in the cluster, and who of them is alive.
//
// A node is known from its first join until remove_node(); it is live while a process keeps its
// lease alive.
#ifndef SLUICE_CONTROL_MEMBERSHIP_MEMBERSHIP_H_
#define SLUICE_CONTROL_MEMBERSHIP_MEMBERSHIP_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "control/cluster_block/cluster_block.h"
#include "control/cluster_block/lease_keeper.h"
#include "control/membership/documents.h"

namespace sluice {

// ALREADY_EXISTS, naming its UUID, when the block describes a cluster already.
absl::Status create_cluster(ClusterBlock& block, const ClusterInfo& info);
// NOT_FOUND when nobody made the cluster yet.
absl::StatusOr<ClusterInfo> load_cluster(ClusterBlock& block);

struct Member {
  NodeInfo info;
  bool live = false;
};

// Whether a node is there, and takes writes.
enum class NodeState {
  kDown,
  kLive,
  kFull,      // live, but its data disk takes no more
  kReadOnly,  // live, but its store takes no writes
};
// "down", "live", "full", "read-only".
std::string_view name_of(NodeState state);

// All known nodes, by number. A document that cannot be decoded fails the call with DATA_LOSS
// naming its key.
absl::StatusOr<std::vector<Member>> list_members(ClusterBlock& block);
// NOT_FOUND for an unknown name.
absl::StatusOr<Member> find_member(ClusterBlock& block, std::string_view name);
// Forgets a node. FAILED_PRECONDITION while it is live, NOT_FOUND for an unknown name.
absl::Status remove_node(ClusterBlock& block, std::string_view name);

// Calls `changed` (on the block's watch thread) after members joined, left, died or changed, and
// once at the start. Several changes may be one call. The callback asks list_members() itself.
class MemberWatch {
 public:
  static absl::StatusOr<std::unique_ptr<MemberWatch>> start(ClusterBlock& block,
                                                            std::function<void()> changed);

 private:
  std::function<void()> changed_;
  WatchHandle nodes_;
  WatchHandle live_;
};

// One node's own membership: joined when made, left when destroyed. Thread-safe. The block must
// outlive it. The lease is renewed on a thread of its own, so nothing that is published, and no
// commit, makes a renewal late; another one, the keeper thread, looks whose the name is and
// publishes.
class Membership {
 public:
  // How many times the time of its lease a node serves after it last saw the name its own: an
  // outage of the cluster block that is shorter stops nobody. Whoever takes the name with another
  // data directory waits for as long, unless the process before it has surely ended.
  static constexpr int64_t kServedLeases = 5;

  struct Options {
    // Its number is ignored: the cluster gives it. So is its weight, unless it is explicit: it
    // follows from the rates.
    NodeInfo node;
    // What the node's data directory was found to hold (Store::found()).
    struct Found {
      std::string joined;   // token of the last confirmed join
      std::string joining;  // token of this one; empty: the folder is not compared
      uint64_t sequence = 0;
      std::string lock;
      uint64_t clock = 0;  // what its clock reads
    };
    Found found;
    // The largest sequence that peers have had an answer with from this data directory; asked on
    // the joining thread, again after each wait for another process. Null: 0.
    std::function<uint64_t()> seen_sequence;
    // Asked while join() waits for another process: true ends the wait with CANCELLED. Null: false.
    std::function<bool()> stop_asked;
    // What the folder has come to; asked four times in a lease's time, on the keeper thread, and
    // once at the end.
    struct Progress {
      uint64_t sequence = 0;
      uint64_t ceiling = 0;
    };
    std::function<Progress()> progress;
    // What the node measures now, nothing before it knows; asked as often, on the keeper thread.
    // Null: what `node` says is all.
    std::function<std::optional<MeasuredRates>()> rates;
    // Called with how long the node may serve, by the clock's monotonic_ns(): when it has joined,
    // with each renewal of its lease, and with 0 once the name is another process's. The node
    // answers nobody afterwards. On several threads, one at a time.
    std::function<void(int64_t until_ns)> serve_until;
    int64_t ttl_ms = 3000;          // how soon a dead node is noticed
    bool accept_data_loss = false;  // join although the node's earlier data folder is gone
    int64_t takeover_wait_ms =
        -1;  // how long to wait for a dead namesake's lease to end; -1: as long as it may take
    Clock* clock = nullptr;  // the system's when null
    // Called once, on the keeper thread, when another process took the name; the node must stop
    // serving.
    std::function<void(absl::Status)> on_lost;
  };
  // Registers the node and keeps it live from then on.
  // ALREADY_EXISTS: another live process holds the name. (A process that holds the same lock on
  // the same data folder knows that the earlier one is dead, and takes over at once.)
  // Where it is not known whether the process that had the name before still serves, waits for as
  // long as it may.
  // FAILED_PRECONDITION: the node's data folder is not the one that it served from last (another
  // store, a copy that was taken before the last join, or one that lacks what was written since),
  // and accept_data_loss is not set.
  // NOT_FOUND: there is no cluster here.
  // A known node continues its averages of real work, and its measured weight stays as the cluster
  // has it unless it changed enough (weights.h).
  static absl::StatusOr<std::unique_ptr<Membership>> join(ClusterBlock& block, Options options);
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  // Every stamp that the node handed out before it joined is below it (0: not known); where its
  // data was lost, every one that anybody in the cluster did by then. A folder that was replaced
  // may have a clock from before them.
  uint64_t clock_floor() const { return clock_floor_; }
  // The cluster block's revision at the join: of several processes that joined by this name, also
  // with other data directories, a later one has a larger one.
  Revision joined_at() const { return joined_at_; }
  // It was accepted that the node's data was lost.
  bool lost_data() const { return lost_data_; }
  // As the cluster has it, with its number.
  NodeInfo info() const;
  // Not OK when the name was lost to another process or cannot be kept alive; says why.
  absl::Status status() const;
  // Changes this node's own document (addresses after a bind, weight, archive folder); name, number
  // and store_id stay.
  absl::Status update(const std::function<void(NodeInfo&)>& change);
  // Reports what was measured: stored only when it changes the weight by enough to count, or is
  // news (weights.h), and the weight is not an operator's. True when it was.
  absl::StatusOr<bool> offer_rates(const MeasuredRates& rates);

 private:
  class Joining;
  class Term;
  // Extends the term once it is the name's.
  struct NameLease {
    std::shared_ptr<LeaseKeeper> keeper;
    std::shared_ptr<std::atomic<bool>> has_name;
  };
  struct Joined {
    NodeInfo node;
    LiveInfo live;
    StoreInfo store;
    Revision store_revision = 0;
    std::shared_ptr<LeaseKeeper> lease;
    std::shared_ptr<Term> term;
    uint64_t clock_floor = 0;
    bool lost_data = false;
  };
  static absl::StatusOr<NameLease> grant(ClusterBlock& block, const Options& options,
                                         const std::shared_ptr<Term>& term);
  Membership(ClusterBlock& block, Options options, Joined joined);
  absl::Status start();
  std::shared_ptr<LeaseKeeper> lease() const;
  void keep();
  absl::Status check_in();
  absl::Status publish(bool leaving = false);
  absl::Status revive(Revision held);
  bool is_of_this_join(const StoreInfo& store) const;

  ClusterBlock& block_;
  const Options options_;
  const LiveInfo live_;
  const std::shared_ptr<Term> term_;
  const uint64_t clock_floor_;
  const bool lost_data_;
  const Revision joined_at_;
  // Of the keeper thread, and of the destructor after it.
  StoreInfo store_;
  Revision store_revision_;
  mutable Mutex mutex_;
  Condition wake_;
  NodeInfo info_ SLUICE_GUARDED_BY(mutex_);
  std::shared_ptr<LeaseKeeper> lease_ SLUICE_GUARDED_BY(mutex_);
  absl::Status status_ SLUICE_GUARDED_BY(mutex_);
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  bool lost_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread keeper_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_MEMBERSHIP_MEMBERSHIP_H_

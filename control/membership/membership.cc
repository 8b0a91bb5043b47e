#include "control/membership/membership.h"

#include <spdlog/spdlog.h>

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>

#include "base/deadline.h"
#include "base/defect.h"
#include "base/guard.h"
#include "base/process.h"
#include "base/random.h"
#include "base/status.h"
#include "control/membership/weights.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace membership {

// A document as it is now; without `info` where there is none.
template <typename Info>
struct Known {
  std::optional<Info> info;
  Revision revision = 0;
};
using KnownNode = Known<NodeInfo>;

}  // namespace membership

namespace {

using membership::Known;
using membership::KnownNode;

// A change to a document that others change too is tried this often.
constexpr int kSwapTries = 16;
constexpr int64_t kWaitStepMs = 20;
// Of the wait for a process that may still serve; at most a quarter of a lease.
constexpr int64_t kSilenceStepMs = 250;
// How long a node that joins asks a cluster block again that takes no writes.
constexpr int64_t kJoinPatienceMs = 30'000;
// Publishing takes at most this part of a node's time, so that it leaves a slow cluster block to
// those who have more to write.
constexpr int64_t kPublishingShare = 5;

enum class Damaged { kIsAnError, kIsReplaced };

// A damaged document that is to be replaced counts as none, at its revision.
template <typename Info>
absl::StatusOr<Known<Info>> load(ClusterBlock& block, const std::string& key,
                                 absl::StatusOr<Info> (*decode)(std::string_view, std::string_view),
                                 Damaged damaged = Damaged::kIsAnError) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(key));
  if (!entry) return Known<Info>{};
  absl::StatusOr<Info> info = decode(entry->key, entry->value);
  if (info.ok()) return Known<Info>{*std::move(info), entry->revision};
  if (absl::IsDataLoss(info.status()) && damaged == Damaged::kIsReplaced) {
    return Known<Info>{std::nullopt, entry->revision};
  }
  return info.status();
}

absl::StatusOr<KnownNode> load_node(ClusterBlock& block, std::string_view name) {
  return load<NodeInfo>(block, node_key(name), decode_node_info);
}

absl::StatusOr<std::pair<uint32_t, Revision>> next_number(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(kNextNumberKey));
  if (!entry) return std::pair<uint32_t, Revision>{1, 0};
  uint32_t number = 0;
  const std::string& text = entry->value;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0) {
    return data_loss("document at key '{}' is damaged: it is no number", kNextNumberKey);
  }
  return std::pair<uint32_t, Revision>{number, entry->revision};
}

// `accept_data_loss`: whatever the store was, it is replaced.
absl::StatusOr<Known<StoreInfo>> load_store(ClusterBlock& block, std::string_view name,
                                            bool accept_data_loss) {
  auto known = load<StoreInfo>(block, store_key(name), decode_store_info,
                               accept_data_loss ? Damaged::kIsReplaced : Damaged::kIsAnError);
  if (!absl::IsDataLoss(known.status())) return known;
  return data_loss(
      "{}; so it is not known whether node '{}' has the data directory that it served from last. "
      "To "
      "continue with the one that it has, join with accept_data_loss",
      message_of(known.status()), name);
}

absl::Status data_lost(const NodeInfo& before, const NodeInfo& now) {
  return failed_precondition(
      "node '{}' had the data directory {} before and has {} now: its data was lost or replaced, "
      "and "
      "with it "
      "its copies of acknowledged records. If the old directory still exists, start the node with "
      "it. "
      "To go on "
      "without it, join with accept_data_loss; its slots then have one replica less until they are "
      "restored",
      now.name, before.store_id, now.store_id);
}

// The folder bears the right name, but is not what the node served from last.
absl::Status rolled_back(const NodeInfo& node, std::string_view expected, std::string_view found) {
  return failed_precondition(
      "node '{}': its data directory (store {}) is a copy or an earlier state of the one that it "
      "served from last: expected {}, found {}. It lacks acknowledged records. If the newer "
      "directory still exists, start the node with it. To go on without it, join with "
      "accept_data_loss; what it lacks then has one replica less until it is restored. Where all "
      "nodes say so, it may be the cluster block that was set back: bring back the newer one",
      node.name, node.store_id, expected, found);
}

// `seen`: what Options::seen_sequence() said.
absl::Status check_store(const StoreInfo& known, const Membership::Options& options,
                         uint64_t seen) {
  const Membership::Options::Found& found = options.found;
  const NodeInfo& node = options.node;
  if (known.store_id != node.store_id || found.joining.empty()) return absl::OkStatus();
  if (defect(Defect::kEarlierDataJoins)) return absl::OkStatus();
  if (known.token != found.joined && known.token != found.joining) {
    return rolled_back(node, fmt::format("the directory of join {}", known.token),
                       found.joined.empty() ? "one that never joined"
                                            : fmt::format("that of join {}", found.joined));
  }
  const uint64_t sequence = std::max(known.sequence, seen);
  if (found.sequence < sequence) {
    return rolled_back(node, fmt::format("at least change {}", sequence),
                       fmt::format("change {}", found.sequence));
  }
  // After the two above: a folder that passed them is the right one, whatever it was opened for.
  if (node.incarnation <= known.incarnation) {
    return rolled_back(node, fmt::format("an incarnation above {}", known.incarnation),
                       fmt::format("{}", node.incarnation));
  }
  return absl::OkStatus();
}

// What the node's document is to be, from what the cluster knows of it.
absl::StatusOr<NodeInfo> merged(const KnownNode& known, const Membership::Options& options) {
  NodeInfo info = options.node;
  if (!known.info) {
    if (!info.weight_explicit) info.weight = bottleneck_of(info.rates).weight;
    return info;
  }
  const NodeInfo& before = *known.info;
  const bool same_store = before.store_id.empty() || before.store_id == info.store_id;
  if (!same_store && !options.accept_data_loss) return data_lost(before, info);
  info.number = before.number;
  if (info.weight_explicit) return info;
  // Another store is on another disk, for all that is known.
  if (same_store) info.rates = with_work_of(before.rates, info.rates);
  info.weight = bottleneck_of(info.rates).weight;
  if (!before.weight_explicit) info.weight = settled_weight(before.weight, info.weight);
  return info;
}

// The process that holds the name must be gone: it had the lock on the data folder that this one
// has now. (The store's identity alone says nothing: a copy of the folder has it too.)
bool is_surely_dead(const LiveInfo& holder, const Membership::Options& options) {
  const bool same_lock = holder.lock == options.found.lock || defect(Defect::kCopyTakesTheName);
  return !options.found.lock.empty() && same_lock && holder.store_id == options.node.store_id &&
         holder.incarnation < options.node.incarnation;
}

// For how long a process serves after it last saw the name its own.
int64_t served_ms(const Membership::Options& options) {
  return Membership::kServedLeases * options.ttl_ms;
}

// For how long the process that had the name last, whose lease is over, may still answer; 0: it
// surely does not.
uint64_t may_serve_ms(const Known<StoreInfo>& last, const Membership::Options& options) {
  if (defect(Defect::kNamesakesOverlap)) return 0;
  if (!last.info) {
    // Damaged: whoever wrote it may have been like this one.
    return last.revision == 0 ? 0 : static_cast<uint64_t>(served_ms(options));
  }
  const StoreInfo& store = *last.info;
  const bool same_lock = !store.lock.empty() && store.lock == options.found.lock;
  return store.left || same_lock || has_surely_ended(store.process) ? 0 : store.serves_ms;
}

bool has_lost_data(const KnownNode& known, const Known<StoreInfo>& store,
                   const Membership::Options& options, uint64_t seen) {
  if (!known.info) return false;  // it had none
  return !store.info || store.info->store_id != options.node.store_id ||
         !check_store(*store.info, options, seen).ok();
}

// Stored by a join like this one that was never confirmed: its answer was lost, or its process
// ended right after it. Whether it knew of lost data is not known any more; the ceiling says that
// there were data before it.
bool is_unconfirmed(const Known<StoreInfo>& store, const Membership::Options& options) {
  return store.info && !options.found.joining.empty() &&
         store.info->token == options.found.joining && store.info->ceiling != 0;
}

// What was lost may have been the only clock, of those that are asked for a version, that had
// passed some acknowledged write. Clocks follow the time, and are published as they go on; what a
// node stamps while it cannot publish, and how far clocks differ, is allowed for. `waited_ms`:
// since the node's own clock was read.
absl::StatusOr<uint64_t> floor_behind_lost_data(ClusterBlock& block,
                                                const Membership::Options& options,
                                                int64_t waited_ms) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterInfo cluster, load_cluster(block));
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing stores, block.list(kStoresPrefix));
  uint64_t largest = options.found.clock;
  for (const ClusterEntry& entry : stores.entries) {
    const auto store = decode_store_info(entry.key, entry.value);
    if (store.ok()) largest = std::max(largest, store->ceiling);
  }
  const int64_t since_ms =
      waited_ms + options.ttl_ms + ClusterBlock::kMaxLeaseDelayMs + 2 * cluster.max_clock_offset_ms;
  return largest + Version::make_stamp(static_cast<uint64_t>(since_ms), 0);
}

}  // namespace

absl::Status create_cluster(ClusterBlock& block, const ClusterInfo& info) {
  SLUICE_RETURN_IF_ERROR(check(info));
  const absl::Status status = block.compare_and_swap(kClusterKey, encode(info), 0).status();
  if (!absl::IsAborted(status)) return status;
  SLUICE_ASSIGN_OR_RETURN(const ClusterInfo existing, load_cluster(block));
  return already_exists("there is a cluster here already, {}", existing.uuid);
}

absl::StatusOr<ClusterInfo> load_cluster(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(kClusterKey));
  if (!entry) return not_found("no cluster was made in this cluster block yet");
  return decode_cluster_info(entry->key, entry->value);
}

std::string_view name_of(NodeState state) {
  switch (state) {
    case NodeState::kDown:
      return "down";
    case NodeState::kLive:
      return "live";
    case NodeState::kFull:
      return "full";
    case NodeState::kReadOnly:
      return "read-only";
  }
  return "";
}

absl::StatusOr<std::vector<Member>> list_members(ClusterBlock& block) {
  // Live keys first: a node seen live has its document by then.
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing live, block.list(kLivePrefix));
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing nodes, block.list(kNodesPrefix));
  std::vector<Member> members;
  for (const ClusterEntry& entry : nodes.entries) {
    SLUICE_ASSIGN_OR_RETURN(NodeInfo info, decode_node_info(entry.key, entry.value));
    const std::string key = live_key(info.name);
    const bool is_live = std::any_of(live.entries.begin(), live.entries.end(),
                                     [&](const ClusterEntry& e) { return e.key == key; });
    members.push_back({std::move(info), is_live});
  }
  std::sort(members.begin(), members.end(),
            [](const Member& a, const Member& b) { return a.info.number < b.info.number; });
  return members;
}

absl::StatusOr<Member> find_member(ClusterBlock& block, std::string_view name) {
  SLUICE_RETURN_IF_ERROR(check_node_name(name));
  SLUICE_ASSIGN_OR_RETURN(const KnownNode known, load_node(block, name));
  if (!known.info) return not_found("no node '{}' in this cluster", name);
  SLUICE_ASSIGN_OR_RETURN(const auto live, block.get(live_key(name)));
  return Member{*known.info, live.has_value()};
}

absl::Status remove_node(ClusterBlock& block, std::string_view name) {
  for (int i = 0; i < kSwapTries; ++i) {
    SLUICE_RETURN_IF_ERROR(check_node_name(name));
    SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(node_key(name)));
    if (!entry) return not_found("no node '{}' in this cluster", name);
    const absl::Status status =
        block
            .commit({ClusterOp::erase(entry->key, entry->revision),
                     ClusterOp::erase(store_key(name)), ClusterOp::check(live_key(name), 0)})
            .status();
    if (!absl::IsAborted(status)) return status;
    SLUICE_ASSIGN_OR_RETURN(const auto live, block.get(live_key(name)));
    if (live) return failed_precondition("node '{}' is live; stop it before it is removed", name);
  }
  return aborted("node '{}' changes all the time; try again", name);
}

absl::StatusOr<std::unique_ptr<MemberWatch>> MemberWatch::start(ClusterBlock& block,
                                                                std::function<void()> changed) {
  std::unique_ptr<MemberWatch> watch(new MemberWatch);
  watch->changed_ = std::move(changed);
  const auto callback = [self = watch.get()](const WatchEvent&) { self->changed_(); };
  SLUICE_ASSIGN_OR_RETURN(watch->nodes_, block.watch(kNodesPrefix, 0, callback));
  SLUICE_ASSIGN_OR_RETURN(watch->live_, block.watch(kLivePrefix, 0, callback));
  return watch;
}

// Until when a process may serve. Thread-safe.
class Membership::Term {
 public:
  Term(std::function<void(int64_t)> serve_until, int64_t served_ns)
      : serve_until_(std::move(serve_until)), served_ns_(served_ns) {}
  // The name was this process's at some moment since then.
  void extend(int64_t seen_ns) {
    const MutexLock lock(mutex_);
    if (over_ || (seen_ns_ && seen_ns <= *seen_ns_)) return;
    seen_ns_ = seen_ns;
    if (serve_until_) serve_until_(seen_ns + served_ns_);
  }
  // It is another process's.
  void end() {
    const MutexLock lock(mutex_);
    over_ = true;
    if (serve_until_) serve_until_(0);
  }

 private:
  const std::function<void(int64_t)> serve_until_;
  const int64_t served_ns_;
  Mutex mutex_;
  std::optional<int64_t> seen_ns_ SLUICE_GUARDED_BY(mutex_);
  bool over_ SLUICE_GUARDED_BY(mutex_) = false;
};

// A node's way into the cluster.
class Membership::Joining {
 public:
  Joining(ClusterBlock& block, Options options)
      : block_(block),
        options_(std::move(options)),
        name_(options_.node.name),
        live_{make_uuid(), options_.node.store_id, options_.node.incarnation, ::getpid(),
              options_.found.lock},
        term_(std::make_shared<Term>(options_.serve_until, served_ms(options_) * kMs)),
        begun_ms_(options_.clock->monotonic_ms()) {
    be_patient();
  }
  absl::StatusOr<std::unique_ptr<Membership>> run();

 private:
  // What the cluster knows of the name.
  struct View {
    KnownNode node;
    NodeInfo info;  // as it is to be
    Known<StoreInfo> store;
    std::optional<ClusterEntry> holder;
    absl::StatusOr<LiveInfo> live = not_found("nobody");
    bool is_own = false;   // stored by a commit whose answer was lost
    bool is_free = false;  // no process that may live has it
  };
  absl::StatusOr<View> look();
  // Whether the name may be taken now. Where it may be later, waits a little, and it is to be
  // looked at again.
  absl::StatusOr<bool> may_take(const View& view);
  absl::StatusOr<bool> has_been_silent(const View& view);
  absl::StatusOr<std::unique_ptr<Membership>> take(View view);
  void ask_peers() { seen_ = options_.seen_sequence ? options_.seen_sequence() : 0; }
  // Whether the data directory is what the cluster and the peers know of it.
  absl::Status check_found(const View& view) const;
  void be_patient() {
    takeover_.emplace(*options_.clock, options_.takeover_wait_ms);
    patience_.emplace(*options_.clock, kJoinPatienceMs);
  }

  ClusterBlock& block_;
  Options options_;
  const std::string name_;
  const LiveInfo live_;
  const std::shared_ptr<Term> term_;
  const int64_t begun_ms_;
  std::optional<Deadline> takeover_;  // for a live process to end
  std::optional<Deadline> patience_;  // with the cluster block
  uint64_t seen_ = 0;                 // what the peers said
  bool seen_is_old_ = true;           // another process may have served since
  // Since when nobody has had the name, while the store's document was this one.
  int64_t silent_since_ns_ = 0;
  std::optional<Revision> silent_store_;
  NameLease lease_;
};

absl::StatusOr<std::unique_ptr<Membership>> Membership::Joining::run() {
  for (;;) {
    absl::StatusOr<std::unique_ptr<Membership>> joined = nullptr;
    const absl::StatusOr<View> view = look();
    const absl::StatusOr<bool> free =
        view.ok() ? may_take(*view) : absl::StatusOr<bool>(view.status());
    if (!free.ok()) {
      joined = free.status();
    } else if (*free) {
      joined = take(*view);
    } else {
      continue;
    }
    if (joined.ok()) return joined;
    const absl::Status& status = joined.status();
    // The cluster block is out of reach, or takes no writes because its disk is slow or others
    // write.
    if (absl::IsUnavailable(status) && patience_->pause(kWaitStepMs)) continue;
    // Somebody else joined or changed something at the same time: all is looked at again.
    if (absl::IsAborted(status) && !takeover_->passed()) continue;
    if (lease_.keeper != nullptr) lease_.keeper->revoke().IgnoreError();
    return joined;
  }
}

absl::StatusOr<Membership::Joining::View> Membership::Joining::look() {
  View view;
  SLUICE_ASSIGN_OR_RETURN(view.node, load_node(block_, name_));
  SLUICE_ASSIGN_OR_RETURN(view.info, merged(view.node, options_));
  SLUICE_ASSIGN_OR_RETURN(view.store, load_store(block_, name_, options_.accept_data_loss));
  SLUICE_ASSIGN_OR_RETURN(view.holder, block_.get(live_key(name_)));
  if (view.holder) view.live = decode_live_info(view.holder->key, view.holder->value);
  view.is_own = view.live.ok() && view.live->instance == live_.instance &&
                !defect(Defect::kLostJoinIsAnothers);
  view.is_free =
      !view.holder || view.is_own || (view.live.ok() && is_surely_dead(*view.live, options_));
  if (view.is_free && std::exchange(seen_is_old_, false)) ask_peers();
  SLUICE_RETURN_IF_ERROR(check_found(view));
  return view;
}

absl::Status Membership::Joining::check_found(const View& view) const {
  // What is known of the store is the joining process's own where the key is.
  if (!view.store.info || options_.accept_data_loss || view.is_own) return absl::OkStatus();
  return check_store(*view.store.info, options_, seen_);
}

absl::StatusOr<bool> Membership::Joining::may_take(const View& view) {
  if (!view.holder) return has_been_silent(view);
  if (view.is_free) return true;
  silent_store_.reset();
  seen_is_old_ = true;
  if (takeover_->pause(kWaitStepMs)) return false;
  const bool is_copy = view.live.ok() && view.live->store_id == options_.node.store_id;
  return already_exists("node '{}' is live already, in process {}{}; names are unique in a cluster",
                        name_, view.live.ok() ? view.live->process : 0,
                        is_copy ? " with another copy of this data directory" : "");
}

// Each process that has the name stores the store's document: one that came and went between two
// looks is seen by its revision.
absl::StatusOr<bool> Membership::Joining::has_been_silent(const View& view) {
  const uint64_t serves_ms = may_serve_ms(view.store, options_);
  if (serves_ms == 0) return true;
  // And what clocks may differ by in their rates.
  const auto needed_ns = static_cast<int64_t>(serves_ms + serves_ms / 10) * kMs;
  const int64_t now_ns = options_.clock->monotonic_ns();
  if (silent_store_ != view.store.revision) {
    silent_store_ = view.store.revision;
    silent_since_ns_ = now_ns;
    spdlog::info("{}: waits {:.1f} s, for which the process that had the name may still serve",
                 name_, static_cast<double>(needed_ns) / 1e9);
  }
  if (now_ns - silent_since_ns_ >= needed_ns) {
    // What it answered meanwhile is known to its peers at most.
    ask_peers();
    SLUICE_RETURN_IF_ERROR(check_found(view));
    return true;
  }
  if (options_.stop_asked && options_.stop_asked()) {
    return cancelled("node '{}' was stopped before it had joined", name_);
  }
  options_.clock->sleep_ns(std::clamp<int64_t>(options_.ttl_ms / 4, 1, kSilenceStepMs) * kMs);
  be_patient();
  return false;
}

absl::StatusOr<std::unique_ptr<Membership>> Membership::Joining::take(View view) {
  // Renewed from here on: the commit below may take longer than a lease.
  if (lease_.keeper == nullptr) {
    SLUICE_ASSIGN_OR_RETURN(lease_, grant(block_, options_, term_));
  }
  const int64_t seen_ns = options_.clock->monotonic_ns();
  std::vector<ClusterOp> ops;
  if (!view.node.info) {
    SLUICE_ASSIGN_OR_RETURN(const auto number, next_number(block_));
    view.info.number = number.first;
    ops.push_back(ClusterOp::put(kNextNumberKey, std::to_string(number.first + 1), number.second));
  }
  const bool is_lost = is_unconfirmed(view.store, options_) ||
                       (options_.accept_data_loss && !view.is_own &&
                        has_lost_data(view.node, view.store, options_, seen_));
  Joined joined{std::move(view.info), live_, {}, 0, lease_.keeper, term_, 0, is_lost};
  joined.clock_floor = view.store.info ? view.store.info->ceiling : 0;
  if (is_lost) {
    const int64_t waited_ms = options_.clock->monotonic_ms() - begun_ms_;
    SLUICE_ASSIGN_OR_RETURN(joined.clock_floor,
                            floor_behind_lost_data(block_, options_, waited_ms));
  }
  joined.store.store_id = options_.node.store_id;
  joined.store.incarnation = options_.node.incarnation;
  joined.store.token = options_.found.joining;
  joined.store.sequence = options_.found.sequence;
  joined.store.ceiling = joined.clock_floor;
  joined.store.lock = options_.found.lock;
  joined.store.process = process_identity();
  joined.store.serves_ms = static_cast<uint64_t>(served_ms(options_));
  ops.push_back(ClusterOp::put(node_key(name_), encode(joined.node), view.node.revision));
  ops.push_back(ClusterOp::put(live_key(name_), encode(live_),
                               view.holder ? view.holder->revision : 0, lease_.keeper->id()));
  ops.push_back(ClusterOp::put(store_key(name_), encode(joined.store), view.store.revision));
  const auto committed = block_.commit(ops);
  if (absl::IsFailedPrecondition(committed.status())) {
    lease_ = {};
    return unavailable(
        "node '{}': its lease of {} ms ended before it had joined, because this process stood "
        "still or the cluster block does not answer: start it again",
        name_, options_.ttl_ms);
  }
  SLUICE_RETURN_IF_ERROR(committed.status());
  joined.store_revision = *committed;
  *lease_.has_name = true;
  term_->extend(seen_ns);
  std::unique_ptr<Membership> membership(new Membership(block_, options_, std::move(joined)));
  SLUICE_RETURN_IF_ERROR(membership->start());
  return membership;
}

absl::StatusOr<std::unique_ptr<Membership>> Membership::join(ClusterBlock& block, Options options) {
  SLUICE_RETURN_IF_ERROR(check(options.node));
  SLUICE_RETURN_IF_ERROR(load_cluster(block).status());
  if (options.clock == nullptr) options.clock = &system_clock();
  if (options.takeover_wait_ms < 0) {
    options.takeover_wait_ms = options.ttl_ms + ClusterBlock::kMaxLeaseDelayMs;
  }
  return Joining(block, std::move(options)).run();
}

Membership::Membership(ClusterBlock& block, Options options, Joined joined)
    : block_(block),
      options_(std::move(options)),
      live_(std::move(joined.live)),
      term_(std::move(joined.term)),
      clock_floor_(joined.clock_floor),
      lost_data_(joined.lost_data),
      joined_at_(joined.store_revision),
      store_(std::move(joined.store)),
      store_revision_(joined.store_revision),
      info_(std::move(joined.node)),
      lease_(std::move(joined.lease)) {}

absl::StatusOr<Membership::NameLease> Membership::grant(ClusterBlock& block, const Options& options,
                                                        const std::shared_ptr<Term>& term) {
  auto has_name = std::make_shared<std::atomic<bool>>(false);
  LeaseKeeper::Options keeping;
  keeping.clock = options.clock;
  keeping.ttl_ms = options.ttl_ms;
  // While the lease is there, so is the key that is bound to it.
  keeping.renewed = [term, has_name](int64_t asked_ns) {
    if (*has_name) term->extend(asked_ns);
  };
  SLUICE_ASSIGN_OR_RETURN(std::shared_ptr<LeaseKeeper> keeper,
                          LeaseKeeper::grant(block, std::move(keeping)));
  return NameLease{std::move(keeper), std::move(has_name)};
}

absl::Status Membership::start() {
  SLUICE_ASSIGN_OR_RETURN(keeper_, start_thread("keeping a node's membership", [this] { keep(); }));
  return absl::OkStatus();
}

Membership::~Membership() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (keeper_.joinable()) keeper_.join();
  absl::Status told = lost_ ? absl::OkStatus() : publish(true);
  // Not waited for beyond the block's own bounds: the lease ends by itself.
  told.Update(lease_->revoke());
  if (told.ok()) return;
  spdlog::warn(
      "{}: could not tell the cluster block that it stops ({}); it is listed as live until its "
      "lease ends, in {} s or later",
      options_.node.name, message_of(told), options_.ttl_ms / 1000);
}

std::shared_ptr<LeaseKeeper> Membership::lease() const {
  const MutexLock lock(mutex_);
  return lease_;
}

NodeInfo Membership::info() const {
  const MutexLock lock(mutex_);
  return info_;
}

absl::Status Membership::status() const {
  const MutexLock lock(mutex_);
  return status_;
}

void Membership::keep() {
  int64_t publish_after_ns = 0;
  MutexLock lock(mutex_);
  while (!stopping_ && !lost_) {
    wake_.wait_for(lock, std::chrono::milliseconds(std::max<int64_t>(options_.ttl_ms / 4, 1)),
                   [&]() SLUICE_REQUIRES(mutex_) { return stopping_; });
    if (stopping_) return;
    lock.unlock();
    absl::Status status = guarded("keeping the membership", [this] { return check_in(); });
    const int64_t begun_ns = options_.clock->monotonic_ns();
    if (status.ok() && begun_ns >= publish_after_ns) {
      status = guarded("keeping the membership", [this] { return publish(); });
      // A cluster block that takes no writes now keeps the weight that it knows.
      if (status.ok() && options_.rates) {
        if (const auto rates = options_.rates()) offer_rates(*rates).IgnoreError();
      }
      const int64_t ended_ns = options_.clock->monotonic_ns();
      publish_after_ns = ended_ns + (ended_ns - begun_ns) * (kPublishingShare - 1);
    }
    lock.lock();
    status_ = status;
    lost_ = absl::IsAlreadyExists(status);
    if (lost_) term_->end();
  }
  if (!lost_ || !options_.on_lost) return;
  const absl::Status why = status_;
  lock.unlock();
  options_.on_lost(why);
}

// ALREADY_EXISTS when the name is another process's now.
absl::Status Membership::check_in() {
  const absl::Status kept = lease()->status();
  if (!kept.ok() && !absl::IsNotFound(kept)) return kept;
  SLUICE_ASSIGN_OR_RETURN(const auto holder, block_.get(live_key(options_.node.name)));
  if (!holder) return revive(0);
  const auto live = decode_live_info(holder->key, holder->value);
  if (!live.ok()) return revive(holder->revision);
  if (live->instance == live_.instance) return absl::OkStatus();
  return already_exists("node name '{}' was taken over by process {}", options_.node.name,
                        live->process);
}

// Tells the cluster how far the data folder has come, so that an earlier state of it is not taken
// for it. ALREADY_EXISTS when another process joined with the name.
absl::Status Membership::publish(bool leaving) {
  const Options::Progress progress = options_.progress ? options_.progress() : Options::Progress{};
  if (progress.sequence <= store_.sequence && progress.ceiling <= store_.ceiling && !leaving) {
    return absl::OkStatus();
  }
  StoreInfo next = store_;
  next.left = leaving;
  next.sequence = std::max(next.sequence, progress.sequence);
  next.ceiling = std::max(next.ceiling, progress.ceiling);
  const std::string key = store_key(options_.node.name);
  auto stored = block_.compare_and_swap(key, encode(next), store_revision_);
  if (absl::IsAborted(stored.status())) {
    // An earlier answer may have been lost; or it is somebody else's now, or damaged.
    SLUICE_ASSIGN_OR_RETURN(const auto entry, block_.get(key));
    const auto other = entry ? decode_store_info(entry->key, entry->value)
                             : absl::StatusOr<StoreInfo>(not_found("{} is gone", key));
    if (other.ok() && !is_of_this_join(*other) && !defect(Defect::kLapsedNodeReturns)) {
      return already_exists("node '{}' was joined by another process, in incarnation {}",
                            options_.node.name, other->incarnation);
    }
    stored = block_.compare_and_swap(key, encode(next), entry ? entry->revision : 0);
  }
  SLUICE_RETURN_IF_ERROR(stored.status());
  store_ = std::move(next);
  store_revision_ = *stored;
  return absl::OkStatus();
}

// The lease ended, because this process was stopped for long or the storage was away, and nobody
// took the name; or the document is damaged, which nobody who took the name would have done.
absl::Status Membership::revive(Revision held) {
  SLUICE_ASSIGN_OR_RETURN(const auto known, block_.get(node_key(options_.node.name)));
  if (!known) {
    return already_exists("node '{}' was removed from the cluster", options_.node.name);
  }
  // Another process may have joined and gone meanwhile: what it acknowledged is not here.
  SLUICE_ASSIGN_OR_RETURN(const auto store, load_store(block_, options_.node.name, true));
  if (store.info && !is_of_this_join(*store.info) && !defect(Defect::kLapsedNodeReturns)) {
    return already_exists("node '{}' was joined by another process, in incarnation {}",
                          options_.node.name, store.info->incarnation);
  }
  SLUICE_ASSIGN_OR_RETURN(const NameLease lease, grant(block_, options_, term_));
  const int64_t seen_ns = options_.clock->monotonic_ns();
  // The store's document is stored again as well: whoever waits for this process sees it change.
  const auto committed = block_.commit(
      {ClusterOp::put(live_key(options_.node.name), encode(live_), held, lease.keeper->id()),
       ClusterOp::put(store_key(options_.node.name), encode(store_), store.revision),
       ClusterOp::check(known->key, known->revision)});
  if (!committed.ok()) {
    lease.keeper->revoke().IgnoreError();
    if (absl::IsAborted(committed.status())) {
      return unavailable("node '{}' is not live: {}", options_.node.name,
                         message_of(committed.status()));
    }
    return committed.status();
  }
  store_revision_ = *committed;
  *lease.has_name = true;
  term_->extend(seen_ns);
  const MutexLock lock(mutex_);
  lease_ = lease.keeper;
  return absl::OkStatus();
}

// With a copy of a directory that was about to join, two processes have one token.
bool Membership::is_of_this_join(const StoreInfo& store) const {
  return store.token == store_.token && store.incarnation == store_.incarnation;
}

absl::Status Membership::update(const std::function<void(NodeInfo&)>& change) {
  for (int i = 0; i < kSwapTries; ++i) {
    SLUICE_ASSIGN_OR_RETURN(const KnownNode known, load_node(block_, options_.node.name));
    if (!known.info) return not_found("no node '{}' in this cluster", options_.node.name);
    NodeInfo info = *known.info;
    change(info);
    info.name = known.info->name;
    info.number = known.info->number;
    info.store_id = known.info->store_id;
    SLUICE_RETURN_IF_ERROR(check(info));
    if (info != *known.info) {
      const absl::Status status =
          block_.compare_and_swap(node_key(info.name), encode(info), known.revision).status();
      if (absl::IsAborted(status)) continue;
      SLUICE_RETURN_IF_ERROR(status);
    }
    const MutexLock lock(mutex_);
    info_ = info;
    return absl::OkStatus();
  }
  return aborted("node '{}' changes all the time; try again", options_.node.name);
}

absl::StatusOr<bool> Membership::offer_rates(const MeasuredRates& rates) {
  const NodeInfo now = info();
  const double settled = settled_weight(now.weight, bottleneck_of(rates).weight);
  if (now.weight_explicit || (settled == now.weight && !is_news(now.rates, rates))) return false;
  SLUICE_RETURN_IF_ERROR(update([&](NodeInfo& info) {
    info.weight = settled;
    info.rates = rates;
  }));
  return true;
}

}  // namespace sluice

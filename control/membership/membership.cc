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
namespace {

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

// A document as it is now; without `info` where there is none.
template <typename Info>
struct Known {
  std::optional<Info> info;
  Revision revision = 0;
};
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

using KnownNode = Known<NodeInfo>;
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

// The process that served by the name last, whose lease is over, may still answer: it is only known
// that it will have stopped so much later.
bool may_still_serve(const StoreInfo& last, const Membership::Options& options) {
  if (defect(Defect::kNamesakesOverlap)) return false;
  const bool same_lock = !last.lock.empty() && last.lock == options.found.lock;
  return last.serves_ms > 0 && !last.left && !same_lock && !has_surely_ended(last.process);
}

// How long a node that joins has seen nobody by its name.
class Silence {
 public:
  enum class State { kBegins, kLasts, kIsOver };
  explicit Silence(Clock& clock) : clock_(clock) {}
  void broken() { begun_ = false; }
  // Over once it has lasted for `serves_ms`, and what clocks may differ in their rates.
  State observe(uint64_t serves_ms) {
    const int64_t now_ns = clock_.monotonic_ns();
    if (!begun_) {
      begun_ = true;
      since_ns_ = now_ns;
      return State::kBegins;
    }
    const auto needed_ns = static_cast<int64_t>(serves_ms + serves_ms / 10) * kMs;
    return now_ns - since_ns_ < needed_ns ? State::kLasts : State::kIsOver;
  }

 private:
  Clock& clock_;
  bool begun_ = false;
  int64_t since_ns_ = 0;
};

bool has_lost_data(const KnownNode& known, const Known<StoreInfo>& store,
                   const Membership::Options& options, uint64_t seen) {
  if (!known.info) return false;  // it had none
  return !store.info || store.info->store_id != options.node.store_id ||
         !check_store(*store.info, options, seen).ok();
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

absl::StatusOr<std::unique_ptr<Membership>> Membership::join(ClusterBlock& block, Options options) {
  SLUICE_RETURN_IF_ERROR(check(options.node));
  SLUICE_RETURN_IF_ERROR(load_cluster(block).status());
  if (options.clock == nullptr) options.clock = &system_clock();
  if (options.takeover_wait_ms < 0) {
    options.takeover_wait_ms = options.ttl_ms + ClusterBlock::kMaxLeaseDelayMs;
  }
  const std::string& name = options.node.name;
  const LiveInfo live{make_uuid(), options.node.store_id, options.node.incarnation, ::getpid(),
                      options.found.lock};
  std::optional<Deadline> takeover(std::in_place, *options.clock, options.takeover_wait_ms);
  Deadline patience(*options.clock, kJoinPatienceMs);
  const int64_t begun_ms = options.clock->monotonic_ms();
  Silence silence(*options.clock);
  const auto ask_peers = [&] { return options.seen_sequence ? options.seen_sequence() : 0; };
  uint64_t seen = ask_peers();
  bool heard_out = false;
  // Renewed from here on: the commit below may take longer than a lease.
  SLUICE_ASSIGN_OR_RETURN(std::shared_ptr<LeaseKeeper> lease, grant(block, options));
  const auto give_up = [&](absl::Status status) {
    lease->revoke().IgnoreError();
    return status;
  };
  for (;;) {
    const auto known = load_node(block, name);
    if (!known.ok()) return give_up(known.status());
    auto info = merged(*known, options);
    if (!info.ok()) return give_up(info.status());
    const auto store = load_store(block, name, options.accept_data_loss);
    if (!store.ok()) return give_up(store.status());
    const auto holder = block.get(live_key(name));
    if (!holder.ok()) return give_up(holder.status());
    absl::StatusOr<LiveInfo> other = not_found("nobody");
    if (*holder) other = decode_live_info((*holder)->key, (*holder)->value);
    // After a commit whose answer was lost: what is known of the store is what it wrote.
    const bool is_own =
        other.ok() && other->instance == live.instance && !defect(Defect::kLostJoinIsAnothers);
    if (store->info && !options.accept_data_loss && !is_own) {
      if (absl::Status status = check_store(*store->info, options, seen); !status.ok()) {
        return give_up(status);
      }
    }
    Revision held = 0;
    if (*holder) {
      silence.broken();
      heard_out = false;
      const bool is_free = is_own || (other.ok() && is_surely_dead(*other, options));
      if (is_free) held = (*holder)->revision;
      if (held == 0) {
        if (!takeover->pause(kWaitStepMs)) {
          return give_up(already_exists(
              "node '{}' is live already, in process {}{}; names are unique in a cluster", name,
              other.ok() ? other->process : 0,
              other.ok() && other->store_id == options.node.store_id
                  ? " with another copy of this data directory"
                  : ""));
        }
        continue;
      }
    } else if (!heard_out && store->info && may_still_serve(*store->info, options)) {
      const Silence::State state = silence.observe(store->info->serves_ms);
      if (state == Silence::State::kBegins) {
        spdlog::info("{}: waits {} s, for which the process that had the name may still serve",
                     name, store->info->serves_ms / 1000);
      }
      // What it answered meanwhile is known to its peers at most.
      heard_out = state == Silence::State::kIsOver;
      if (heard_out) {
        seen = ask_peers();
      } else {
        options.clock->sleep_ns(std::clamp<int64_t>(options.ttl_ms / 4, 1, kSilenceStepMs) * kMs);
      }
      takeover.emplace(*options.clock, options.takeover_wait_ms);
      continue;
    }
    const int64_t seen_ns = options.clock->monotonic_ns();
    std::vector<ClusterOp> ops;
    if (!known->info) {
      const auto number = next_number(block);
      if (!number.ok()) return give_up(number.status());
      info->number = number->first;
      ops.push_back(
          ClusterOp::put(kNextNumberKey, std::to_string(number->first + 1), number->second));
    }
    ops.push_back(ClusterOp::put(node_key(name), encode(*info), known->revision));
    ops.push_back(ClusterOp::put(live_key(name), encode(live), held, lease->id()));
    const bool is_lost =
        options.accept_data_loss && !is_own && has_lost_data(*known, *store, options, seen);
    const auto floor =
        is_lost ? floor_behind_lost_data(block, options, options.clock->monotonic_ms() - begun_ms)
                : absl::StatusOr<uint64_t>(store->info ? store->info->ceiling : 0);
    if (!floor.ok()) return give_up(floor.status());
    Joined joined{*std::move(info), live, {}, 0, lease, *floor, is_lost};
    joined.store = {options.node.store_id,
                    options.node.incarnation,
                    options.found.joining,
                    options.found.sequence,
                    joined.clock_floor,
                    options.found.lock,
                    process_identity(),
                    static_cast<uint64_t>(options.ttl_ms * kServedLeases),
                    false};
    ops.push_back(ClusterOp::put(store_key(name), encode(joined.store), store->revision));
    const auto committed = block.commit(ops);
    const absl::Status& status = committed.status();
    if (status.ok()) {
      joined.store_revision = *committed;
      std::unique_ptr<Membership> membership(
          new Membership(block, std::move(options), std::move(joined)));
      membership->serve_from(seen_ns);
      SLUICE_RETURN_IF_ERROR(membership->start());
      return membership;
    }
    // The cluster block takes no writes now, because its disk is slow or others write.
    if (absl::IsFailedPrecondition(status)) {
      return give_up(
          unavailable("node '{}': its lease of {} ms ended before it had joined, because this "
                      "process stood still or the cluster block does not answer: start it again",
                      name, options.ttl_ms));
    }
    if (absl::IsUnavailable(status) && patience.pause(kWaitStepMs)) continue;
    // Somebody else joined or changed something at the same time: all is looked at again.
    if (!absl::IsAborted(status)) return give_up(status);
    if (takeover->passed()) return give_up(status);
  }
}

Membership::Membership(ClusterBlock& block, Options options, Joined joined)
    : block_(block),
      options_(std::move(options)),
      live_(std::move(joined.live)),
      clock_floor_(joined.clock_floor),
      lost_data_(joined.lost_data),
      joined_at_(joined.store_revision),
      store_(std::move(joined.store)),
      store_revision_(joined.store_revision),
      info_(std::move(joined.node)),
      lease_(std::move(joined.lease)) {}

absl::StatusOr<std::unique_ptr<LeaseKeeper>> Membership::grant(ClusterBlock& block,
                                                               const Options& options) {
  LeaseKeeper::Options keeping;
  keeping.clock = options.clock;
  keeping.ttl_ms = options.ttl_ms;
  return LeaseKeeper::grant(block, std::move(keeping));
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
  const int64_t asked_ns = options_.clock->monotonic_ns();
  SLUICE_ASSIGN_OR_RETURN(const auto holder, block_.get(live_key(options_.node.name)));
  if (!holder) return revive(0);
  const auto live = decode_live_info(holder->key, holder->value);
  if (!live.ok()) return revive(holder->revision);
  if (live->instance == live_.instance) {
    serve_from(asked_ns);
    return absl::OkStatus();
  }
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
    if (other.ok() && other->token != store_.token && !defect(Defect::kLapsedNodeReturns)) {
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
  const auto store = load_store(block_, options_.node.name, true);
  if (store.ok() && store->info && store->info->token != store_.token &&
      !defect(Defect::kLapsedNodeReturns)) {
    return already_exists("node '{}' was joined by another process, in incarnation {}",
                          options_.node.name, store->info->incarnation);
  }
  SLUICE_ASSIGN_OR_RETURN(std::shared_ptr<LeaseKeeper> lease, grant(block_, options_));
  const int64_t seen_ns = options_.clock->monotonic_ns();
  const absl::Status status =
      block_
          .commit({ClusterOp::put(live_key(options_.node.name), encode(live_), held, lease->id()),
                   ClusterOp::check(known->key, known->revision)})
          .status();
  if (!status.ok()) {
    lease->revoke().IgnoreError();
    if (absl::IsAborted(status))
      return unavailable("node '{}' is not live: {}", options_.node.name, message_of(status));
    return status;
  }
  {
    const MutexLock lock(mutex_);
    lease_.swap(lease);
  }
  serve_from(seen_ns);
  return absl::OkStatus();
}

void Membership::serve_from(int64_t seen_ns) {
  if (options_.serve_until) options_.serve_until(seen_ns + kServedLeases * options_.ttl_ms * kMs);
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

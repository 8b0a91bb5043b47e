// The cluster public storage block: small shared documents (the cluster's description, its members,
// the distribution table, schedules) with compare-and-swap, transactions, leases and watch. What it
// holds is seen by all nodes.
//
// Threads: every method of a ClusterBlock may be called from any thread. Callbacks of watches run
// on one thread of the block, one at a time; they may call the block. Lifetime: a WatchHandle may
// outlive its block; it then does nothing. Limits: keys of 1 to kMaxKeyBytes bytes, values of at
// most kMaxValueBytes, transactions of at most kMaxOps and kMaxCommitBytes. Beyond them:
// INVALID_ARGUMENT, and nothing is changed. Errors of all methods, besides those named: UNAVAILABLE
// (storage busy or unreachable for longer than its bounded wait; the caller may try again),
// DATA_LOSS (storage damaged), RESOURCE_EXHAUSTED (no space), PERMISSION_DENIED.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_CLUSTER_BLOCK_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_CLUSTER_BLOCK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"

namespace sluice {

// One number for the whole block; each successful commit that changes something (and each lease's
// end that removes keys) takes a higher one. Where a block shares its storage with others, their
// changes take some too. 0: never written.
using Revision = uint64_t;
// 0: no lease.
using LeaseId = uint64_t;

struct ClusterEntry {
  std::string key;
  std::string value;
  Revision revision = 0;  // of its last change
  LeaseId lease = 0;
  friend bool operator==(const ClusterEntry&, const ClusterEntry&) = default;
};

// All entries under a prefix, in key order, as they were together at `revision`: watch(prefix,
// revision, ...) goes on from there. Without the keys of leases that have ended by now, also where
// their erasure takes a later revision.
struct ClusterListing {
  std::vector<ClusterEntry> entries;
  Revision revision = 0;
};

// One part of a transaction.
struct ClusterOp {
  enum class Kind {
    kPut,
    kErase,  // of a key that is not there: no change
    kCheck,  // compares only
  };
  Kind kind = Kind::kPut;
  std::string key;
  std::string value;
  // The key's revision must be this; 0: the key must not exist. Without it nothing is compared.
  std::optional<Revision> expected;
  LeaseId lease = 0;  // of a put: the key vanishes with it

  static ClusterOp put(std::string key, std::string value, std::optional<Revision> expected = {},
                       LeaseId lease = 0) {
    return {Kind::kPut, std::move(key), std::move(value), expected, lease};
  }
  static ClusterOp erase(std::string key, std::optional<Revision> expected = {}) {
    return {Kind::kErase, std::move(key), {}, expected, 0};
  }
  static ClusterOp check(std::string key, Revision expected) {
    return {Kind::kCheck, std::move(key), {}, expected, 0};
  }
};

struct WatchEvent {
  enum class Kind {
    kPut,
    kErase,
    kResync,  // changes up to `revision` are no longer known one by one: list the prefix again;
              // later changes follow as events
  };
  Kind kind = Kind::kPut;
  std::string key;    // empty for kResync
  std::string value;  // of kPut
  Revision revision = 0;
};

// Ends its watch when it goes. After that no callback runs or begins; a running one is waited for
// (unless the handle goes within that very callback). Move-only.
class WatchHandle {
 public:
  WatchHandle() = default;
  explicit WatchHandle(std::function<void()> stop) : stop_(std::move(stop)) {}
  WatchHandle(WatchHandle&& other) noexcept : stop_(std::exchange(other.stop_, nullptr)) {}
  WatchHandle& operator=(WatchHandle&& other) noexcept {
    if (this != &other) {
      reset();
      stop_ = std::exchange(other.stop_, nullptr);
    }
    return *this;
  }
  ~WatchHandle() { reset(); }
  explicit operator bool() const { return stop_ != nullptr; }
  void reset() {
    if (auto stop = std::exchange(stop_, nullptr)) stop();
  }

 private:
  std::function<void()> stop_;
};

class ClusterBlock {
 public:
  static constexpr size_t kMaxKeyBytes = 512;
  static constexpr size_t kMaxValueBytes = size_t{1} << 20;
  // etcd takes 128 in a transaction, unless it is set up otherwise. One is the block's own
  // (control/cluster_block/etcd_commits.h).
  static constexpr size_t kMaxOps = 127;
  // Keys and values together: 1.25 MiB. etcd takes requests of 1.5 MiB, unless it is set up
  // otherwise; in these each key stands up to three times, behind the cluster's prefix: for kMaxOps
  // keys of kMaxKeyBytes that is less than 190 KiB more.
  static constexpr size_t kMaxCommitBytes = size_t{5} << 18;
  static constexpr int64_t kMinLeaseMs = 10;
  static constexpr int64_t kMaxLeaseMs = 24 * 3600 * 1000;
  // By how much a block may let a lease run longer than ttl_ms: etcd rounds up to 2 s, and looks
  // for leases whose time is over twice a second.
  static constexpr int64_t kMaxLeaseDelayMs = 3000;

  using WatchCallback = std::function<void(const WatchEvent&)>;

  virtual ~ClusterBlock() = default;

  // nullopt where there is none.
  virtual absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) = 0;
  // An empty prefix lists everything.
  virtual absl::StatusOr<ClusterListing> list(std::string_view prefix) = 0;

  // All comparisons hold and all changes are made, durably, at the returned revision; or nothing is
  // changed. ABORTED, naming the key, its revision and the expected one, when a comparison fails.
  // FAILED_PRECONDITION when a put's lease has ended. A key may occur once. After UNAVAILABLE the
  // changes may have been made all the same, and where the storage is remote they may be made
  // still.
  virtual absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) = 0;

  // A lease ends when it was not kept alive for ttl_ms, or for up to kMaxLeaseDelayMs longer, or is
  // revoked; never before. Its keys are gone from that moment on for everybody, and it never comes
  // back. An end that nobody has noticed yet may still be prevented by keep_alive(). A lease runs
  // on for longer where the storage may have stood still together with the lease's holder: up to
  // half of ttl_ms, once, in an SQLite file; its whole time, after each change of leader, in etcd.
  // kMinLeaseMs <= ttl_ms <= kMaxLeaseMs. RESOURCE_EXHAUSTED when the block has no room for another
  // lease.
  virtual absl::StatusOr<LeaseId> grant(int64_t ttl_ms) = 0;
  // NOT_FOUND when the lease has ended. Waits for no commit.
  virtual absl::Status keep_alive(LeaseId lease) = 0;
  // Ends it, and erases its keys. A lease that has ended already is not an error. After UNAVAILABLE
  // it may have ended all the same.
  virtual absl::Status revoke(LeaseId lease) = 0;

  // Reports what changes under `prefix` after revision `after`: for each changed key its newest
  // change, in revision order, at least once. Changes of one key that follow each other quickly may
  // come as the last of them alone. Nothing that is reported later has a lower revision, except
  // after kResync. An `after` that is 0 reports all that is there.
  virtual absl::StatusOr<WatchHandle> watch(std::string_view prefix, Revision after,
                                            WatchCallback callback) = 0;

  // For a process that ends: no call takes longer than `ms` from now on, those that run included;
  // what is not answered by then is UNAVAILABLE. A block in a file of this machine, which answers
  // at once, changes nothing.
  virtual void limit_calls(int64_t ms) = 0;

  // Conveniences, each one commit().
  // ABORTED when the key's revision is not `expected` (0: it must not exist).
  absl::StatusOr<Revision> compare_and_swap(std::string_view key, std::string_view value,
                                            Revision expected, LeaseId lease = 0);
  absl::StatusOr<Revision> put(std::string_view key, std::string_view value, LeaseId lease = 0);
  absl::Status erase(std::string_view key, std::optional<Revision> expected = {});
};

// What --cluster and SLUICE_CLUSTER say.
struct ClusterUrl {
  enum class Kind { kSqlite, kEtcd };
  Kind kind = Kind::kSqlite;
  std::string path;                    // of kSqlite
  std::vector<std::string> endpoints;  // of kEtcd: HOST:PORT each
  std::string prefix;                  // of kEtcd, without slashes around it
};

// sqlite:PATH or etcd://HOST:PORT[,HOST:PORT...]/PREFIX. A prefix has at most kMaxPrefixBytes and
// no part called "doc" or "commit". INVALID_ARGUMENT, naming the URL (unless it may hold a
// password) and the legal forms, for anything else.
inline constexpr size_t kMaxPrefixBytes = 128;
absl::StatusOr<ClusterUrl> parse_cluster_url(std::string_view url);

struct OpenClusterOptions {
  bool create = false;       // whether an SQLite file that is not there is made
  Clock* clock = nullptr;    // the system's when null; etcd has its own
  int64_t call_ms = 10'000;  // of each call to etcd, at most
};

// NOT_FOUND "no cluster at ..." where there is none and it must not be made; DATA_LOSS for a
// damaged file and FAILED_PRECONDITION for one of another program or format. In etcd a cluster
// needs no making; who we are there comes from the environment
// (control/cluster_block/etcd_access.h), and errors are those of open_etcd_cluster_block().
absl::StatusOr<std::unique_ptr<ClusterBlock>> open_cluster_block(
    std::string_view url, const OpenClusterOptions& options = {});
// Opens the block at a URL.
using ClusterBlockOpener =
    std::function<absl::StatusOr<std::unique_ptr<ClusterBlock>>(std::string_view url)>;

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_CLUSTER_BLOCK_H_

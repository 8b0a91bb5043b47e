#include "control/cluster_block/etcd_cluster_block.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "control/cluster_block/checks.h"
#include "control/cluster_block/etcd_calls.h"
#include "control/cluster_block/etcd_client.h"
#include "control/cluster_block/etcd_commits.h"
#include "control/cluster_block/etcd_keys.h"
#include "control/cluster_block/etcd_watches.h"

namespace sluice {
namespace {

using namespace cluster_block;

// Keys in a page of a listing: fewer where values are large.
constexpr int64_t kFirstPage = 64;
constexpr int64_t kLargestPage = 1024;
constexpr size_t kSmallPageBytes = size_t{256} << 10;
constexpr size_t kLargePageBytes = size_t{1} << 20;
// A listing that takes so long that etcd forgets its revision meanwhile begins anew.
constexpr int kListTries = 3;

class EtcdClusterBlock final : public ClusterBlock {
 public:
  explicit EtcdClusterBlock(const EtcdClusterBlockOptions& options)
      : keys_(options.prefix),
        client_(options.endpoints, options.access, keys_.of("")),
        commits_(client_, keys_),
        watches_(client_, keys_, [this](const std::string& prefix) { return list(prefix); }) {
    client_.limit_calls(options.call_ms);
  }
  ~EtcdClusterBlock() override {
    client_.close();
    watches_.stop();
  }

  // Whether etcd answers and serves this user, and its endpoints are of one cluster.
  absl::Status probe() {
    SLUICE_RETURN_IF_ERROR(newest_revision(client_, keys_.of("")).status());
    return client_.compare_endpoints();
  }

  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    SLUICE_RETURN_IF_ERROR(check_key(key));
    etcdserverpb::RangeRequest request;
    request.set_key(keys_.of(key));
    SLUICE_ASSIGN_OR_RETURN(auto response, get_range(client_, request));
    if (response.kvs().empty()) return std::optional<ClusterEntry>();
    return std::optional<ClusterEntry>(entry_of(*response.mutable_kvs(0)));
  }

  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
    for (int tries = 1;; ++tries) {
      auto listing = list_at_one_revision(prefix);
      if (!absl::IsOutOfRange(listing.status())) return listing;
      if (tries == kListTries) return unavailable("{}", message_of(listing.status()));
    }
  }

  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    SLUICE_RETURN_IF_ERROR(check_ops(ops));
    return commits_.commit(ops);
  }

  absl::StatusOr<LeaseId> grant(int64_t ttl_ms) override {
    SLUICE_RETURN_IF_ERROR(check_ttl(ttl_ms));
    return grant_lease(client_, ttl_ms);
  }
  absl::Status keep_alive(LeaseId lease) override { return renew_lease(client_, lease); }
  absl::Status revoke(LeaseId lease) override { return revoke_lease(client_, lease); }
  void limit_calls(int64_t ms) override { client_.limit_calls(ms); }

  absl::StatusOr<WatchHandle> watch(std::string_view prefix, Revision after,
                                    WatchCallback callback) override {
    SLUICE_RETURN_IF_ERROR(check_prefix(prefix));
    return watches_.add(std::string(prefix), after, std::move(callback));
  }

 private:
  ClusterEntry entry_of(etcdserverpb::KeyValue& pair) const {
    return {keys_.ours(pair.key()).value_or(""), std::move(*pair.mutable_value()),
            static_cast<Revision>(pair.mod_revision()), static_cast<LeaseId>(pair.lease())};
  }

  // OUT_OF_RANGE when etcd forgot the revision between two pages.
  absl::StatusOr<ClusterListing> list_at_one_revision(std::string_view prefix) {
    etcdserverpb::RangeRequest request;
    request.set_key(keys_.of(prefix));
    request.set_range_end(keys_.end_of(prefix));
    ClusterListing listing;
    for (int64_t page = kFirstPage;;) {
      request.set_limit(page);
      auto response = get_range(client_, request);
      // More bytes than one reply may have.
      if (absl::IsResourceExhausted(response.status()) && page > 1) {
        page = std::max<int64_t>(page / 4, 1);
        continue;
      }
      if (!response.ok()) return response.status();
      if (listing.revision == 0) {
        listing.revision = static_cast<Revision>(response->header().revision());
        request.set_revision(response->header().revision());
      }
      const size_t bytes = response->ByteSizeLong();
      if (response->more() && !response->kvs().empty()) {
        request.set_key(response->kvs().rbegin()->key() + '\0');
      }
      for (auto& pair : *response->mutable_kvs()) listing.entries.push_back(entry_of(pair));
      if (!response->more() || response->kvs().empty()) return listing;
      if (bytes < kSmallPageBytes) page = std::min(page * 2, kLargestPage);
      if (bytes > kLargePageBytes) page = std::max<int64_t>(page / 2, 1);
    }
  }

  const EtcdKeys keys_;
  EtcdClient client_;
  EtcdCommits commits_;
  EtcdWatches watches_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterBlock>> open_etcd_cluster_block(
    const EtcdClusterBlockOptions& options) {
  auto block = std::make_unique<EtcdClusterBlock>(options);
  SLUICE_RETURN_IF_ERROR(block->probe());
  return std::unique_ptr<ClusterBlock>(std::move(block));
}

}  // namespace sluice

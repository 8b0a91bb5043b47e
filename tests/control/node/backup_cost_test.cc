// What a backup costs that has next to nothing to send: exact counts, which do not depend on the
// machine, and must depend neither on slots nor, in commits, on nodes. Where a busy machine makes
// something happen twice, the cheapest of several backups counts: what is always there shows in it.
#include <grpcpp/support/client_interceptor.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <string>

#include "base/status.h"
#include "control/backup/backup_job.h"
#include "tests/control/node/forwarding_block.h"
#include "tests/control/node/test_cluster.h"

namespace {
std::atomic<int> sleeps{0};
}  // namespace

// In place of the C library's, for all of this program.
extern "C" int nanosleep(const timespec* time, timespec* left) {
  ++sleeps;
  return static_cast<int>(::syscall(SYS_nanosleep, time, left));
}
extern "C" int clock_nanosleep(clockid_t clock, int flags, const timespec* time, timespec* left) {
  ++sleeps;
  return ::syscall(SYS_clock_nanosleep, clock, flags, time, left) == 0 ? 0 : errno;
}

namespace sluice {
namespace {

// Calls that begin, by method, of the whole program.
class Calls {
 public:
  static Calls& all() {
    static Calls calls;
    return calls;
  }
  void add(const std::string& method) {
    const std::lock_guard lock(mutex_);
    ++counts_[method.substr(method.rfind('/') + 1)];
  }
  std::map<std::string, int> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(counts_, {});
  }

 private:
  std::mutex mutex_;
  std::map<std::string, int> counts_;
};

class CountingInterceptor final : public grpc::experimental::Interceptor {
 public:
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    methods->Proceed();
  }
};

class CountingFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo* info) override {
    // Nodes compare their clocks at all times, backups or not.
    std::array<char, 16> thread{};
    pthread_getname_np(pthread_self(), thread.data(), thread.size());
    if (!std::string_view(thread.data()).starts_with("comparing")) {
      Calls::all().add(info->method());
    }
    return new CountingInterceptor();
  }
};

// gRPC wants it before the first channel, once.
[[maybe_unused]] const bool registered = [] {
  static CountingFactory factory;
  grpc::experimental::RegisterGlobalClientInterceptorFactory(&factory);
  return true;
}();

struct BlockCounts {
  std::atomic<int> commits{0};  // about backups
  std::atomic<int> reads{0};    // likewise
  std::atomic<int> plans{0};    // of these: of plans
};

bool is_of_backups(std::string_view key) {
  return key.starts_with("backup") || key.ends_with(kBackupLockKey);
}

class CountingBlock final : public ForwardingBlock {
 public:
  CountingBlock(std::unique_ptr<ClusterBlock> inner, BlockCounts& counts)
      : ForwardingBlock(std::move(inner)), counts_(counts) {}
  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    if (is_of_backups(key)) ++counts_.reads;
    if (key.find("/plan/") != std::string_view::npos) ++counts_.plans;
    return block_.get(key);
  }
  absl::StatusOr<ClusterListing> list(std::string_view prefix) override {
    if (is_of_backups(prefix)) ++counts_.reads;
    return block_.list(prefix);
  }
  absl::StatusOr<Revision> commit(const std::vector<ClusterOp>& ops) override {
    if (std::any_of(ops.begin(), ops.end(),
                    [](const ClusterOp& op) { return is_of_backups(op.key); })) {
      ++counts_.commits;
    }
    return block_.commit(ops);
  }

 private:
  BlockCounts& counts_;
};

struct Cost {
  int commits = 0;
  int reads = 0;
  int plans = 0;
  int sleeps = 0;
  std::map<std::string, int> calls;
};

void take_least(std::optional<Cost>& least, const Cost& cost) {
  if (!least) {
    least = cost;
    return;
  }
  least->commits = std::min(least->commits, cost.commits);
  least->reads = std::min(least->reads, cost.reads);
  least->plans = std::min(least->plans, cost.plans);
  least->sleeps = std::min(least->sleeps, cost.sleeps);
  for (auto& [method, count] : least->calls) {
    const auto found = cost.calls.find(method);
    count = std::min(count, found == cost.calls.end() ? 0 : found->second);
  }
}

struct Case {
  size_t nodes;
  uint32_t slot_bits;
  int records;
};

Cost cost_of_backup(const Case& wanted) {
  BlockCounts counts;
  TestCluster::Options options;
  options.nodes = wanted.nodes;
  options.slot_bits = wanted.slot_bits;
  options.wrap_block = [&](std::unique_ptr<ClusterBlock> block) {
    return std::make_unique<CountingBlock>(std::move(block), counts);
  };
  TestCluster cluster(options);
  const auto client = cluster.client();
  for (int i = 0; i < wanted.records; ++i) {
    EXPECT_TRUE(client->put(fmt::format("k{}", i), "v").ok());
  }
  std::optional<Cost> least;
  constexpr int kBackups = 6;
  for (int i = 0; i < kBackups; ++i) {
    counts.commits = counts.reads = counts.plans = 0;
    sleeps = 0;
    Calls::all().take();
    const auto backup = client->backup_create({}, nullptr);
    const Cost cost{counts.commits, counts.reads, counts.plans, sleeps, Calls::all().take()};
    EXPECT_TRUE(backup.ok()) << message_of(backup.status());
    if (!backup.ok()) break;
    EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
    EXPECT_EQ(backup->records, static_cast<uint64_t>(wanted.records));
    // The first one connects everybody with everybody.
    if (i > 0) take_least(least, cost);
  }
  return least.value_or(Cost{});
}

class BackupCost : public ::testing::TestWithParam<Case> {};

TEST_P(BackupCost, IsAFewCommitsAndCallsAndNoSleep) {
  const int nodes = static_cast<int>(GetParam().nodes);
  Cost cost = cost_of_backup(GetParam());
  // Creation with the lock, and each further state, with what nodes reported meanwhile; the last
  // one releases the lock.
  EXPECT_EQ(cost.commits, 6);
  EXPECT_EQ(cost.sleeps, 0);
  // The coordinator tells each node its part of the plan.
  EXPECT_EQ(cost.plans, 0);
  // Each node: a look at the schedules for each of their changes, its fence; the
  // coordinator: its head at each report.
  EXPECT_LE(cost.reads, 40 * nodes);
  EXPECT_EQ(cost.calls["CreateBackup"], 1);
  // Clocks are read again where reading them took long: on a machine that is busy with other work.
  EXPECT_GE(cost.calls["ReadClock"], nodes);
  EXPECT_LE(cost.calls["ReadClock"], 2 * nodes);
  for (const char* once : {"ArmCut", "CutDigests", "FetchPlan", "FetchPart", "CommitArchive"}) {
    EXPECT_EQ(cost.calls[once], nodes) << once;
  }
  // enabled and sent; copy_completed; consolidated: some are told together.
  EXPECT_GE(cost.calls["ReportProgress"], nodes);
  EXPECT_LE(cost.calls["ReportProgress"], 5 * nodes);
  EXPECT_EQ(cost.calls["DropCut"], 0);
}

INSTANTIATE_TEST_SUITE_P(Of, BackupCost,
                         ::testing::Values(Case{5, 12, 0}, Case{5, 12, 5}, Case{5, 4, 5},
                                           Case{3, 12, 5}),
                         [](const auto& test) {
                           return fmt::format("{}Nodes{}Bits{}Records", test.param.nodes,
                                              test.param.slot_bits, test.param.records);
                         });

}  // namespace
}  // namespace sluice

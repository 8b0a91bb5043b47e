#include "control/membership/membership.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/process.h"
#include "base/random.h"
#include "base/status.h"
#include "control/cluster_block/memory_cluster_block.h"
#include "tests/control/job/loses_answers.h"

namespace sluice {
namespace {

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class MembershipTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ClusterInfo info;
    info.uuid = make_uuid();
    ASSERT_TRUE(create_cluster(*block_, info).ok());
  }
  static Membership::Options options_for(const std::string& name, const std::string& store = "") {
    Membership::Options options;
    options.node.name = name;
    options.node.store_id = store.empty() ? "store-of-" + name : store;
    static std::atomic<uint64_t> opened{0};
    options.node.incarnation = ++opened;
    options.ttl_ms = 200;
    options.takeover_wait_ms = 50;
    return options;
  }
  std::unique_ptr<Membership> join(Membership::Options options) {
    auto membership = Membership::join(*block_, std::move(options));
    EXPECT_TRUE(membership.ok()) << membership.status();
    return membership.ok() ? *std::move(membership) : nullptr;
  }

  std::unique_ptr<ClusterBlock> block_ = make_memory_cluster_block();
};

TEST_F(MembershipTest, AClusterIsMadeOnce) {
  const auto first = load_cluster(*block_);
  ASSERT_TRUE(first.ok());
  ClusterInfo second;
  second.uuid = make_uuid();
  const absl::Status again = create_cluster(*block_, second);
  EXPECT_TRUE(absl::IsAlreadyExists(again));
  EXPECT_NE(message_of(again).find(first->uuid), std::string_view::npos);
  EXPECT_EQ(*load_cluster(*block_), *first);
  const auto empty = make_memory_cluster_block();
  EXPECT_TRUE(absl::IsNotFound(load_cluster(*empty).status()));
  EXPECT_TRUE(absl::IsNotFound(Membership::join(*empty, options_for("n1")).status()));
  second.replicas = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(create_cluster(*empty, second)));
}

TEST_F(MembershipTest, JoiningNodesGetNumbersThatAreNeverGivenAgain) {
  auto n1 = join(options_for("n1"));
  auto n2 = join(options_for("n2"));
  EXPECT_EQ(n1->info().number, 1u);
  EXPECT_EQ(n2->info().number, 2u);
  auto members = list_members(*block_);
  ASSERT_TRUE(members.ok());
  ASSERT_EQ(members->size(), 2u);
  EXPECT_TRUE((*members)[0].live && (*members)[1].live);
  n2.reset();
  members = list_members(*block_);
  EXPECT_FALSE((*members)[1].live);
  EXPECT_TRUE(absl::IsFailedPrecondition(remove_node(*block_, "n1")));
  EXPECT_TRUE(remove_node(*block_, "n2").ok());
  EXPECT_TRUE(absl::IsNotFound(remove_node(*block_, "n2")));
  EXPECT_EQ(join(options_for("n3"))->info().number, 3u);
  EXPECT_EQ(join(options_for("n2"))->info().number, 4u);
  n1.reset();
  EXPECT_EQ(join(options_for("n1"))->info().number, 1u);
}

TEST_F(MembershipTest, ManyJoinAtOnce) {
  constexpr int kNodes = 16;
  std::vector<std::unique_ptr<Membership>> joined(kNodes);
  std::vector<std::thread> threads;
  for (int i = 0; i < kNodes; ++i) {
    threads.emplace_back([&, i] {
      auto options = options_for("n" + std::to_string(i));
      options.takeover_wait_ms = 10'000;
      joined[static_cast<size_t>(i)] = join(std::move(options));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto members = list_members(*block_);
  ASSERT_TRUE(members.ok());
  ASSERT_EQ(members->size(), size_t{kNodes});
  for (uint32_t i = 0; i < kNodes; ++i) EXPECT_EQ((*members)[i].info.number, i + 1);
}

TEST_F(MembershipTest, ALiveNameIsRefused) {
  const auto first = join(options_for("n1"));
  const absl::Status second = Membership::join(*block_, options_for("n1")).status();
  EXPECT_TRUE(absl::IsAlreadyExists(second)) << second;
  EXPECT_NE(message_of(second).find("n1"), std::string_view::npos);
  EXPECT_TRUE(first->status().ok());
}

TEST_F(MembershipTest, ALaterIncarnationOfTheSameStoreTakesOverAtOnce) {
  std::atomic<bool> lost{false};
  auto options = options_for("n1");
  options.found.lock = "boot:1:2";
  options.on_lost = [&](const absl::Status& why) {
    EXPECT_TRUE(absl::IsAlreadyExists(why)) << why;
    lost = true;
  };
  const auto first = join(std::move(options));
  auto again = options_for("n1");
  again.found.lock = "boot:1:2";
  again.takeover_wait_ms = 0;
  const auto second = join(std::move(again));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->info().number, first->info().number);
  EXPECT_TRUE(eventually([&] { return lost.load(); }));
  EXPECT_TRUE(absl::IsAlreadyExists(first->status()));
  EXPECT_TRUE(find_member(*block_, "n1")->live);
}

// A copy has the store's identity and, once it is opened, a later incarnation. It has not the lock.
TEST_F(MembershipTest, ACopyOfALiveNodesDataTakesNothingOver) {
  auto options = options_for("n1");
  options.found = {"", "first", 10, "boot:1:2"};
  const auto first = join(std::move(options));
  auto copy = options_for("n1");
  copy.found = {"first", "second", 10, "boot:1:3"};
  const absl::Status refused = Membership::join(*block_, copy).status();
  EXPECT_TRUE(absl::IsAlreadyExists(refused)) << refused;
  EXPECT_NE(message_of(refused).find("another copy"), std::string_view::npos) << refused;
  EXPECT_TRUE(first->status().ok());
}

TEST_F(MembershipTest, AnEarlierStateOfTheDataIsRefusedUntilItsLossIsAccepted) {
  std::atomic<uint64_t> sequence{10};
  std::atomic<uint64_t> ceiling{1000};
  auto options = options_for("n1");
  options.found = {"", "first", 10, "boot:1:2"};
  options.progress = [&] { return Membership::Options::Progress{sequence, ceiling}; };
  auto node = join(std::move(options));
  sequence = 20;
  ceiling = 2000;
  // A renewal of the lease publishes it, and leaving does.
  EXPECT_TRUE(eventually([&] {
    const auto entry = block_->get("stores/n1");
    return entry.ok() && entry->has_value() &&
           decode_store_info("stores/n1", (*entry)->value)->sequence == 20;
  }));
  sequence = 30;
  node.reset();
  const auto refused = [&](const Membership::Options::Found& found, uint64_t seen = 0) {
    auto joining = options_for("n1");
    joining.found = found;
    joining.seen_sequence = [seen] { return seen; };
    const absl::Status status = Membership::join(*block_, std::move(joining)).status();
    EXPECT_NE(message_of(status).find("accept_data_loss"), std::string_view::npos) << status;
    EXPECT_NE(message_of(status).find("n1"), std::string_view::npos) << status;
    return absl::IsFailedPrecondition(status);
  };
  // It lacks the last changes; a copy from before the last join; one that never joined; one whose
  // loss only a peer knows of.
  EXPECT_TRUE(refused({"first", "second", 29, ""}));
  EXPECT_TRUE(refused({"zeroth", "second", 30, ""}));
  EXPECT_TRUE(refused({"", "second", 30, ""}));
  EXPECT_TRUE(refused({"first", "second", 30, ""}, 31));
  auto stale = options_for("n1");
  stale.node.incarnation = 0;
  stale.found = {"first", "second", 30, ""};
  EXPECT_TRUE(absl::IsFailedPrecondition(Membership::join(*block_, stale).status()));
  EXPECT_FALSE(find_member(*block_, "n1")->live);

  auto accepting = options_for("n1");
  accepting.found = {"first", "second", 29, ""};
  accepting.accept_data_loss = true;
  node = join(std::move(accepting));
  ASSERT_NE(node, nullptr);
  // What it stamps must be above what it had seen before.
  EXPECT_GT(node->clock_floor(), 2000u + Version::make_stamp(3000, 0));
  node.reset();
  // From there on it is the right one, and the other is not.
  EXPECT_TRUE(refused({"first", "third", 30, ""}));
  auto right = options_for("n1");
  right.found = {"second", "third", 29, ""};
  node = join(std::move(right));
  // Its answer to this join was lost: the token under way is as good.
  node.reset();
  auto again = options_for("n1");
  again.found = {"second", "third", 29, ""};
  EXPECT_NE(join(std::move(again)), nullptr);
}

// What the lost commit stored of this very process is no other one's.
TEST_F(MembershipTest, AJoinWhoseAnswerWasLostIsRepeated) {
  auto first = options_for("n1");
  first.found = {"", "first", 0, ""};
  join(std::move(first)).reset();
  LosesAnswers block(*block_);
  block.lost = 1;
  auto second = options_for("n1");
  second.found = {"first", "second", 0, ""};
  const auto membership = Membership::join(block, std::move(second));
  EXPECT_TRUE(membership.ok()) << membership.status();
}

TEST_F(MembershipTest, ANodeWhoseNameWasJoinedByAnotherDoesNotComeBack) {
  std::atomic<bool> lost{false};
  auto options = options_for("n1");
  options.found = {"", "first", 10, "boot:1:2"};
  options.on_lost = [&](const absl::Status&) { lost = true; };
  options.ttl_ms = 2000;
  const auto first = join(std::move(options));
  // Its lease ends, another process joins, and leaves again before the first one looks.
  ASSERT_TRUE(block_->revoke((*block_->get("live/n1"))->lease).ok());
  auto other = options_for("n1");
  other.found = {"first", "second", 10, "boot:1:2"};
  ASSERT_NE(join(std::move(other)), nullptr);
  EXPECT_TRUE(eventually([&] { return lost.load(); }));
  EXPECT_TRUE(absl::IsAlreadyExists(first->status())) << first->status();
}

// The lease of the process before is over, which says nothing of when that process will notice.
class NamesakeTest : public MembershipTest {
 protected:
  // What a node n1 left behind that served from a copy of the directory of options().
  void leave_behind(const std::function<void(StoreInfo&)>& change) {
    StoreInfo info;
    info.store_id = "store-of-n1";
    info.token = "first";
    info.sequence = 10;
    info.lock = "boot:1:2";
    info.process = process_identity();
    change(info);
    ASSERT_TRUE(block_->put("stores/n1", encode(info)).ok());
  }
  static Membership::Options options() {
    auto options = options_for("n1");
    options.found = {"first", "second", 10, "boot:1:3"};
    return options;
  }
  static constexpr uint64_t kShort = 400;
  static constexpr uint64_t kLong = 3'600'000;
};

TEST_F(NamesakeTest, WhoeverTakesTheNameWaitsForAsLongAsAnotherMayServe) {
  leave_behind([](StoreInfo& info) { info.serves_ms = kShort; });
  auto joining = options();
  int asked = 0;
  joining.seen_sequence = [&] {
    ++asked;
    return uint64_t{10};
  };
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_NE(join(std::move(joining)), nullptr);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(kShort));
  EXPECT_EQ(asked, 2);
}

TEST_F(NamesakeTest, WhatItAnsweredDuringTheWaitCounts) {
  leave_behind([](StoreInfo& info) { info.serves_ms = kShort; });
  auto joining = options();
  int asked = 0;
  joining.seen_sequence = [&] { return uint64_t{10} + static_cast<uint64_t>(asked++); };
  const absl::Status refused = Membership::join(*block_, std::move(joining)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_EQ(asked, 2);
}

TEST_F(NamesakeTest, ItIsRefusedWhenTheOtherComesBackMeanwhile) {
  leave_behind([](StoreInfo& info) { info.serves_ms = kLong; });
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_TRUE(block_->put("live/n1", encode(LiveInfo{"x", "store-of-n1", 1, 1, ""})).ok());
  });
  const absl::Status refused = Membership::join(*block_, options()).status();
  EXPECT_TRUE(absl::IsAlreadyExists(refused)) << refused;
  other.join();
}

TEST_F(NamesakeTest, NobodyWaitsForOneThatSurelyServesNoMore) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  std::string ended = process_identity();
  const size_t start = ended.rfind('/');
  const size_t begin = ended.rfind('/', start - 1) + 1;
  ended.replace(begin, start - begin, std::to_string(child));
  const std::vector<std::function<void(StoreInfo&)>> reasons{
      [](StoreInfo& info) { info.left = true; }, [](StoreInfo& info) { info.lock = "boot:1:3"; },
      [&](StoreInfo& info) { info.process = ended; }};
  for (const auto& reason : reasons) {
    leave_behind([&](StoreInfo& info) {
      info.serves_ms = kLong;
      reason(info);
    });
    EXPECT_NE(join(options()), nullptr);
  }
}

TEST_F(NamesakeTest, ANodeSaysThatItLeft) {
  auto node = join(options_for("n1"));
  const auto stored = [&] {
    return *decode_store_info("stores/n1", (*block_->get("stores/n1"))->value);
  };
  EXPECT_FALSE(stored().left);
  EXPECT_EQ(stored().serves_ms, 200u * Membership::kServedLeases);
  EXPECT_EQ(stored().process, process_identity());
  node.reset();
  EXPECT_TRUE(stored().left);
  node = join(options_for("n1"));
  EXPECT_FALSE(stored().left);
}

// A cluster block that is out of reach at times.
class Away final : public ForwardingBlock {
 public:
  using ForwardingBlock::ForwardingBlock;
  absl::StatusOr<std::optional<ClusterEntry>> get(std::string_view key) override {
    if (away) return unavailable("out of reach");
    return block_.get(key);
  }
  absl::Status keep_alive(LeaseId lease) override {
    if (away) return unavailable("out of reach");
    return block_.keep_alive(lease);
  }
  std::atomic<bool> away{false};
};

TEST_F(NamesakeTest, ANodeServesWhileItSeesItsNameAndSomeTimeBeyond) {
  Away block(*block_);
  std::atomic<int64_t> until{0};
  auto options = options_for("n1");
  options.serve_until = [&](int64_t until_ns) { until = until_ns; };
  const int64_t served_ns = 200 * Membership::kServedLeases * kMs;
  const int64_t before = system_clock().monotonic_ns();
  const auto node = Membership::join(block, std::move(options));
  ASSERT_TRUE(node.ok()) << node.status();
  const int64_t joined = until;
  EXPECT_GE(joined, before + served_ns);
  EXPECT_TRUE(eventually([&] { return until > joined; }));
  block.away = true;
  EXPECT_TRUE(eventually([&] { return !(*node)->status().ok(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // a renewal that was under way
  const int64_t last = until;
  EXPECT_LE(last, system_clock().monotonic_ns() + served_ns);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(until, last);
  block.away = false;
  EXPECT_TRUE(eventually([&] { return until > last; }));
}

// What it publishes may take as long as a disk takes.
TEST_F(NamesakeTest, ANodeServesOnWhileItsLeaseIsRenewed) {
  std::atomic<int64_t> until{0};
  std::atomic<bool> slow{true};
  auto options = options_for("n1");
  options.serve_until = [&](int64_t until_ns) { until = until_ns; };
  options.progress = [&] {
    eventually([&] { return !slow.load(); });
    return Membership::Options::Progress{};
  };
  const auto node = join(std::move(options));
  ASSERT_NE(node, nullptr);
  const int64_t joined = until;
  // Longer than it would serve without its lease.
  const int64_t served_ns = 200 * Membership::kServedLeases * kMs;
  EXPECT_TRUE(eventually([&] { return until > joined + served_ns; }));
  slow = false;
}

TEST_F(NamesakeTest, ANodeServesNoMoreOnceTheNameIsAnothers) {
  std::atomic<int64_t> until{0};
  std::atomic<bool> lost{false};
  auto options = options_for("n1");
  options.found = {"", "first", 10, "boot:1:2"};
  options.serve_until = [&](int64_t until_ns) { until = until_ns; };
  options.on_lost = [&](const absl::Status&) { lost = true; };
  const auto first = join(std::move(options));
  ASSERT_NE(first, nullptr);
  EXPECT_GT(until, 0);
  auto other = options_for("n1");
  other.found = {"first", "second", 10, "boot:1:2"};
  const auto second = join(std::move(other));
  ASSERT_NE(second, nullptr);
  EXPECT_TRUE(eventually([&] { return lost.load(); }));
  EXPECT_EQ(until, 0);
}

// Two that come back after one another, each for less than a look takes.
TEST_F(NamesakeTest, TheWaitBeginsAgainWhenTheStoreIsStoredAgain) {
  leave_behind([](StoreInfo& info) { info.serves_ms = kShort; });
  std::chrono::steady_clock::time_point again;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(kShort / 2));
    leave_behind([](StoreInfo& info) { info.serves_ms = kShort; });
    again = std::chrono::steady_clock::now();
  });
  ASSERT_NE(join(options()), nullptr);
  const auto joined = std::chrono::steady_clock::now();
  other.join();
  EXPECT_GE(joined - again, std::chrono::milliseconds(kShort));
}

TEST_F(NamesakeTest, AReviveStoresTheStoreAgain) {
  const auto node = join(options_for("n1"));
  ASSERT_NE(node, nullptr);
  const Revision before = (*block_->get("stores/n1"))->revision;
  ASSERT_TRUE(block_->revoke((*block_->get("live/n1"))->lease).ok());
  EXPECT_TRUE(eventually([&] { return find_member(*block_, "n1")->live; }));
  EXPECT_GT((*block_->get("stores/n1"))->revision, before);
  EXPECT_TRUE(eventually([&] { return node->status().ok(); }));
}

TEST_F(NamesakeTest, AWaitEndsWhenTheNodeIsStopped) {
  leave_behind([](StoreInfo& info) { info.serves_ms = kLong; });
  auto joining = options();
  joining.stop_asked = [] { return true; };
  const absl::Status status = Membership::join(*block_, std::move(joining)).status();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
}

TEST_F(MembershipTest, LostDataIsNotTakenForAnEmptyNode) {
  auto before = join(options_for("n1"));
  ASSERT_NE(before, nullptr);
  const Revision joined_before = before->joined_at();
  before.reset();
  const absl::Status refused = Membership::join(*block_, options_for("n1", "another")).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_NE(message_of(refused).find("accept_data_loss"), std::string_view::npos);
  EXPECT_NE(message_of(refused).find("store-of-n1"), std::string_view::npos);
  EXPECT_FALSE(find_member(*block_, "n1")->live);
  auto accepting = options_for("n1", "another");
  accepting.node.incarnation = 1;  // of the new directory: what tells joins apart goes on
  accepting.accept_data_loss = true;
  const auto node = join(std::move(accepting));
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(find_member(*block_, "n1")->info.store_id, "another");
  EXPECT_EQ(node->info().number, 1u);
  EXPECT_GT(node->joined_at(), joined_before);
}

// It may have been the only node that is asked for a version and had seen what another one stamped.
TEST_F(MembershipTest, ANodeThatLostItsDataGoesBeyondEverybodysClock) {
  join(options_for("n1")).reset();
  const uint64_t ceiling = Version::make_stamp(1'000'000, 0);
  StoreInfo other;
  other.store_id = "store-of-n2";
  other.token = "token";
  other.ceiling = ceiling;
  ASSERT_TRUE(block_->put("stores/n2", encode(other)).ok());
  // A node that has lost nothing goes on with its own clock.
  auto whole = options_for("n1");
  whole.accept_data_loss = true;
  EXPECT_EQ(join(std::move(whole))->clock_floor(), 0u);
  auto accepting = options_for("n1", "another");
  accepting.accept_data_loss = true;
  const auto node = join(std::move(accepting));
  ASSERT_NE(node, nullptr);
  EXPECT_GT(node->clock_floor(), ceiling + Version::make_stamp(3000, 0));
}

// That data were lost counts until the join is confirmed, whoever repeats it and why.
TEST_F(MembershipTest, AJoinWithoutItsDataIsOneUntilItIsConfirmed) {
  join(options_for("n1")).reset();
  StoreInfo other;
  other.store_id = "store-of-n2";
  other.token = "token";
  other.ceiling = Version::make_stamp(1'000'000, 0);
  ASSERT_TRUE(block_->put("stores/n2", encode(other)).ok());
  const auto options = [](const std::string& joined) {
    auto of_another = options_for("n1", "another");
    of_another.found = {joined, "second", 0, ""};
    return of_another;
  };
  LosesAnswers block(*block_);
  block.lost = 1;
  auto accepting = options("");
  accepting.accept_data_loss = true;
  auto membership = Membership::join(block, std::move(accepting));
  ASSERT_TRUE(membership.ok()) << membership.status();
  EXPECT_TRUE((*membership)->lost_data()) << "the answer was lost";
  membership->reset();
  auto again = join(options(""));
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(again->lost_data()) << "the process ended before it was confirmed";
  EXPECT_GT(again->clock_floor(), other.ceiling);
  again.reset();
  auto confirmed = options("second");
  confirmed.found.joining = "third";
  again = join(std::move(confirmed));
  ASSERT_NE(again, nullptr);
  EXPECT_FALSE(again->lost_data());
}

TEST_F(MembershipTest, ANodeStaysLiveBeyondItsTtlAndComesBackAfterALapse) {
  const auto node = join(options_for("n1"));
  const auto joined = block_->get("live/n1");
  ASSERT_TRUE(joined.ok() && joined->has_value());
  // As if the process had been stopped for longer than its lease.
  ASSERT_TRUE(block_->revoke((*joined)->lease).ok());
  EXPECT_FALSE(find_member(*block_, "n1")->live);
  EXPECT_TRUE(eventually([&] { return find_member(*block_, "n1")->live; }));
  EXPECT_TRUE(eventually([&] { return node->status().ok(); }));
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  EXPECT_FALSE(!eventually([&] { return std::chrono::steady_clock::now() > end; }));
  EXPECT_TRUE(find_member(*block_, "n1")->live);
}

// What a node publishes, and what it asks its store for that, may take as long as a disk takes.
TEST_F(MembershipTest, NothingThatIsPublishedMakesARenewalLate) {
  std::atomic<bool> asked{false};
  std::atomic<bool> slow{true};
  Membership::Options options = options_for("n1");
  options.ttl_ms = 600;
  options.progress = [&] {
    asked = true;
    eventually([&] { return !slow.load(); });
    return Membership::Options::Progress{};
  };
  auto node = join(std::move(options));
  ASSERT_TRUE(eventually([&] { return asked.load(); }));
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(2000);
  EXPECT_FALSE(!eventually([&] {
    EXPECT_TRUE(find_member(*block_, "n1")->live);
    return HasFailure() || std::chrono::steady_clock::now() > end;
  }));
  slow = false;
  EXPECT_TRUE(node->status().ok()) << node->status();
}

TEST_F(MembershipTest, ADamagedStoreDocumentIsReplacedWhereTheLossOfDataIsAccepted) {
  auto options = options_for("n1");
  options.found = {"", "first", 10, ""};
  join(std::move(options)).reset();
  ASSERT_TRUE(block_->put("stores/n1", "garbage").ok());
  auto again = options_for("n1");
  again.found = {"first", "second", 10, ""};
  const absl::Status refused = Membership::join(*block_, again).status();
  EXPECT_TRUE(absl::IsDataLoss(refused)) << refused;
  EXPECT_NE(message_of(refused).find("'stores/n1'"), std::string_view::npos) << refused;
  EXPECT_NE(message_of(refused).find("accept_data_loss"), std::string_view::npos) << refused;
  again.accept_data_loss = true;
  const auto node = join(again);
  ASSERT_NE(node, nullptr);
  const auto stored = block_->get("stores/n1");
  ASSERT_TRUE(stored.ok() && stored->has_value());
  const auto info = decode_store_info("stores/n1", (*stored)->value);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->token, "second");
}

TEST_F(MembershipTest, ARemovedNodeIsLost) {
  std::atomic<bool> lost{false};
  auto options = options_for("n1");
  options.on_lost = [&](const absl::Status&) { lost = true; };
  const auto node = join(std::move(options));
  ASSERT_TRUE(block_->erase("nodes/n1").ok());
  ASSERT_TRUE(block_->revoke((*block_->get("live/n1"))->lease).ok());
  EXPECT_TRUE(eventually([&] { return lost.load(); }));
}

MeasuredRates disk_of(double weight, double work_seconds = 0) {
  MeasuredRates rates;
  rates.disk_write = {weight * (1 << 20), work_seconds};
  rates.free_bytes = uint64_t{1} << 50;
  return rates;
}

TEST_F(MembershipTest, AMeasuredWeightIsStoredWhenItCounts) {
  auto options = options_for("n1");
  options.node.rates = disk_of(100);
  const auto node = join(options);
  EXPECT_EQ(node->info().weight, 100);
  const Revision before = (*block_->get("nodes/n1"))->revision;
  EXPECT_FALSE(*node->offer_rates(disk_of(115)));
  EXPECT_FALSE(*node->offer_rates(disk_of(85)));
  EXPECT_EQ((*block_->get("nodes/n1"))->revision, before) << "noise is not written";
  EXPECT_TRUE(*node->offer_rates(disk_of(150, 7)));
  const auto stored = find_member(*block_, "n1");
  EXPECT_EQ(stored->info.weight, 150);
  EXPECT_EQ(stored->info.rates, disk_of(150, 7));
}

TEST_F(MembershipTest, AnOperatorsWeightIsAboveWhatIsMeasured) {
  auto options = options_for("n1");
  options.node.weight = 7;
  options.node.weight_explicit = true;
  options.node.rates = disk_of(100);
  auto node = join(options);
  EXPECT_FALSE(*node->offer_rates(disk_of(1000)));
  EXPECT_EQ(find_member(*block_, "n1")->info.weight, 7);
  // Configured without it, the node is what it measures again.
  node.reset();
  options.node.weight_explicit = false;
  node = join(options);
  EXPECT_EQ(node->info().weight, 100);
  EXPECT_FALSE(node->info().weight_explicit);
}

TEST_F(MembershipTest, AveragesOfWorkSurviveARestart) {
  auto options = options_for("n1");
  options.node.rates = disk_of(100);
  auto node = join(options);
  EXPECT_TRUE(*node->offer_rates(disk_of(30, 20)));
  node.reset();
  node = join(options);
  EXPECT_EQ(node->info().weight, 30);
  EXPECT_EQ(node->info().rates, disk_of(30, 20));
  // Another store is on another disk.
  node.reset();
  options.node.store_id = "another";
  options.accept_data_loss = true;
  node = join(options);
  EXPECT_EQ(node->info().weight, 100);
}

TEST_F(MembershipTest, TheKeeperAsksForRates) {
  auto options = options_for("n1");
  options.node.rates = disk_of(100);
  std::atomic<bool> known{false};
  options.rates = [&]() -> std::optional<MeasuredRates> {
    if (!known) return std::nullopt;
    return disk_of(10);
  };
  const auto node = join(std::move(options));
  EXPECT_EQ(node->info().weight, 100);
  known = true;
  EXPECT_TRUE(eventually([&] { return find_member(*block_, "n1")->info.weight == 10; }));
}

TEST_F(MembershipTest, ANodeChangesItsOwnDocumentOnly) {
  const auto node = join(options_for("n1"));
  ASSERT_TRUE(node->update([](NodeInfo& info) {
                    info.control_address = "127.0.0.1:7000";
                    info.name = "n7";
                    info.number = 7;
                  })
                  .ok());
  const auto member = find_member(*block_, "n1");
  ASSERT_TRUE(member.ok());
  EXPECT_EQ(member->info.control_address, "127.0.0.1:7000");
  EXPECT_EQ(member->info.number, 1u);
  EXPECT_EQ(node->info(), member->info);
}

TEST_F(MembershipTest, AWatchSeesJoinsAndDeaths) {
  std::atomic<size_t> live{0};
  const auto watch = MemberWatch::start(*block_, [&] {
    const auto members = list_members(*block_);
    ASSERT_TRUE(members.ok());
    size_t count = 0;
    for (const Member& member : *members) count += member.live;
    live = count;
  });
  ASSERT_TRUE(watch.ok());
  auto n1 = join(options_for("n1"));
  auto n2 = join(options_for("n2"));
  EXPECT_TRUE(eventually([&] { return live == 2; }));
  n1.reset();
  EXPECT_TRUE(eventually([&] { return live == 1; }));
}

TEST_F(MembershipTest, ADamagedLiveDocumentIsWrittenAnew) {
  Membership::Options options = options_for("n1");
  std::atomic<bool> lost{false};
  options.on_lost = [&](const absl::Status&) { lost = true; };
  const auto node = join(std::move(options));
  ASSERT_TRUE(block_->put("live/n1", "garbage").ok());
  EXPECT_TRUE(eventually([&] {
    const auto entry = block_->get("live/n1");
    return entry.ok() && entry->has_value() && (*entry)->value != "garbage";
  }));
  EXPECT_TRUE(node->status().ok()) << node->status();
  EXPECT_FALSE(lost);
  // It ends with its lease again.
  EXPECT_TRUE(find_member(*block_, "n1")->live);
}

TEST_F(MembershipTest, DamagedDocumentsAreNamed) {
  const auto node = join(options_for("n1"));
  ASSERT_TRUE(block_->put("nodes/n2", "garbage").ok());
  const absl::Status status = list_members(*block_).status();
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_NE(message_of(status).find("'nodes/n2'"), std::string_view::npos) << status;
  EXPECT_TRUE(absl::IsDataLoss(Membership::join(*block_, options_for("n2")).status()));
  ASSERT_TRUE(block_->put("next-node-number", "x").ok());
  EXPECT_TRUE(absl::IsDataLoss(Membership::join(*block_, options_for("n3")).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Membership::join(*block_, options_for("N1")).status()));
}

}  // namespace
}  // namespace sluice

// What a cluster block in etcd does when etcd fails, or refuses. The contract itself is held by
// cluster_block_test.cc.
#include "control/cluster_block/etcd_cluster_block.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/file.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/cluster_block/lease_keeper.h"
#include "tests/control/cluster_block/etcd_server.h"
#include "tests/control/cluster_block/refusing_etcd.h"
#include "tests/control/cluster_block/tcp_proxy.h"

namespace sluice {
namespace {

using Kind = WatchEvent::Kind;

void sleep_ms(int64_t ms) { system_clock().sleep_ns(ms * 1'000'000); }

bool wait_until(const std::function<bool()>& condition, int64_t timeout_ms = 20'000) {
  const int64_t deadline = system_clock().monotonic_ms() + timeout_ms;
  while (!condition()) {
    if (system_clock().monotonic_ms() > deadline) return false;
    sleep_ms(10);
  }
  return true;
}

std::unique_ptr<ClusterBlock> open(const EtcdClusterBlockOptions& options) {
  auto block = open_etcd_cluster_block(options);
  EXPECT_TRUE(block.ok()) << block.status();
  return block.ok() ? *std::move(block) : nullptr;
}

bool names(const absl::Status& status, std::string_view what) {
  return message_of(status).find(what) != std::string_view::npos;
}

// Adds one to a document, over and over. Each addition must be made once and be reported as made.
class Counting {
 public:
  explicit Counting(ClusterBlock& block, std::string key = "a/count")
      : block_(block), key_(std::move(key)), thread_([this] { run(); }) {}
  ~Counting() { stop(); }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int count() const { return count_; }
  absl::Status status() const { return status_; }  // after stop()

 private:
  void run() {
    Revision revision = 0;
    while (!stopping_) {
      const auto added = block_.compare_and_swap(key_, std::to_string(count_ + 1), revision);
      if (!added.ok()) {
        status_ = added.status();
        return;
      }
      revision = *added;
      ++count_;
    }
  }
  ClusterBlock& block_;
  const std::string key_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> count_{0};
  absl::Status status_;
  std::thread thread_;
};

void expect_ascending(const std::vector<WatchEvent>& events) {
  Revision last = 0;
  for (const WatchEvent& event : events) {
    EXPECT_EQ(event.kind, Kind::kPut);
    EXPECT_GE(event.revision, last);
    last = event.revision;
  }
}

TEST(EtcdClusterBlock, PrefixesDoNotSeeEachOther) {
  const std::string prefix = "apart/" + std::to_string(::getpid());
  const auto one = shared_etcd().open(prefix);
  const auto below = shared_etcd().open(prefix + "/below");
  const auto beside = shared_etcd().open(prefix + "2");
  ASSERT_TRUE(one->put("a", "one").ok());
  ASSERT_TRUE(below->put("a", "below").ok());
  EventLog log;
  const auto watch = one->watch("", 0, log.callback());
  ASSERT_TRUE(beside->put("a", "beside").ok());
  EXPECT_EQ(one->list("")->entries.size(), 1u);
  EXPECT_EQ(below->list("")->entries.size(), 1u);
  EXPECT_EQ(one->get("a").value()->value, "one");
  ASSERT_TRUE(one->put("b", "last").ok());
  ASSERT_TRUE(log.wait_for("b", Kind::kPut, "last"));
  EXPECT_EQ(log.events().size(), 2u);
}

// Keys of other programs are neither seen nor touched; ours stand where docs/formats.md says.
TEST(EtcdClusterBlock, KeysStandWhereTheFormatSays) {
  const auto block = shared_etcd().open("format/p");
  ASSERT_TRUE(block->put("nodes/n1", "x").ok());
  EXPECT_EQ(shared_etcd().control("get format/p/doc/nodes/n1 --print-value-only"), "x\n");
  shared_etcd().control("put format/p/doc/foreign here");
  EXPECT_EQ(block->get("foreign").value()->value, "here");
}

TEST(EtcdClusterBlock, ACommitWhoseAnswerIsLostIsMadeOnce) {
  TcpProxy proxy(shared_etcd().port());
  EtcdClusterBlockOptions options = shared_etcd().options(new_etcd_prefix());
  options.endpoints = {proxy.address()};
  const auto block = open(options);
  Revision revision = 0;
  for (int round = 1; round <= 4; ++round) {
    const size_t lost = proxy.lost();
    proxy.set(TcpProxy::Mode::kLoseAnswers);
    std::thread mending([&] {
      EXPECT_TRUE(wait_until([&] { return proxy.lost() > lost; }));
      sleep_ms(100);  // the whole answer
      proxy.set(TcpProxy::Mode::kRefuse);
      sleep_ms(50);
      proxy.set(TcpProxy::Mode::kPass);
    });
    const auto added = block->commit({ClusterOp::put("count", std::to_string(round), revision),
                                      ClusterOp::put("other/" + std::to_string(round), "x", 0)});
    mending.join();
    ASSERT_TRUE(added.ok()) << added.status();
    EXPECT_GT(proxy.lost(), lost);
    const auto entry = block->get("count");
    ASSERT_TRUE(entry.ok() && entry->has_value());
    EXPECT_EQ((*entry)->revision, *added);
    EXPECT_EQ((*entry)->value, std::to_string(round));
    revision = *added;
  }
  EXPECT_EQ(block->list("other/")->entries.size(), 4u);
}

TEST(EtcdClusterBlock, WatchesAndCommitsGoOnAfterEtcdWasKilled) {
  EtcdServer server;
  const auto block = server.open("p");
  EventLog log;
  const auto watch = block->watch("a/", 0, log.callback());
  // Until it watches: it begins with what is there, of each key the newest.
  ASSERT_TRUE(block->put("a/first", "x").ok());
  ASSERT_TRUE(log.wait_for("a/first", Kind::kPut, "x"));
  const auto lease = block->grant(30'000);
  ASSERT_TRUE(block->put("live", "x", *lease).ok());
  Counting counting(*block);
  for (int round = 0; round < 3; ++round) {
    const int before = counting.count();
    ASSERT_TRUE(wait_until([&] { return counting.count() > before + 50; }));
    server.kill();
    sleep_ms(300);
    server.start();
  }
  const int before = counting.count();
  EXPECT_TRUE(wait_until([&] { return counting.count() > before + 50; }));
  counting.stop();
  EXPECT_TRUE(counting.status().ok()) << counting.status();
  const std::string last = std::to_string(counting.count());
  EXPECT_EQ(block->get("a/count").value()->value, last);
  EXPECT_TRUE(log.wait_for("a/count", Kind::kPut, last));
  const auto events = log.events();
  expect_ascending(events);
  EXPECT_EQ(events.size(), 1 + static_cast<size_t>(counting.count())) << "a change is missing";
  EXPECT_TRUE(block->keep_alive(*lease).ok());
  EXPECT_EQ(block->get("live").value()->value, "x");
}

TEST(EtcdClusterBlock, AnEndpointThatIsDeadIsPassedOver) {
  // One refuses, the other one lets connect and says nothing.
  const UniqueFd silent(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(silent.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(silent.get(), 16), 0);
  ASSERT_EQ(::getsockname(silent.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  EtcdClusterBlockOptions options = shared_etcd().options(new_etcd_prefix());
  options.endpoints = {fmt::format("127.0.0.1:{}", free_test_ports(1)[0]),
                       fmt::format("127.0.0.1:{}", ntohs(address.sin_port)),
                       shared_etcd().address()};
  const auto block = open(options);
  ASSERT_NE(block, nullptr);
  // What it learnt lasts.
  const int64_t begun = system_clock().monotonic_ms();
  EXPECT_TRUE(block->put("a", "1").ok());
  EventLog log;
  const auto watch = block->watch("a", 0, log.callback());
  EXPECT_TRUE(log.wait_for("a", Kind::kPut, "1"));
  EXPECT_LT(system_clock().monotonic_ms() - begun, 2'000);
}

TEST(EtcdClusterBlock, NoEndpointAtAllIsUnavailable) {
  EtcdClusterBlockOptions options;
  options.prefix = "p";
  const auto ports = free_test_ports(2);
  options.endpoints = {fmt::format("127.0.0.1:{}", ports[0]),
                       fmt::format("127.0.0.1:{}", ports[1])};
  const int64_t begun = system_clock().monotonic_ms();
  const absl::Status status = open_etcd_cluster_block(options).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  for (const std::string& endpoint : options.endpoints) EXPECT_TRUE(names(status, endpoint));
  EXPECT_LT(system_clock().monotonic_ms() - begun, 15'000);
}

// Closing waits for no call that waits for etcd.
TEST(EtcdClusterBlock, ClosesAtOnceWhileEtcdIsAway) {
  EtcdServer server;
  auto block = server.open("p");
  EventLog log;
  const auto watch = block->watch("a", 0, log.callback());
  ASSERT_TRUE(block->put("a", "1").ok());
  ASSERT_TRUE(log.wait_for("a", Kind::kPut, "1"));
  server.kill();
  const auto later = block->watch("b", 0, log.callback());  // which lists first
  sleep_ms(300);
  const int64_t begun = system_clock().monotonic_ms();
  block.reset();
  EXPECT_LT(system_clock().monotonic_ms() - begun, 2'000);
}

TEST(EtcdClusterBlock, ALostWatchWhoseRevisionWasCompactedResyncs) {
  TcpProxy proxy(shared_etcd().port());
  const std::string prefix = new_etcd_prefix();
  EtcdClusterBlockOptions options = shared_etcd().options(prefix);
  const auto direct = open(options);
  options.endpoints = {proxy.address()};
  const auto block = open(options);
  EventLog log;
  const auto watch = block->watch("a/", 0, log.callback());
  ASSERT_TRUE(direct->put("a/1", "x").ok());
  ASSERT_TRUE(log.wait_for("a/1", Kind::kPut, "x"));
  proxy.set(TcpProxy::Mode::kRefuse);
  ASSERT_TRUE(direct->erase("a/1").ok());
  ASSERT_TRUE(direct->put("a/2", "y").ok());
  const Revision head = direct->list("")->revision;
  shared_etcd().compact(head);
  proxy.set(TcpProxy::Mode::kPass);
  ASSERT_TRUE(log.wait([](const auto& events) { return events.back().kind == Kind::kResync; }));
  EXPECT_GE(log.events().back().revision, head);
  ASSERT_TRUE(direct->put("a/3", "z").ok());
  EXPECT_TRUE(log.wait_for("a/3", Kind::kPut, "z"));
}

// Without compaction nothing is lost, and nothing comes twice.
TEST(EtcdClusterBlock, ALostWatchResumes) {
  TcpProxy proxy(shared_etcd().port());
  EtcdClusterBlockOptions options = shared_etcd().options(new_etcd_prefix());
  const auto direct = open(options);
  options.endpoints = {proxy.address()};
  const auto block = open(options);
  EventLog log;
  const auto watch = block->watch("a/", 0, log.callback());
  for (int round = 0; round < 5; ++round) {
    const std::string key = "a/" + std::to_string(round);
    ASSERT_TRUE(direct->commit({ClusterOp::put(key, "1"), ClusterOp::put(key + "b", "1")}).ok());
    ASSERT_TRUE(log.wait_for(key + "b", Kind::kPut, "1"));
    proxy.set(TcpProxy::Mode::kRefuse);
    ASSERT_TRUE(direct->put(key, "2").ok());
    sleep_ms(50);
    proxy.set(TcpProxy::Mode::kPass);
    ASSERT_TRUE(log.wait_for(key, Kind::kPut, "2"));
  }
  EXPECT_EQ(log.events().size(), 15u);
  expect_ascending(log.events());
}

TEST(EtcdClusterBlock, AnEtcdThatWasSetBackResyncs) {
  EtcdServer server;
  const auto block = server.open("p");
  EventLog log;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(block->put("a", std::to_string(i)).ok());
  const auto watch = block->watch("a", 0, log.callback());
  ASSERT_TRUE(log.wait_for("a", Kind::kPut, "19"));
  server.kill();
  server.erase_data();
  server.start();
  ASSERT_TRUE(log.wait([](const auto& events) { return events.back().kind == Kind::kResync; }));
  ASSERT_TRUE(block->put("a", "new").ok());
  EXPECT_TRUE(log.wait_for("a", Kind::kPut, "new"));
}

TEST(EtcdClusterBlock, OneOfThreeMembersMayFail) {
  EtcdServer::Options three;
  three.members = 3;
  EtcdServer server(three);
  const auto block = server.open("p");
  EventLog log;
  const auto watch = block->watch("a/", 0, log.callback());
  LeaseKeeper::Options keeping;
  keeping.ttl_ms = 5000;
  const auto keeper = LeaseKeeper::grant(*block, keeping);
  ASSERT_TRUE(keeper.ok()) << keeper.status();
  ASSERT_TRUE(block->put("live", "x", (*keeper)->id()).ok());
  Counting counting(*block);
  for (size_t member = 0; member < 3; ++member) {  // one of them is the leader
    const int before = counting.count();
    ASSERT_TRUE(wait_until([&] { return counting.count() > before + 20; })) << member;
    server.kill(member);
    const int after = counting.count();
    EXPECT_TRUE(wait_until([&] { return counting.count() > after + 20; })) << member;
    server.start(member);
    sleep_ms(1'500);  // until it takes part again
  }
  // One that stands still takes connections, and answers nothing.
  server.signal(SIGSTOP, 0);
  const int before = counting.count();
  EXPECT_TRUE(wait_until([&] { return counting.count() > before + 20; }));
  server.signal(SIGCONT, 0);
  counting.stop();
  EXPECT_TRUE(counting.status().ok()) << counting.status();
  EXPECT_TRUE(log.wait_for("a/count", Kind::kPut, std::to_string(counting.count())));
  EXPECT_FALSE((*keeper)->has_ended());
  EXPECT_EQ(block->get("live").value()->value, "x");

  server.kill(0);
  server.kill(1);
  const int64_t begun = system_clock().monotonic_ms();
  EXPECT_TRUE(absl::IsUnavailable(block->put("b", "1").status()));
  EXPECT_TRUE(absl::IsUnavailable(block->get("b").status())) << "a read of a minority";
  EXPECT_LT(system_clock().monotonic_ms() - begun, 30'000);
  server.start(1);
  EXPECT_TRUE(wait_until([&] { return block->put("b", "2").ok(); }));
  EXPECT_EQ(block->get("b").value()->value, "2");
}

TEST(EtcdClusterBlock, NoSpaceIsSaidAndErasingGoesOn) {
  EtcdServer::Options small;
  small.arguments = {"--quota-backend-bytes", "4194304"};
  EtcdServer server(small);
  const auto block = server.open("p");
  const std::string value(256 << 10, 'v');
  absl::Status status;
  int stored = 0;
  // etcd looks at its size now and then.
  EXPECT_TRUE(wait_until([&] {
    status = block->put("a/" + std::to_string(stored++), value).status();
    return !status.ok();
  }));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_GT(stored, 4);
  EXPECT_TRUE(absl::IsResourceExhausted(block->grant(5000).status()));
  EXPECT_EQ(block->get("a/0").value()->value, value);
  // Also by a process that has committed nothing before.
  const auto other = server.open("p");
  EXPECT_TRUE(other->erase("a/0").ok());
  const auto erased = block->erase("a/1");
  EXPECT_TRUE(erased.ok()) << erased;
  EXPECT_FALSE(block->get("a/1")->has_value());
  EXPECT_TRUE(absl::IsAborted(block->erase("a/2", Revision{1})));
  const auto listing = block->list("a/");
  ASSERT_TRUE(listing.ok()) << listing.status();
  for (const ClusterEntry& entry : listing->entries) {
    EXPECT_TRUE(block->erase(entry.key, entry.revision).ok());
  }
  server.compact(block->list("")->revision);
  server.control("defrag");
  server.control("alarm disarm");
  EXPECT_TRUE(block->put("b", "1").ok());
}

// Of commits at the same time some find no space only when they are made; etcd refuses these too.
TEST(EtcdClusterBlock, WhatIsRefusedForWantOfSpaceIsNotMade) {
  EtcdServer::Options small;
  small.arguments = {"--quota-backend-bytes", "4194304"};
  EtcdServer server(small);
  const auto block = server.open("p");
  const std::string value(300 << 10, 'v');
  std::atomic<int> stored{0};
  std::mutex mutex;
  std::vector<std::string> refused;
  parallel_for(8, [&](size_t writer) {
    for (int i = 0; i < 100; ++i) {
      const std::string key = fmt::format("a/{}/{}", writer, i);
      const absl::Status status = block->compare_and_swap(key, value, 0).status();
      if (status.ok()) {
        ++stored;
        continue;
      }
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      const std::lock_guard lock(mutex);
      refused.push_back(key);
      return;
    }
  });
  EXPECT_EQ(refused.size(), 8u);
  EXPECT_EQ(block->list("a/")->entries.size(), static_cast<size_t>(stored));
  for (const std::string& key : refused) EXPECT_FALSE(block->get(key)->has_value()) << key;
}

// etcd has one code for that and for no space.
TEST(EtcdClusterBlock, TooManyRequestsAreSentAgain) {
  RefusingEtcd etcd(shared_etcd().address());
  EtcdClusterBlockOptions options = shared_etcd().options(new_etcd_prefix());
  options.endpoints = {etcd.address()};
  const auto block = open(options);
  ASSERT_NE(block, nullptr);
  etcd.refuse_next(4);
  const auto put = block->put("a", "1");
  EXPECT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(etcd.refused(), 4);
  EXPECT_EQ(block->get("a").value()->value, "1");
  etcd.refuse_next(3);
  EXPECT_TRUE(block->grant(5'000).ok());
  // Where it is overloaded for too long, it is not its space that is missing.
  block->limit_calls(500);
  etcd.refuse_next(1'000'000);
  const absl::Status busy = block->put("a", "2").status();
  EXPECT_TRUE(absl::IsUnavailable(busy)) << busy;
  EXPECT_TRUE(names(busy, "overloaded")) << busy;
  EXPECT_TRUE(absl::IsUnavailable(block->grant(5'000).status()));
  EXPECT_EQ(block->get("a").value()->value, "1");
  etcd.refuse_next(0);
  EXPECT_TRUE(block->put("a", "3").ok());
}

TEST(EtcdClusterBlock, LimitedCallsEndSoonWhileEtcdIsAway) {
  EtcdServer server;
  const auto block = server.open("p");
  server.kill();
  std::thread running([&] { EXPECT_TRUE(absl::IsUnavailable(block->put("a", "1").status())); });
  sleep_ms(200);
  const int64_t begun = system_clock().monotonic_ms();
  block->limit_calls(300);
  running.join();
  EXPECT_TRUE(absl::IsUnavailable(block->put("a", "1").status()));
  EXPECT_TRUE(absl::IsUnavailable(block->keep_alive(1)));
  EXPECT_LT(system_clock().monotonic_ms() - begun, 3'000);
}

TEST(EtcdClusterBlock, EndpointsOfTwoClustersAreRefused) {
  EtcdServer one;
  EtcdServer other;
  const std::vector<std::string> named = {one.address(), fmt::format("{:x}", one.cluster_id()),
                                          other.address(), fmt::format("{:x}", other.cluster_id())};
  ASSERT_NE(named[1], named[3]);
  const auto expect_named = [&](const absl::Status& status) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    for (const std::string& name : named) EXPECT_TRUE(names(status, name)) << status;
  };
  EtcdClusterBlockOptions options = one.options("p");
  options.endpoints = {one.address(), other.address()};
  expect_named(open_etcd_cluster_block(options).status());

  // One that was away when the block was opened is not used when it is there and the first is not.
  other.kill();
  const auto block = open(options);
  ASSERT_NE(block, nullptr);
  ASSERT_TRUE(block->put("a", "1").ok());
  other.start();
  other.wait_until_serving();
  one.kill();
  absl::Status status;
  EXPECT_TRUE(wait_until([&] {
    status = block->put("a", "2").status();
    return !absl::IsUnavailable(status);
  }));
  expect_named(status);
  EXPECT_TRUE(other.open("p")->list("")->entries.empty());
}

class EtcdUsersTest : public ::testing::Test {
 protected:
  static EtcdServer::Options short_tokens() {
    EtcdServer::Options options;
    options.arguments = {"--auth-token-ttl",      "1",      "--bcrypt-cost", "4",
                         "--quota-backend-bytes", "8388608"};
    return options;
  }
  void SetUp() override {
    server_.control("user add root:rootword");
    server_.control("role add sluice");
    server_.control("role grant-permission sluice --prefix=true readwrite p/");
    server_.control("user add mover:secret");
    server_.control("user grant-role mover sluice");
    server_.control("user grant-role root root");
    server_.control("auth enable");
  }
  EtcdClusterBlockOptions options(const std::string& user, const std::string& password,
                                  const std::string& prefix = "p") const {
    EtcdClusterBlockOptions made = server_.options(prefix);
    made.access.user = user;
    made.access.password = password;
    return made;
  }
  EtcdServer server_{short_tokens()};
};

TEST_F(EtcdUsersTest, WhoMayNotIsToldWhatToDo) {
  const absl::Status nobody = open_etcd_cluster_block(options("", "")).status();
  EXPECT_TRUE(absl::IsPermissionDenied(nobody)) << nobody;
  EXPECT_TRUE(names(nobody, "SLUICE_ETCD_USER") && names(nobody, server_.address())) << nobody;
  for (const std::string user : {"mover", "stranger"}) {
    const absl::Status wrong = open_etcd_cluster_block(options(user, "guessed")).status();
    EXPECT_TRUE(absl::IsPermissionDenied(wrong)) << wrong;
    EXPECT_TRUE(names(wrong, "'" + user + "'") && !names(wrong, "guessed")) << wrong;
  }
  const absl::Status elsewhere = open_etcd_cluster_block(options("mover", "secret", "q")).status();
  EXPECT_TRUE(absl::IsPermissionDenied(elsewhere)) << elsewhere;
}

TEST_F(EtcdUsersTest, AUserIsToldOfNoSpace) {
  const auto block = open(options("mover", "secret"));
  ASSERT_NE(block, nullptr);
  const std::string value(1 << 20, 'v');
  absl::Status status;
  int stored = 0;
  EXPECT_TRUE(wait_until([&] {
    status = block->put("a/" + std::to_string(stored++), value).status();
    return !status.ok();
  }));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
}

TEST_F(EtcdUsersTest, TokensAreRenewed) {
  const auto block = open(options("mover", "secret"));
  ASSERT_NE(block, nullptr);
  EventLog log;
  const auto watch = block->watch("a", 0, log.callback());
  const auto lease = block->grant(30'000);
  ASSERT_TRUE(lease.ok()) << lease.status();
  ASSERT_TRUE(block->put("a", "0", *lease).ok());
  ASSERT_TRUE(log.wait_for("a", Kind::kPut, "0"));
  for (int round = 1; round <= 2; ++round) {
    sleep_ms(3'000);  // for longer than a token lasts
    EXPECT_TRUE(block->keep_alive(*lease).ok());
    const auto put = block->put("a", std::to_string(round));
    EXPECT_TRUE(put.ok()) << put.status();
    EXPECT_TRUE(log.wait_for("a", Kind::kPut, std::to_string(round)));
    EXPECT_TRUE(block->list("").ok());
  }
  // A new process knows no tokens of the one before.
  server_.kill();
  server_.start();
  EXPECT_TRUE(block->put("a", "last").ok());
  EXPECT_TRUE(log.wait_for("a", Kind::kPut, "last"));
}

TEST(EtcdClusterBlock, AUserWhereEtcdHasNoneIsFine) {
  EtcdClusterBlockOptions options = shared_etcd().options(new_etcd_prefix());
  options.access.user = "mover";
  options.access.password = "secret";
  const auto block = open(options);
  ASSERT_NE(block, nullptr);
  EXPECT_TRUE(block->put("a", "1").ok());
}

class EtcdTlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
    for (const std::string name : {"server", "client"}) {
      run(fmt::format("req -newkey rsa:2048 -nodes -keyout {0}.key -out {0}.csr -subj /CN={0}",
                      name));
      std::ofstream(folder_.file("extensions"))
          << "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
      run(
          fmt::format("x509 -req -in {0}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out "
                      "{0}.pem -extfile extensions",
                      name));
    }
  }
  void run(const std::string& arguments) {
    const std::string command =
        "cd " + folder_.file("") + " && openssl " + arguments + " >openssl.log 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << arguments;
  }
  std::string content(const std::string& name) {
    return read_file(folder_.file(name), size_t{1} << 20).value();
  }
  TestFolder folder_;
};

TEST_F(EtcdTlsTest, BothSidesShowCertificates) {
  EtcdServer::Options tls;
  tls.scheme = "https";
  tls.arguments = {"--cert-file",         folder_.file("server.pem"),
                   "--key-file",          folder_.file("server.key"),
                   "--client-cert-auth",  "--trusted-ca-file",
                   folder_.file("ca.pem")};
  EtcdServer server(tls);
  EtcdClusterBlockOptions options = server.options("p");
  options.access.authorities = content("ca.pem");
  options.access.certificate = content("client.pem");
  options.access.key = content("client.key");
  const auto block = open(options);
  ASSERT_NE(block, nullptr);
  EventLog log;
  const auto watch = block->watch("a", 0, log.callback());
  EXPECT_TRUE(block->put("a", "1").ok());
  EXPECT_TRUE(log.wait_for("a", Kind::kPut, "1"));
  // In plain text, and without a certificate, nothing is served.
  EXPECT_TRUE(absl::IsUnavailable(open_etcd_cluster_block(server.options("p")).status()));
}

class EtcdAccessTest : public ::testing::Test {
 protected:
  ~EtcdAccessTest() override {
    for (const std::string& name : set_) ::unsetenv(name.c_str());
  }
  void set(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    set_.push_back(name);
  }
  std::string file_of(const std::string& name, const std::string& content) {
    std::ofstream(folder_.file(name)) << content;
    return folder_.file(name);
  }
  TestFolder folder_;
  std::vector<std::string> set_;
};

TEST_F(EtcdAccessTest, ComesFromTheEnvironment) {
  auto access = cluster_block::etcd_access_from_environment();
  ASSERT_TRUE(access.ok());
  EXPECT_TRUE(access->user.empty() && access->authorities.empty());
  set("SLUICE_ETCD_USER", "mover:se:cret");
  access = cluster_block::etcd_access_from_environment();
  ASSERT_TRUE(access.ok()) << access.status();
  EXPECT_EQ(access->user, "mover");
  EXPECT_EQ(access->password, "se:cret");
  set("SLUICE_ETCD_PASSWORD_FILE", file_of("password", "from file\n"));
  set("SLUICE_ETCD_CA", file_of("ca", "authorities"));
  access = cluster_block::etcd_access_from_environment();
  ASSERT_TRUE(access.ok()) << access.status();
  EXPECT_EQ(access->user, "mover:se:cret");
  EXPECT_EQ(access->password, "from file");
  EXPECT_EQ(access->authorities, "authorities");
}

TEST_F(EtcdAccessTest, WhatDoesNotGoTogetherIsNamed) {
  const auto refused = [](const char* name) {
    const absl::Status status = cluster_block::etcd_access_from_environment().status();
    return !status.ok() && names(status, name) && !names(status, "secret");
  };
  set("SLUICE_ETCD_USER", "mover");
  EXPECT_TRUE(refused("SLUICE_ETCD_PASSWORD_FILE"));
  set("SLUICE_ETCD_PASSWORD_FILE", folder_.file("none"));
  EXPECT_TRUE(refused("SLUICE_ETCD_PASSWORD_FILE"));
  set("SLUICE_ETCD_PASSWORD_FILE", file_of("password", "secret"));
  ::unsetenv("SLUICE_ETCD_USER");
  EXPECT_TRUE(refused("SLUICE_ETCD_USER"));
  set("SLUICE_ETCD_USER", "mover");
  set("SLUICE_ETCD_CERT", file_of("cert", "c"));
  EXPECT_TRUE(refused("SLUICE_ETCD_KEY"));
  set("SLUICE_ETCD_KEY", file_of("key", "k"));
  EXPECT_TRUE(refused("SLUICE_ETCD_CA"));
}

}  // namespace
}  // namespace sluice

// A node's limit for bulk, on a clock that moves only when the limit has to be waited for.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "tests/dataplane/stream/exchange_fixture.h"

namespace sluice {
namespace {

class ExchangeLimitTest : public ExchangeTest {
 protected:
  static constexpr uint64_t kRate = 10'000'000;
  static constexpr uint32_t kBytes = 1'000'000;
  static constexpr size_t kBlocks = 2;  // credits that a stream begins with
  static constexpr uint64_t kMessages = 40;
  static constexpr std::chrono::milliseconds kStill{3};
  // Nothing is paid for that came with the first credits, or as the burst. Credits are charged as
  // whole buffers until it is known what they were for, and what the driver does not take at once
  // is given back, while this clock has gone on.
  static constexpr double kLeast = (kMessages - kBlocks - 2.0) * kBytes / kRate;
  static constexpr double kMost = (kMessages + 1.0) * kBufferBytes / kRate;

  // Node `i` has the limit.
  void open_limited(size_t i) {
    for (size_t node = 0; node < 2; ++node) {
      open(node, [&](Exchange::Options& options) {
        options.clock = node == i ? static_cast<Clock*>(&clock_) : &system_clock();
        options.limit = node == i ? &limit_ : nullptr;
      });
    }
  }
  // Sends `messages` from one end to the other, and returns the virtual seconds that it took.
  double move(Stream& from, Stream& to, BlockPool& pool, uint64_t messages) {
    const int64_t begun = clock_.monotonic_ns();
    std::atomic<uint64_t> received{0};
    std::thread sender([&] {
      for (uint64_t i = 0; i < messages; ++i) {
        const absl::Status status = send(from, pool, i, kBytes);
        ASSERT_TRUE(status.ok()) << status;
      }
    });
    std::thread receiver([&] {
      for (uint64_t i = 0; i < messages; ++i) {
        absl::StatusOr<Message> message = to.receive(kPatience);
        ASSERT_TRUE(message.ok()) << message.status();
        ASSERT_EQ(message->envelope.sequence, i);
        ++received;
      }
    });
    // Time passes only while nothing comes: what is not held back comes in no time.
    EXPECT_TRUE(eventually([&] {
      const uint64_t before = received;
      std::this_thread::sleep_for(kStill);
      if (received == before) let_time_pass();
      return received == messages;
    }));
    sender.join();
    receiver.join();
    return static_cast<double>(clock_.monotonic_ns() - begun) / 1e9;
  }
  // Never more than the limit asks for.
  void let_time_pass() { clock_.advance_ns(std::max(limit_.in.wait_ns(), limit_.out.wait_ns())); }

  ManualClock clock_;
  BulkLimit limit_{clock_, kRate};
};

TEST_P(ExchangeLimitTest, HoldsBackWhatComesIn) {
  open_limited(1);
  auto [here, there] = pair(kBlocks);
  ASSERT_NE(there, nullptr);
  const double seconds = move(*here, *there, *nodes_[0].pool, kMessages);
  EXPECT_GE(seconds, kLeast);
  EXPECT_LE(seconds, kMost);
}

TEST_P(ExchangeLimitTest, HoldsBackWhatGoesOut) {
  open_limited(0);
  auto [here, there] = pair();
  ASSERT_NE(there, nullptr);
  const double seconds = move(*here, *there, *nodes_[0].pool, kMessages);
  EXPECT_GE(seconds, kLeast);
  EXPECT_LE(seconds, kMost);
}

TEST_P(ExchangeLimitTest, HoldsBackWhatANodeSendsToItself) {
  open_limited(0);
  nodes_[0].handler.admission.receive_blocks = 4;
  const auto here = nodes_[0].exchange->connect(to(0));
  ASSERT_TRUE(here.ok()) << here.status();
  const auto there = nodes_[0].handler.next();
  ASSERT_NE(there, nullptr);
  const double seconds = move(**here, *there, *nodes_[0].pool, kMessages);
  EXPECT_GE(seconds, kLeast);
  EXPECT_LE(seconds, kMost);
}

TEST_P(ExchangeLimitTest, AcknowledgementsPassWhileBulkIsHeldBack) {
  open_limited(0);
  auto [here, there] = pair();
  auto [other, other_there] = pair();
  ASSERT_TRUE(there != nullptr && other_there != nullptr);
  limit_.out.take(uint64_t{1} << 40);
  limit_.in.take(uint64_t{1} << 40);
  ASSERT_TRUE(send(*here, *nodes_[0].pool, 1, kBytes).ok());
  Envelope envelope;
  envelope.kind = MessageKind::kStreamEnd;
  ASSERT_TRUE(other->send_control(envelope, {}, kPatience).ok());
  EXPECT_TRUE(other_there->receive(kPatience).ok());
  ASSERT_TRUE(other_there->send_control(envelope, {}, kPatience).ok());
  EXPECT_TRUE(other->receive(kPatience).ok());
  EXPECT_EQ(there->receive(50).status().code(), absl::StatusCode::kDeadlineExceeded);
  limit_.out.give_back(uint64_t{1} << 40);
  EXPECT_TRUE(there->receive(kPatience).ok());
}

// One that has more to send does not take the others' turns.
TEST_P(ExchangeLimitTest, StreamsShareTheLimit) {
  open_limited(1);
  auto [a, a_there] = pair(kBlocks);
  auto [b, b_there] = pair(kBlocks);
  ASSERT_TRUE(a_there != nullptr && b_there != nullptr);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> received[2] = {0, 0};
  const auto pool = *nodes_[0].arena->make_pool("more", 12);
  std::vector<std::thread> threads;
  for (const auto& [from, buffers] :
       {std::pair{a.get(), nodes_[0].pool.get()}, {b.get(), pool.get()}}) {
    threads.emplace_back([&, from = from, buffers = buffers] {
      for (uint64_t i = 0; !stop; ++i) (void)send(*from, *buffers, i, kBytes, 20);
    });
  }
  for (const auto& [to, count] :
       {std::pair{a_there.get(), &received[0]}, std::pair{b_there.get(), &received[1]}}) {
    threads.emplace_back([&, to = to, count = count] {
      while (!stop) *count += to->receive(20).ok();
    });
  }
  // Counted from where both send: a machine that is busy starts one thread long before another.
  uint64_t begin[2] = {0, 0};
  const bool enough = eventually([&] {
    let_time_pass();
    if (begin[0] == 0 && (received[0] == 0 || received[1] == 0)) return false;
    if (begin[0] == 0) {
      begin[0] = received[0];
      begin[1] = received[1];
    }
    return received[0] - begin[0] + received[1] - begin[1] >= 60;
  });
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(enough);
  EXPECT_GE(received[0] - begin[0], 20u);
  EXPECT_GE(received[1] - begin[1], 20u);
  // What is queued stands in the pool that goes before the exchange.
  a->close(cancelled("the test is over"));
  b->close(cancelled("the test is over"));
  EXPECT_TRUE(eventually([&] { return pool->free() == pool->size(); }));
}

// Or peers that pause would keep the limit from those that send.
// Its sender is woken and takes its room itself; others have taken it by then, unless it is kept.
TEST_P(ExchangeLimitTest, AStreamOfTheNodeToItselfHasItsTurnBesideOthers) {
  open_limited(1);
  auto [a, a_there] = pair(kBlocks);
  ASSERT_NE(a_there, nullptr);
  nodes_[1].handler.admission.receive_blocks = kBlocks;
  const auto own = nodes_[1].exchange->connect(to(1));
  ASSERT_TRUE(own.ok()) << own.status();
  const auto own_there = nodes_[1].handler.next();
  ASSERT_NE(own_there, nullptr);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> received[2] = {0, 0};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    for (uint64_t i = 0; !stop; ++i) (void)send(*a, *nodes_[0].pool, i, kBytes, 20);
  });
  threads.emplace_back([&] {
    for (uint64_t i = 0; !stop; ++i) (void)send(**own, *nodes_[1].pool, i, kBytes, 20);
  });
  threads.emplace_back([&] {
    while (!stop) received[0] += a_there->receive(20).ok();
  });
  threads.emplace_back([&] {
    while (!stop) received[1] += own_there->receive(20).ok();
  });
  // As in move(): both have come as far as they can before time goes on.
  const bool enough = eventually([&] {
    const uint64_t before = received[0] + received[1];
    std::this_thread::sleep_for(kStill);
    if (received[0] + received[1] == before) let_time_pass();
    return before >= 60;
  });
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(enough);
  EXPECT_GE(received[0], 15u);
  EXPECT_GE(received[1], 15u);
  a->close(cancelled("the test is over"));
  EXPECT_TRUE(eventually([&] { return nodes_[0].pool->free() == nodes_[0].pool->size(); }));
}

TEST_P(ExchangeLimitTest, CreditsThatAreNotUsedCostNothing) {
  open_limited(1);
  auto [idle, idle_there] = pair(8);
  auto [busy, busy_there] = pair(kBlocks);
  ASSERT_TRUE(idle_there != nullptr && busy_there != nullptr);
  // Its credits are charged from now on; one after the other it gets them all.
  move(*idle, *idle_there, *nodes_[0].pool, 12);
  clock_.advance_ns(10'000'000'000);
  EXPECT_TRUE(eventually([&] { return limit_.in.ready(); }));
  EXPECT_LE(move(*busy, *busy_there, *nodes_[0].pool, kMessages), kMost);
}

INSTANTIATE_TEST_SUITE_P(Networks, ExchangeLimitTest, testing::ValuesIn(exchange_networks()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace sluice

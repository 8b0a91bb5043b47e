// Who is not a peer, or not an honest one: what it sends costs a bounded amount, and established
// transfers go on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "drivers/packet/wire.h"
#include "tests/drivers/packet/world.h"

namespace sluice::packet {
namespace {

using testing::HasSubstr;

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr uint64_t kEndless = uint64_t{1} << 60;

std::string packet_of(const Frame& frame) {
  uint8_t header[kMaxHeaderBytes];
  const size_t bytes = encode(frame, header);
  std::string packet(reinterpret_cast<const char*>(header), bytes);
  packet.append(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  return packet;
}

class Stranger : public testing::Test {
 protected:
  void SetUp() override {
    std::tie(a_, b_) = world_.connect(0, 1);
    ASSERT_NE(a_, 0u);
    flow_ = &world_.add_flow(0, a_, 1, b_, kEndless, 1000, 60'000, 8);
    ASSERT_TRUE(world_.run([&] { return flow_->received > 10; }, kSecondNs));
  }
  void goes_on() {
    const uint64_t before = flow_->received;
    ASSERT_TRUE(world_.run([&] { return flow_->received > before + 50; }, kSecondNs));
    EXPECT_EQ(flow_->wrong, 0u);
    EXPECT_FALSE(world_.end(0, a_).closed);
    EXPECT_FALSE(world_.end(1, b_).closed);
    EXPECT_EQ(world_.endpoint(1).layer_counters().connections, 1u);
  }
  uint64_t wire_id(size_t node, ConnectionId id) {
    return world_.endpoint(node).connection(id)->wire_id();
  }

  // A slow link, so that seconds of virtual time are not gigabytes.
  static World::Options slow() {
    World::Options options;
    options.fabric.bytes_per_second = 20'000'000;
    return options;
  }

  World world_{slow()};
  ConnectionId a_ = 0;
  ConnectionId b_ = 0;
  Flow* flow_ = nullptr;
};

TEST_F(Stranger, GarbageIsCountedAndThrownAway) {
  Random random(3);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(random.below(600), '\0');
    for (char& c : bytes) c = static_cast<char>(random.next());
    if (bytes.size() > 10 && random.chance(0.5)) {
      bytes[8] = 1;
      bytes[9] = static_cast<char>(1 + random.below(8));
      bytes[10] = bytes[11] = 0;
    }
    if (random.chance(0.5)) {
      seal({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
    }
    world_.network().inject("stranger", "n1", bytes);
    if (i % 100 == 0) world_.run_for(50'000);
  }
  goes_on();
  const LayerCounters counters = world_.endpoint(1).layer_counters();
  EXPECT_GT(counters.short_packets, 100u);
  EXPECT_GT(counters.wrong_check, 1000u);
  EXPECT_GT(counters.malformed, 1000u);
}

// Hellos from ever new addresses, without a cookie, with a wrong one, with one that was made for
// another address: each is answered with no more bytes than it had, and nothing is kept.
TEST_F(Stranger, AFloodOfHellosKeepsNothing) {
  Random random(4);
  const uint64_t sent_before = world_.network().counters().sent;
  for (int i = 0; i < 20'000; ++i) {
    Frame hello;
    hello.type = Type::kHello;
    hello.from = random.next() | 1;
    hello.cookie = random.chance(0.5) ? random.next() : 0;
    hello.max_message_bytes = 64 << 10;
    hello.receive_depth = 256;
    hello.max_packet_bytes = 1472;
    world_.network().inject("flood:" + std::to_string(random.below(5000)), "n1", packet_of(hello));
    if (i % 50 == 0) world_.run_for(50'000);
  }
  goes_on();
  const LayerCounters counters = world_.endpoint(1).layer_counters();
  EXPECT_GT(counters.cookies, 10'000u);
  EXPECT_EQ(counters.connections, 1u);
  EXPECT_EQ(counters.lingering, 0u);
  EXPECT_GT(world_.network().counters().sent, sent_before);
}

// A peer that proves its address but makes connection after connection runs into its limit.
TEST_F(Stranger, ManyConnectionsOfOnePeerAreBounded) {
  std::vector<std::pair<std::string, std::string>> cookies;
  world_.network().set_tap(
      [&](const std::string&, const std::string& to, std::span<const uint8_t> bytes) {
        if (to == "greedy") cookies.emplace_back(to, std::string(bytes.begin(), bytes.end()));
      });
  // "greedy" has no port, so its answers are made here; the tap hears of nothing that nobody takes.
  auto port = world_.network().open("greedy", "greedy");
  ASSERT_TRUE(port.ok());
  Random random(5);
  for (int i = 0; i < 400; ++i) {
    Frame hello;
    hello.type = Type::kHello;
    hello.from = random.next() | 1;
    hello.max_message_bytes = 64 << 10;
    hello.receive_depth = 256;
    hello.max_packet_bytes = 1472;
    world_.network().inject("greedy", "n1", packet_of(hello));
    world_.run_for(1'000'000);
    for (const auto& [to, bytes] : cookies) {
      Frame frame;
      if (parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, &frame) !=
              ParseResult::kOk ||
          frame.type != Type::kCookie || frame.connection != hello.from) {
        continue;
      }
      hello.cookie = frame.cookie;
      world_.network().inject("greedy", "n1", packet_of(hello));
    }
    cookies.clear();
    std::vector<InPacket> taken(64);
    while ((*port)->receive_burst(taken) > 0) {
    }
    ASSERT_LE(world_.endpoint(1).layer_counters().connections, 1 + PacketEndpoint::kMaxGreeting);
  }
  EXPECT_EQ(world_.endpoint(1).layer_counters().connections, 1 + PacketEndpoint::kMaxGreeting);
  EXPECT_GT(world_.endpoint(1).layer_counters().refused, 50u);
  port->reset();
  // They never say anything more, and are gone after the connect timeout.
  world_.run_for(6 * kSecondNs);
  goes_on();
}

TEST_F(Stranger, SpoofedPacketsChangeNothing) {
  std::vector<Frame> frames(3);
  frames[0].type = Type::kReset;
  frames[1].type = Type::kControl;
  frames[1].granted = 3;
  frames[1].number = 99'999'999;
  frames[2].type = Type::kData;
  const std::vector<uint8_t> payload(100, 7);
  frames[2].number = 99'999'999;
  frames[2].block = flow_->received;
  frames[2].length = 100;
  frames[2].payload = payload;
  for (Frame frame : frames) {
    // The right connection from the wrong address; the right address with the wrong identifiers.
    frame.connection = wire_id(1, b_);
    frame.from = wire_id(0, a_);
    world_.network().inject("spoofer", "n1", packet_of(frame));
    frame.connection = 12345;
    world_.network().inject("n0", "n1", packet_of(frame));
    if (frame.type == Type::kData) continue;
    frame.connection = wire_id(1, b_);
    frame.from = 12345;
    world_.network().inject("n0", "n1", packet_of(frame));
  }
  goes_on();
  EXPECT_EQ(world_.endpoint(1).layer_counters().wrong_address, 3u);
  EXPECT_EQ(world_.endpoint(1).layer_counters().unknown_connection, 3u);
}

// A peer that breaks the protocol loses its connection, with a reason, and nothing else happens.
TEST_F(Stranger, APeerThatBreaksTheProtocolIsCutOff) {
  struct Case {
    const char* name;
    std::function<void(Frame*)> make;
    const char* reason;
  };
  const std::vector<uint8_t> payload(2000, 7);
  const auto data = [&](Frame* frame, uint64_t block, uint32_t offset, uint32_t length,
                        size_t bytes) {
    frame->type = Type::kData;
    frame->number = uint64_t{1} << 40;
    frame->block = block;
    frame->offset = offset;
    frame->length = length;
    frame->payload = std::span(payload).first(bytes);
  };
  const std::vector<Case> cases = {
      {"beyond its credits", [&](Frame* f) { data(f, 1'000'000, 0, 100, 100); }, "credits"},
      {"too long a block", [&](Frame* f) { data(f, 3, 0, (64 << 10) + 1, fragment_bytes(1472)); },
       "65537"},
      {"an odd offset", [&](Frame* f) { data(f, 3, 1, 100, 99); }, "fragments"},
      {"a short fragment", [&](Frame* f) { data(f, 3, 0, 100, 50); }, "fragments"},
      {"acknowledges what was not sent",
       [](Frame* f) {
         f->type = Type::kControl;
         f->largest = 64'000;
         static const uint64_t kWord = 1;
         f->words = reinterpret_cast<const uint8_t*>(&kWord);
         f->word_count = 1;
       },
       "acknowledges"},
      {"grants too much",
       [](Frame* f) {
         f->type = Type::kControl;
         f->granted = 1 << 19;
       },
       "grants"},
      {"has received what was not sent",
       [](Frame* f) {
         f->type = Type::kControl;
         f->received = 5;
         f->granted = 6;
       },
       "blocks"},
      {"closes before what it has sent",
       [](Frame* f) {
         f->type = Type::kControl;
         f->flags = kClosing;
         f->number = uint64_t{1} << 40;
       },
       "closes"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    World world{World::Options{}};
    const auto [a, b] = world.connect(0, 1);
    Flow& flow = world.add_flow(0, a, 1, b, 20, 1000, 60'000, 8);
    const auto [c, d] = world.connect(0, 1);
    Flow& other = world.add_flow(0, c, 1, d, 200, 1000, 60'000, 8);
    ASSERT_TRUE(world.run([&] { return flow.sent == 20; }, kSecondNs));
    Frame frame;
    one.make(&frame);
    frame.connection = world.endpoint(1).connection(b)->wire_id();
    frame.from = world.endpoint(0).connection(a)->wire_id();
    world.network().inject("n0", "n1", packet_of(frame));
    ASSERT_TRUE(world.run(
        [&, a = a, b = b] { return world.end(0, a).closed && world.end(1, b).closed; }, kSecondNs));
    EXPECT_THAT(std::string(message_of(world.end(1, b).status)), HasSubstr(one.reason));
    EXPECT_THAT(std::string(message_of(world.end(0, a).status)), HasSubstr("broke the protocol"));
    ASSERT_TRUE(world.run([&] { return other.sent == 200; }, kSecondNs));
    EXPECT_EQ(other.wrong + flow.wrong, 0u);
  }
}

TEST_F(Stranger, AnotherVersionIsRefusedWithBothVersions) {
  Frame hello;
  hello.type = Type::kHello;
  hello.from = 77;
  std::string bytes = packet_of(hello);
  bytes[8] = 9;
  seal({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  Frame answer;
  std::string answered;
  world_.network().set_tap(
      [&](const std::string&, const std::string& to, std::span<const uint8_t> got) {
        if (to == "newer") answered.assign(got.begin(), got.end());
      });
  auto port = world_.network().open("newer", "newer");
  ASSERT_TRUE(port.ok());
  world_.network().inject("newer", "n1", bytes);
  world_.run_for(1'000'000);
  ASSERT_EQ(parse({reinterpret_cast<const uint8_t*>(answered.data()), answered.size()}, &answer),
            ParseResult::kOk);
  EXPECT_EQ(answer.type, Type::kRefusal);
  EXPECT_EQ(answer.connection, 77u);
  EXPECT_EQ(answer.code, static_cast<uint32_t>(RefusalCode::kVersion));
  EXPECT_EQ(answer.version, kProtocolVersion);
  port->reset();
  goes_on();
}

// Everything that a past connection sent, again, twice and in another order, at once and after its
// memory is gone.
TEST_F(Stranger, DuplicatesOfOldConnectionsChangeNothing) {
  struct Heard {
    std::string from, to, bytes;
  };
  World world{slow()};
  std::vector<Heard> heard;
  world.network().set_tap(
      [&](const std::string& from, const std::string& to, std::span<const uint8_t> bytes) {
        heard.push_back({from, to, std::string(bytes.begin(), bytes.end())});
      });
  const auto [a, b] = world.connect(0, 1);
  Flow& old = world.add_flow(0, a, 1, b, 40, 1000, 60'000, 8);
  ASSERT_TRUE(world.run([&] { return old.sent == 40; }, kSecondNs));
  world.endpoint(0).close(a);
  ASSERT_TRUE(world.run(
      [&, a = a, b = b] { return world.end(0, a).closed && world.end(1, b).closed; }, kSecondNs));
  world.network().set_tap({});
  EXPECT_GT(heard.size(), 500u);
  const auto [c, d] = world.connect(0, 1);
  Flow& flow = world.add_flow(0, c, 1, d, kEndless, 1000, 60'000, 8);
  Random random(6);
  for (const int64_t pause : {int64_t{0}, 3 * kSecondNs, 9 * kSecondNs}) {
    flow.want = pause == 0 ? kEndless : flow.posted;
    if (pause > 0) world.run_for(pause);
    flow.want = kEndless;
    for (int round = 0; round < 2; ++round) {
      random.shuffle(heard);
      size_t i = 0;
      for (const Heard& one : heard) {
        world.network().inject(one.from, one.to, one.bytes);
        if (++i % 20 == 0) world.run_for(20'000);
      }
    }
    world.run_for(10'000'000);
    EXPECT_EQ(world.accepted(1).size(), 2u) << "an old hello was taken for a new one";
    EXPECT_FALSE(world.end(1, d).closed);
  }
  ASSERT_TRUE(world.run([&] { return flow.received > 200; }, 5 * kSecondNs));
  EXPECT_EQ(flow.wrong + old.wrong, 0u);
  world.run_for(6 * kSecondNs);
  EXPECT_EQ(world.endpoint(1).layer_counters().connections, 1u);
  EXPECT_EQ(world.closed_unaccepted, 0u);
}

}  // namespace
}  // namespace sluice::packet

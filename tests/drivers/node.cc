#include "tests/drivers/node.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kPatienceNs = 30'000'000'000;
constexpr int64_t kIdleNs = 500'000;

}  // namespace

Node::Node(Transport& transport, std::string_view listen, size_t buffers, size_t buffer_bytes) {
  Arena::Options options;
  options.buffer_bytes = buffer_bytes;
  options.bytes = buffers * buffer_bytes;
  auto made_arena = Arena::create(options);
  EXPECT_TRUE(made_arena.ok()) << made_arena.status();
  arena = std::move(*made_arena);
  pool = std::move(*arena->make_pool("test", buffers));
  auto opened = transport.open(*arena, listen);
  EXPECT_TRUE(opened.ok()) << opened.status();
  if (opened.ok()) endpoint = std::move(*opened);
}

size_t Node::pump() {
  std::array<Completion, 16> completions;
  const size_t count = endpoint->poll(completions);
  for (size_t i = 0; i < count; ++i) take(std::move(completions[i]));
  return count;
}

void Node::take(Completion completion) {
  ASSERT_NE(completion.connection, 0u);
  Link& link = links[completion.connection];
  EXPECT_FALSE(link.closed) << "a completion after kClosed";
  if (completion.buffer && absl::IsCancelled(completion.status)) ++link.cancelled;
  switch (completion.kind) {
    case CompletionKind::kAccepted:
      accepted.push_back(completion.connection);
      [[fallthrough]];
    case CompletionKind::kConnected:
      EXPECT_FALSE(link.up);
      EXPECT_FALSE(completion.peer.empty());
      link.up = true;
      link.peer = completion.peer;
      break;
    case CompletionKind::kReceived:
      ASSERT_TRUE(completion.buffer);
      if (!completion.status.ok()) {
        ++link.receive_failed;
        break;
      }
      ++link.received_total;
      EXPECT_GT(completion.bytes, 0u);
      if (on_received) {
        on_received(completion.connection, {std::move(completion.buffer), completion.bytes});
      } else {
        link.received.push_back({std::move(completion.buffer), completion.bytes});
      }
      break;
    case CompletionKind::kSent:
      ASSERT_TRUE(completion.buffer);
      if (completion.status.ok()) {
        ++link.sent;
        link.sent_bytes += completion.bytes;
      } else {
        ++link.send_failed;
      }
      break;
    case CompletionKind::kClosed:
      EXPECT_FALSE(completion.buffer);
      link.closed = true;
      link.close_status = completion.status;
      break;
  }
}

bool Node::post_receives(ConnectionId id, size_t count) {
  std::vector<BlockBuffer> buffers;
  for (size_t i = 0; i < count; ++i) {
    buffers.push_back(pool->try_take());
    EXPECT_TRUE(buffers.back()) << "the test's pool is too small";
  }
  size_t at = 0;
  return run_until({this}, [&] {
    at += endpoint->post_recv(id, std::span(buffers).subspan(at));
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(static_cast<bool>(buffers[i]), i >= at);
    return at == count;
  });
}

bool Node::try_send(ConnectionId id, uint32_t bytes, uint64_t seed) {
  if (endpoint->credits(id) == 0) return false;
  SendRequest request;
  request.buffer = pool->try_take();
  if (!request.buffer) return false;
  request.bytes = bytes;
  fill(request.buffer.data(), bytes, seed);
  const size_t posted = endpoint->post_send(id, {&request, 1});
  EXPECT_EQ(static_cast<bool>(request.buffer), posted == 0);
  return posted == 1;
}

bool Node::send(ConnectionId id, uint32_t bytes, uint64_t seed) {
  return run_until({this}, [&] { return try_send(id, bytes, seed); });
}

bool run_until(std::initializer_list<Node*> nodes, const std::function<bool()>& done) {
  const int64_t deadline = system_clock().monotonic_ns() + kPatienceNs;
  while (!done()) {
    if (system_clock().monotonic_ns() > deadline) return false;
    size_t count = 0;
    for (Node* node : nodes) count += node->pump();
    if (count == 0) {
      for (Node* node : nodes) node->endpoint->wait(kIdleNs / static_cast<int64_t>(nodes.size()));
    }
  }
  return true;
}

std::pair<ConnectionId, ConnectionId> connect_nodes(Node& a, Node& b) {
  const size_t before = b.accepted.size();
  auto id = a.endpoint->connect(b.endpoint->address());
  EXPECT_TRUE(id.ok()) << id.status();
  if (!id.ok()) return {0, 0};
  const bool up = run_until({&a, &b}, [&] { return a.link(*id).up && b.accepted.size() > before; });
  EXPECT_TRUE(up) << "no connection";
  if (!up) return {0, 0};
  return {*id, b.accepted.back()};
}

void fill(uint8_t* data, size_t size, uint64_t seed) {
  Random random(seed);
  size_t at = 0;
  for (; at + 8 <= size; at += 8) store_le<uint64_t>(data + at, random.next());
  const uint64_t last = random.next();
  std::memcpy(data + at, &last, size - at);
}

bool has_content(const Message& message, uint32_t bytes, uint64_t seed) {
  if (message.bytes != bytes) return false;
  std::vector<uint8_t> expected(bytes);
  fill(expected.data(), bytes, seed);
  return std::memcmp(message.buffer.data(), expected.data(), bytes) == 0;
}

}  // namespace sluice

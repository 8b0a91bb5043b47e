// One node of a transport test: arena, pool and endpoint, and a record of what the endpoint said.
// It checks the parts of the contract that hold in every test (one kClosed, nothing after it,
// buffers of completions present).
#ifndef SLUICE_TESTS_DRIVERS_NODE_H_
#define SLUICE_TESTS_DRIVERS_NODE_H_

#include <deque>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "drivers/transport.h"

namespace sluice {

struct Message {
  BlockBuffer buffer;
  uint32_t bytes = 0;
};

// What was said about one connection.
struct Link {
  bool up = false;
  bool closed = false;
  std::string peer;
  absl::Status close_status;
  std::deque<Message> received;
  uint64_t received_total = 0;
  uint64_t receive_failed = 0;
  uint64_t sent = 0;
  uint64_t sent_bytes = 0;
  uint64_t send_failed = 0;
  uint64_t cancelled = 0;  // of the failed ones, those with CANCELLED
};

class Node {
 public:
  Node(Transport& transport, std::string_view listen, size_t buffers = 24,
       size_t buffer_bytes = 128 << 10);

  // Polls once; how many completions came.
  size_t pump();
  Link& link(ConnectionId id) { return links[id]; }
  // Posts the whole of it, polling while only a prefix is accepted; false when that takes too long.
  bool post_receives(ConnectionId id, size_t count);
  // Sends one message with content made from `seed`, waiting for credit.
  bool send(ConnectionId id, uint32_t bytes, uint64_t seed);
  // Posts one message if there are a credit and a buffer.
  bool try_send(ConnectionId id, uint32_t bytes, uint64_t seed);
  bool pool_is_whole() const { return pool->free() == pool->size(); }

  std::unique_ptr<Arena> arena;
  std::unique_ptr<BlockPool> pool;
  std::unique_ptr<Endpoint> endpoint;
  std::map<ConnectionId, Link> links;
  std::vector<ConnectionId> accepted;
  std::function<void(ConnectionId, Message)> on_received;  // instead of Link::received

 private:
  void take(Completion completion);
};

// Polls the nodes in turn until `done`, at most 30 s. Whether it became true.
bool run_until(std::initializer_list<Node*> nodes, const std::function<bool()>& done);

// Connects a to b (which listens): {a's id, b's id}, {0, 0} on failure.
std::pair<ConnectionId, ConnectionId> connect_nodes(Node& a, Node& b);

void fill(uint8_t* data, size_t size, uint64_t seed);
bool has_content(const Message& message, uint32_t bytes, uint64_t seed);

}  // namespace sluice

#endif  // SLUICE_TESTS_DRIVERS_NODE_H_

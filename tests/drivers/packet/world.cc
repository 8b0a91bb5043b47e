#include "tests/drivers/packet/world.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/bytes.h"

namespace sluice::packet {
namespace {

constexpr size_t kRotations = 4096;

template <typename T>
T must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::abort();
  }
  return *std::move(value);
}

}  // namespace

World::World(const Options& options)
    : options_(options),
      fabric_(options.seed, options.fabric),
      clock_(fabric_),
      network_(fabric_, options.packets),
      endpoints_(options.nodes),
      accepted_(options.nodes),
      pattern_(options.buffer_bytes + kRotations) {
  Random random(17);
  for (uint8_t& byte : pattern_) byte = static_cast<uint8_t>(random.next());
  for (size_t node = 0; node < options.nodes; ++node) {
    PacketOptions layer = options.layer;
    layer.seed = options.seed * 1000 + node + 1;
    transports_.push_back(std::make_unique<PacketTransport>(
        "packet_sim",
        [this, node](std::string_view listen) { return network_.open(name(node), listen); }, layer,
        clock_));
    Arena::Options arena;
    arena.buffer_bytes = options.buffer_bytes;
    arena.bytes = options.buffers * options.buffer_bytes;
    arenas_.push_back(must(Arena::create(arena)));
    pools_.push_back(must(arenas_.back()->make_pool("test", options.buffers)));
    make_endpoint(node);
  }
}

World::~World() { endpoints_.clear(); }

void World::make_endpoint(size_t node) {
  auto opened = must(transports_[node]->open(*arenas_[node], name(node)));
  endpoints_[node].reset(dynamic_cast<PacketEndpoint*>(opened.release()));
}

// The content is random bytes from a place that depends on flow and block, with both written into
// it where there is room.
void World::fill(uint8_t* to, size_t bytes, uint64_t salt, uint64_t block) const {
  std::memcpy(to, pattern_.data() + Random::mix(salt ^ block) % kRotations, bytes);
  if (bytes < 16) return;
  store_le<uint64_t>(to, block);
  store_le<uint64_t>(to + bytes - 8, salt);
}

bool World::right(const uint8_t* data, size_t bytes, uint64_t salt, uint64_t block) const {
  const uint8_t* const expected = pattern_.data() + Random::mix(salt ^ block) % kRotations;
  if (bytes < 16) return std::memcmp(data, expected, bytes) == 0;
  return load_le<uint64_t>(data) == block && load_le<uint64_t>(data + bytes - 8) == salt &&
         std::memcmp(data + 8, expected + 8, bytes - 16) == 0;
}

void World::take(size_t node, Completion completion) {
  const std::pair<size_t, ConnectionId> at(node, completion.connection);
  End& end = ends_[at];
  if (end.closed) std::abort();
  switch (completion.kind) {
    case CompletionKind::kAccepted:
      accepted_[node].push_back(completion.connection);
      [[fallthrough]];
    case CompletionKind::kConnected:
      if (end.up) std::abort();
      end.up = true;
      break;
    case CompletionKind::kReceived: {
      --end.posted;
      const auto found = by_receiver_.find(at);
      if (found == by_receiver_.end() || !completion.status.ok()) break;
      Flow& flow = *found->second;
      const uint64_t block = flow.received++;
      flow.received_bytes += completion.bytes;
      if (completion.bytes != flow.bytes_of(block) ||
          !right(completion.buffer.data(), completion.bytes, flow.salt, block)) {
        ++flow.wrong;
      }
      break;
    }
    case CompletionKind::kSent: {
      const auto found = by_sender_.find(at);
      if (found == by_sender_.end()) break;
      ++(completion.status.ok() ? found->second->sent : found->second->failed);
      break;
    }
    case CompletionKind::kClosed:
      if (!end.up && std::none_of(accepted_[node].begin(), accepted_[node].end(),
                                  [&](ConnectionId id) { return id == at.second; })) {
        ++closed_unaccepted;
      }
      end.closed = true;
      end.status = completion.status;
      break;
  }
}

bool World::pump(size_t node) {
  std::array<Completion, 32> completions;
  const size_t count = endpoints_[node]->poll(completions);
  for (size_t i = 0; i < count; ++i) take(node, std::move(completions[i]));
  return count > 0;
}

void World::feed() {
  for (const auto& owned : flows_) {
    Flow& flow = *owned;
    if (endpoints_[flow.to] != nullptr) {
      End& end = ends_[{flow.to, flow.to_id}];
      while (!end.closed && end.posted < depths_[&flow]) {
        BlockBuffer buffer = pools_[flow.to]->try_take();
        if (!buffer || endpoints_[flow.to]->post_recv(flow.to_id, {&buffer, 1}) == 0) break;
        ++end.posted;
      }
    }
    if (endpoints_[flow.from] == nullptr) continue;
    while (flow.posted < flow.want && endpoints_[flow.from]->credits(flow.from_id) > 0) {
      SendRequest request{pools_[flow.from]->try_take(),
                          static_cast<uint32_t>(flow.bytes_of(flow.posted))};
      if (!request.buffer) break;
      fill(request.buffer.data(), request.bytes, flow.salt, flow.posted);
      if (endpoints_[flow.from]->post_send(flow.from_id, {&request, 1}) == 0) break;
      ++flow.posted;
    }
  }
}

bool World::step(int64_t until_ns) {
  bool more = true;
  for (int round = 0; more && round < 8; ++round) {
    more = false;
    for (size_t node = 0; node < endpoints_.size(); ++node) {
      if (endpoints_[node] != nullptr) more = pump(node) || more;
    }
    feed();
  }
  int64_t next = std::numeric_limits<int64_t>::max();
  for (const auto& endpoint : endpoints_) {
    if (endpoint != nullptr) next = std::min(next, endpoint->next_timer());
  }
  const int64_t now = fabric_.now_ns();
  const int64_t event = fabric_.next_event_ns();
  if (event >= 0) next = std::min(next, event);
  next = std::max(next, more ? now : now + 1);
  if (next > until_ns) {
    fabric_.advance(until_ns - now);
    return false;
  }
  fabric_.advance(next - now);
  return true;
}

bool World::run(const std::function<bool()>& done, int64_t duration_ns) {
  const int64_t until = now() + duration_ns;
  while (!done()) {
    if (!step(until)) return done();
  }
  return true;
}

std::pair<ConnectionId, ConnectionId> World::connect(size_t a, size_t b, int64_t patience_ns) {
  const size_t before = accepted_[b].size();
  const ConnectionId id = must(endpoints_[a]->connect(name(b)));
  const bool up = run([&] { return end(a, id).up && accepted_[b].size() > before; }, patience_ns);
  if (!up) return {0, 0};
  return {id, accepted_[b].back()};
}

Flow& World::add_flow(size_t from, ConnectionId from_id, size_t to, ConnectionId to_id,
                      uint64_t want, size_t min_bytes, size_t max_bytes, size_t depth) {
  auto flow = std::make_unique<Flow>();
  flow->from = from;
  flow->to = to;
  flow->from_id = from_id;
  flow->to_id = to_id;
  flow->want = want;
  flow->min_bytes = min_bytes;
  flow->max_bytes = max_bytes;
  flow->salt = flows_.size() * 1'000'003 + from * 1009 + options_.seed;
  by_sender_[{from, from_id}] = flow.get();
  by_receiver_[{to, to_id}] = flow.get();
  depths_[flow.get()] = depth;
  flows_.push_back(std::move(flow));
  return *flows_.back();
}

}  // namespace sluice::packet

#include "drivers/packet/endpoint.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/random.h"
#include "base/status.h"

namespace sluice::packet {
namespace {

constexpr int64_t kScanEvery = 100 * kMillisecond;
// A cookie is good for its epoch and the next. What lingers is kept for longer, so that no hello
// that is still good can come after it.
constexpr int64_t kCookieEpoch = 4 * kSecond;
constexpr int64_t kLingerFor = 10 * kSecond;
constexpr size_t kReceiveBurst = 32;
// Packets of one poll. Few, so that acknowledgements leave between: a receiver that takes hundreds
// first makes the sender wait for all of them.
constexpr size_t kReceiveBudget = 32;
// A number that who does not know the secret cannot tell.
uint64_t keyed(uint64_t secret, uint64_t a, uint64_t b, uint64_t c) {
  uint8_t text[40];
  store_le<uint64_t>(text, secret);
  store_le<uint64_t>(text + 8, a);
  store_le<uint64_t>(text + 16, b);
  store_le<uint64_t>(text + 24, c);
  store_le<uint64_t>(text + 32, Random::mix(secret));
  return xxh3_128(text, sizeof(text)).high;
}

// A stranger's packet must be as large as what it may cause.
static_assert(kRefusalBytes <= kGreetingBytes && kResetBytes <= kControlBytes);

}  // namespace

PacketEndpoint::PacketEndpoint(const PacketOptions& options, Arena& arena, Clock& clock,
                               std::unique_ptr<PacketPort> port, bool listens)
    : clock_(clock),
      listens_(listens),
      secret_(Random::mix(options.seed != 0 ? options.seed : entropy())),
      port_(std::move(port)) {
  shared_.options = options;
  shared_.max_message_bytes = std::min(options.max_message_bytes, arena.buffer_bytes());
  size_t packet = port_->limits().max_packet_bytes;
  if (options.max_packet_bytes != 0) packet = std::min(packet, options.max_packet_bytes);
  shared_.max_packet_bytes = static_cast<uint32_t>(std::min<size_t>(packet, 65'535));
  shared_.port = port_.get();
  shared_.now_ns = clock_.monotonic_ns();
}

PacketEndpoint::~PacketEndpoint() {
  for (const auto& [id, connection] : connections_) {
    shared_.outbox.forget(connection.get());
    connection->send_reset(ResetCode::kGone);
    shared_.outbox.flush(port_.get(), &shared_.counters);
  }
  port_.reset();
}

Connection* PacketEndpoint::find(ConnectionId id) const {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

void PacketEndpoint::activate(Connection* connection) {
  if (connection->active) return;
  connection->active = true;
  active_.push_back(connection);
}

Connection* PacketEndpoint::add(const PeerAddress& peer, std::string peer_text, bool initiator) {
  uint64_t wire_id = 0;
  // Keyed: one identifier must not tell a peer the others, as a random generator's output would.
  while (wire_id == 0 || by_wire_id_.contains(wire_id)) {
    wire_id = keyed(secret_, 0, ++wire_ids_, 1);
  }
  const ConnectionId id = next_id_++;
  auto made =
      std::make_unique<Connection>(&shared_, id, wire_id, peer, std::move(peer_text), initiator);
  Connection* const connection = made.get();
  connections_.emplace(id, std::move(made));
  by_wire_id_.emplace(wire_id, connection);
  activate(connection);
  return connection;
}

// A finished one, not in active_.
void PacketEndpoint::erase(Connection* connection) {
  if (connection->closed_in_order()) {
    if (lingering_.size() == kMaxLingering) lingering_.pop_front();
    lingering_.push_back({connection->wire_id(), connection->peer_wire_id(),
                          connection->peer_address(), connection->granted(), connection->received(),
                          connection->sent(), shared_.now_ns + kLingerFor});
  }
  if (connection->counted_greeting) --greeting_;
  by_wire_id_.erase(connection->wire_id());
  if (!connection->initiator()) {
    const auto peer = per_peer_.find(connection->peer_address().key);
    if (peer != per_peer_.end() && --peer->second == 0) per_peer_.erase(peer);
    std::erase_if(by_hello_,
                  [connection](const auto& entry) { return entry.second == connection; });
  }
  connections_.erase(connection->id());
}

absl::StatusOr<ConnectionId> PacketEndpoint::connect(std::string_view address) {
  SLUICE_ASSIGN_OR_RETURN(const PeerAddress peer, port_->parse(address));
  if (connections_.size() >= shared_.options.max_connections) {
    return resource_exhausted("connect to {}: {} connections are open, which is the limit", address,
                              connections_.size());
  }
  shared_.now_ns = clock_.monotonic_ns();
  return add(peer, std::string(address), true)->id();
}

void PacketEndpoint::close(ConnectionId id) {
  Connection* const connection = find(id);
  if (connection == nullptr || connection->greeting()) return;
  connection->start_close();
  activate(connection);
}

// A connection that is draining already has a bound of its own.
void PacketEndpoint::abort(ConnectionId id) {
  Connection* const connection = find(id);
  if (connection == nullptr || connection->greeting()) return;
  shared_.now_ns = clock_.monotonic_ns();
  connection->fail(cancelled("the connection to {} was aborted", connection->peer_text()),
                   ResetCode::kGone);
  activate(connection);
}

// The peer is told by the next poll, so that posts made one by one travel together.
size_t PacketEndpoint::post_recv(ConnectionId id, std::span<BlockBuffer> buffers) {
  Connection* const connection = find(id);
  if (connection == nullptr) return 0;
  const size_t accepted = connection->post_recv(buffers);
  if (accepted > 0) activate(connection);
  return accepted;
}

size_t PacketEndpoint::post_send(ConnectionId id, std::span<SendRequest> requests) {
  Connection* const connection = find(id);
  if (connection == nullptr) return 0;
  const size_t accepted = connection->post_send(requests);
  if (accepted > 0) activate(connection);
  return accepted;
}

size_t PacketEndpoint::credits(ConnectionId id) const {
  const Connection* const connection = find(id);
  return connection == nullptr ? 0 : connection->credits();
}

size_t PacketEndpoint::poll(std::span<Completion> completions) {
  if (shared_.completions.size() < completions.size()) progress();
  const size_t count = std::min(shared_.completions.size(), completions.size());
  for (size_t i = 0; i < count; ++i) completions[i] = shared_.completions.pop_front();
  if (shared_.completions.empty()) refusals_told_ = 0;
  return count;
}

void PacketEndpoint::progress() {
  shared_.now_ns = clock_.monotonic_ns();
  receive();
  if (shared_.now_ns >= next_scan_ns_) scan();
  advance();
  shared_.outbox.flush(port_.get(), &shared_.counters);
}

void PacketEndpoint::receive() {
  std::array<InPacket, kReceiveBurst> packets;
  for (size_t taken = 0; taken < kReceiveBudget;) {
    shared_.host_delay_ns = left_behind_ ? 0 : shared_.now_ns - emptied_ns_;
    const size_t count = port_->receive_burst(packets);
    for (size_t i = 0; i < count; ++i) {
      shared_.counters.received_bytes += packets[i].bytes;
      take(packets[i]);
    }
    taken += count;
    if (count < packets.size()) {
      left_behind_ = false;
      emptied_ns_ = shared_.now_ns;
      return;
    }
    shared_.now_ns = clock_.monotonic_ns();
  }
  left_behind_ = true;
}

void PacketEndpoint::take(const InPacket& packet) {
  const std::span<const uint8_t> bytes(packet.data, packet.bytes);
  // The cheap questions first: a flood should not cost a checksum where it need not.
  const auto found = by_wire_id_.find(peek_connection(bytes));
  Connection* const connection = found == by_wire_id_.end() ? nullptr : found->second;
  if (connection != nullptr && connection->peer_address() != packet.from) {
    ++layer_.wrong_address;
    return;
  }
  Frame frame;
  switch (parse(bytes, &frame)) {
    case ParseResult::kOk:
      break;
    case ParseResult::kShort:
      ++layer_.short_packets;
      return;
    case ParseResult::kCheck:
      ++layer_.wrong_check;
      return;
    case ParseResult::kMalformed:
      ++layer_.malformed;
      return;
    case ParseResult::kVersion:
      ++layer_.wrong_version;
      if (frame.type == Type::kHello && listens_) {
        refuse(packet, frame, RefusalCode::kVersion);
      } else if (frame.type == Type::kRefusal && connection != nullptr) {
        frame.code = static_cast<uint32_t>(RefusalCode::kVersion);
        connection->take(frame);
        activate(connection);
      }
      return;
  }
  if (connection == nullptr) {
    take_stranger(packet, frame);
    return;
  }
  connection->take(frame);
  if (connection->counted_greeting && !connection->greeting()) {
    connection->counted_greeting = false;
    --greeting_;
  }
  activate(connection);
}

void PacketEndpoint::take_stranger(const InPacket& packet, const Frame& frame) {
  if (frame.type == Type::kHello) {
    take_hello(packet, frame);
    return;
  }
  if (answer_lingering(packet, frame)) return;
  ++layer_.unknown_connection;
  // Only what names its sender can be told, and a reset is never answered.
  if (frame.type != Type::kControl && frame.type != Type::kWelcome) return;
  Frame reset;
  reset.type = Type::kReset;
  reset.connection = frame.from;
  reset.from = frame.connection;
  reset.code = static_cast<uint32_t>(ResetCode::kUnknown);
  ++layer_.resets;
  answer(packet.from, reset);
}

bool PacketEndpoint::answer_lingering(const InPacket& packet, const Frame& frame) {
  for (const Lingering& one : lingering_) {
    if (one.wire_id != frame.connection || one.peer != packet.from) continue;
    if (frame.type != Type::kControl || frame.from != one.peer_wire_id || frame.number == 0) {
      return true;
    }
    const uint64_t word = uint64_t{1} << (frame.number % 64);
    Frame reply;
    reply.type = Type::kControl;
    reply.flags = kClosing;
    reply.connection = one.peer_wire_id;
    reply.from = one.wire_id;
    reply.granted = one.granted;
    reply.received = one.received;
    reply.sent = one.sent;
    reply.largest = frame.number;
    reply.words = reinterpret_cast<const uint8_t*>(&word);
    reply.word_count = 1;
    answer(packet.from, reply);
    return true;
  }
  return false;
}

// What has no connection. Thrown away where there is no room: it will come again.
void PacketEndpoint::answer(const PeerAddress& to, const Frame& frame) {
  if (shared_.outbox.full()) shared_.outbox.flush(port_.get(), &shared_.counters);
  if (shared_.outbox.full()) return;
  Outbox::Place& place = shared_.outbox.next();
  place.packet = {};
  place.packet.to = to;
  place.packet.header_bytes = static_cast<uint32_t>(encode(frame, place.header.data()));
  place.queued = nullptr;
  place.owner = nullptr;
  shared_.outbox.push();
}

uint64_t PacketEndpoint::cookie_for(const PeerAddress& peer, uint64_t wire_id,
                                    int64_t epoch) const {
  const uint64_t cookie = keyed(secret_, peer.key, wire_id, static_cast<uint64_t>(epoch) << 1);
  return cookie == 0 ? 1 : cookie;
}

uint64_t PacketEndpoint::hello_key(const PeerAddress& peer, uint64_t wire_id) {
  return Random::mix(peer.key) ^ wire_id;
}

void PacketEndpoint::take_hello(const InPacket& packet, const Frame& frame) {
  if (!listens_) {
    ++layer_.unwanted_hellos;
    return;
  }
  const int64_t epoch = shared_.now_ns / kCookieEpoch;
  if (frame.cookie == 0 || (frame.cookie != cookie_for(packet.from, frame.from, epoch) &&
                            frame.cookie != cookie_for(packet.from, frame.from, epoch - 1))) {
    Frame reply;
    reply.type = Type::kCookie;
    reply.connection = frame.from;
    reply.cookie = cookie_for(packet.from, frame.from, epoch);
    ++layer_.cookies;
    answer(packet.from, reply);
    return;
  }
  if (const auto found = by_hello_.find(hello_key(packet.from, frame.from));
      found != by_hello_.end()) {
    found->second->send_welcome();
    return;
  }
  const bool was_here =
      std::any_of(lingering_.begin(), lingering_.end(), [&](const Lingering& one) {
        return one.peer_wire_id == frame.from && one.peer == packet.from;
      });
  if (was_here) {
    ++layer_.unwanted_hellos;
    return;
  }
  accept(packet, frame);
}

void PacketEndpoint::accept(const InPacket& packet, const Frame& frame) {
  if (frame.max_message_bytes != shared_.max_message_bytes) {
    refuse(packet, frame, RefusalCode::kMessageLimit);
    if (refusals_told_ == kMaxRefusalsTold) return;
    ++refusals_told_;
    Completion closed;
    closed.kind = CompletionKind::kClosed;
    closed.connection = next_id_++;
    closed.peer = port_->to_text(packet.from);
    closed.status = failed_precondition(
        "{} was refused: its largest message is {} bytes, this node's {}; give both the same arena "
        "buffer size",
        closed.peer, frame.max_message_bytes, shared_.max_message_bytes);
    shared_.completions.push_back(std::move(closed));
    return;
  }
  if (frame.max_packet_bytes < kMinPacketBytes) {
    refuse(packet, frame, RefusalCode::kPacketLimit);
    return;
  }
  if (frame.receive_depth == 0 || frame.receive_depth > 1 << 20) {
    ++layer_.malformed;
    return;
  }
  const auto peer = per_peer_.find(packet.from.key);
  const bool too_many = peer != per_peer_.end() &&
                        peer->second >= std::max<size_t>(1, shared_.options.max_connections / 2);
  if (connections_.size() >= shared_.options.max_connections || greeting_ >= kMaxGreeting ||
      too_many) {
    refuse(packet, frame, RefusalCode::kBusy);
    return;
  }
  Connection* const connection = add(packet.from, port_->to_text(packet.from), false);
  connection->greet(frame);
  connection->counted_greeting = true;
  ++greeting_;
  ++per_peer_[packet.from.key];
  by_hello_.emplace(hello_key(packet.from, frame.from), connection);
}

void PacketEndpoint::refuse(const InPacket& packet, const Frame& hello, RefusalCode code) {
  ++layer_.refused;
  Frame reply;
  reply.type = Type::kRefusal;
  reply.connection = hello.from;
  reply.code = static_cast<uint32_t>(code);
  reply.max_message_bytes = shared_.max_message_bytes;
  answer(packet.from, reply);
}

void PacketEndpoint::advance() {
  for (size_t i = 0; i < active_.size();) {
    Connection* const connection = active_[i];
    connection->advance();
    if (connection->finished() || connection->idle()) {
      connection->active = false;
      active_[i] = active_.back();
      active_.pop_back();
      if (connection->finished()) erase(connection);
    } else {
      ++i;
    }
  }
  // So that no connection is always the first at the port's queue.
  if (active_.size() > 1) std::rotate(active_.begin(), active_.begin() + 1, active_.end());
}

// Keepalives, and what has waited long enough.
void PacketEndpoint::scan() {
  next_scan_ns_ = shared_.now_ns + kScanEvery;
  while (!lingering_.empty() && shared_.now_ns >= lingering_.front().until_ns) {
    lingering_.pop_front();
  }
  port_health_ = port_->health();
  for (const auto& [id, connection] : connections_) {
    if (!port_health_.ok()) connection->fail(port_health_, ResetCode::kGone);
    activate(connection.get());
  }
}

int64_t PacketEndpoint::next_timer() const {
  if (!shared_.outbox.empty()) return shared_.now_ns + 20 * kMicrosecond;
  int64_t next = connections_.empty() ? kNever : next_scan_ns_;
  for (const Connection* connection : active_) next = std::min(next, connection->next_timer());
  return next;
}

void PacketEndpoint::wait(int64_t timeout_ns) {
  if (!shared_.completions.empty()) return;
  progress();
  if (!shared_.completions.empty()) return;
  int64_t timeout = std::max<int64_t>(timeout_ns, 0);
  if (const int64_t next = next_timer(); next != kNever) {
    timeout = std::clamp<int64_t>(next - clock_.monotonic_ns(), 0, timeout);
  }
  port_->wait(timeout);
}

TransportCounters PacketEndpoint::counters() const {
  TransportCounters counters = shared_.counters;
  counters.system_calls = port_->counters().system_calls;
  return counters;
}

LayerCounters PacketEndpoint::layer_counters() const {
  LayerCounters counters = layer_;
  counters.duplicates = shared_.duplicates;
  counters.sent_packets = shared_.packets_sent;
  counters.repeated_packets = shared_.packets_repeated;
  counters.probes = shared_.probes;
  counters.connections = connections_.size();
  counters.lingering = lingering_.size();
  return counters;
}

}  // namespace sluice::packet

#include "drivers/fault.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace sluice {
namespace {

// Ids of connections that never reach the inner transport; its own are counted from below.
constexpr ConnectionId kFirstFailed = ConnectionId{1} << 63;

}  // namespace

absl::StatusOr<std::unique_ptr<Endpoint>> FaultTransport::open(Arena& arena,
                                                               std::string_view listen) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Endpoint> inner, inner_.open(arena, listen));
  return absl::StatusOr<std::unique_ptr<Endpoint>>(
      std::make_unique<FaultEndpoint>(std::move(inner), options_, opened_.fetch_add(1)));
}

FaultEndpoint::FaultEndpoint(std::unique_ptr<Endpoint> inner, const FaultOptions& options,
                             uint64_t number)
    : inner_(std::move(inner)),
      options_(options),
      random_(Random::mix(options.seed) + number),
      next_failed_(kFirstFailed) {}

absl::StatusOr<ConnectionId> FaultEndpoint::connect(std::string_view address) {
  if (!random_.chance(options_.connect_failure)) return inner_->connect(address);
  const ConnectionId id = next_failed_++;
  Completion closed;
  closed.kind = CompletionKind::kClosed;
  closed.connection = id;
  closed.status =
      unavailable("connect to {}: failed by fault injection, seed {}", address, options_.seed);
  take(std::move(closed));
  return id;
}

size_t FaultEndpoint::shorten(size_t count) {
  if (count == 0 || !random_.chance(options_.partial_post)) return count;
  return static_cast<size_t>(random_.below(count));
}

bool FaultEndpoint::is_cut(ConnectionId connection) const {
  const auto found = lanes_.find(connection);
  return found != lanes_.end() && found->second.cut;
}

size_t FaultEndpoint::post_recv(ConnectionId connection, std::span<BlockBuffer> buffers) {
  if (is_cut(connection)) return 0;
  return inner_->post_recv(connection, buffers.first(shorten(buffers.size())));
}

size_t FaultEndpoint::post_send(ConnectionId connection, std::span<SendRequest> requests) {
  if (is_cut(connection)) return 0;
  return inner_->post_send(connection, requests.first(shorten(requests.size())));
}

size_t FaultEndpoint::credits(ConnectionId connection) const {
  return is_cut(connection) ? 0 : inner_->credits(connection);
}

void FaultEndpoint::take(Completion completion) {
  Lane& lane = lanes_[completion.connection];
  spoil(&lane, &completion);
  if (lane.held.empty()) draw_hold(&lane);
  lane.held.push_back(std::move(completion));
  ++held_;
}

void FaultEndpoint::spoil(Lane* lane, Completion* completion) {
  const bool message =
      completion->kind == CompletionKind::kReceived || completion->kind == CompletionKind::kSent;
  if (lane->cut && (message || completion->kind == CompletionKind::kClosed)) {
    completion->bytes = 0;
    completion->status = unavailable("connection cut by fault injection after {} messages, seed {}",
                                     options_.cut_after_messages, options_.seed);
    return;
  }
  if (!message || !completion->status.ok()) return;
  if (completion->kind == CompletionKind::kReceived &&
      completion->bytes >= options_.flip_from_bytes && random_.chance(options_.flip_bit)) {
    const uint64_t bit = random_.below(uint64_t{completion->bytes} * 8);
    completion->buffer.data()[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
  if (++lane->messages == options_.cut_after_messages) {
    lane->cut = true;
    inner_->abort(completion->connection);
  }
}

void FaultEndpoint::draw_hold(Lane* lane) {
  const bool held = options_.max_delay_polls > 0 && random_.chance(options_.delay);
  lane->hold_polls = held ? 1 + static_cast<uint32_t>(random_.below(options_.max_delay_polls)) : 0;
}

size_t FaultEndpoint::release(Lane* lane, std::span<Completion> completions) {
  if (lane->hold_polls > 0) {
    --lane->hold_polls;
    return 0;
  }
  size_t count = 0;
  while (count < completions.size() && !lane->held.empty() && lane->hold_polls == 0) {
    completions[count++] = lane->held.pop_front();
    draw_hold(lane);
  }
  held_ -= count;
  return count;
}

size_t FaultEndpoint::poll(std::span<Completion> completions) {
  if (scratch_.size() < completions.size()) scratch_.resize(completions.size());
  const size_t fresh = inner_->poll(std::span(scratch_).first(completions.size()));
  for (size_t i = 0; i < fresh; ++i) take(std::exchange(scratch_[i], Completion()));
  if (lanes_.empty()) return 0;
  // Begins at a random connection, so that none is always first.
  auto lane = lanes_.begin();
  std::advance(lane, static_cast<std::ptrdiff_t>(random_.below(lanes_.size())));
  size_t count = 0;
  for (size_t rest = lanes_.size(); rest > 0; --rest) {
    const size_t released = release(&lane->second, completions.subspan(count));
    count += released;
    const bool over = released > 0 && completions[count - 1].kind == CompletionKind::kClosed;
    lane = over ? lanes_.erase(lane) : std::next(lane);
    if (lanes_.empty()) break;
    if (lane == lanes_.end()) lane = lanes_.begin();
  }
  return count;
}

void FaultEndpoint::wait(int64_t timeout_ns) {
  // Delays are counted in polls, so there is something to poll for.
  if (held_ == 0) inner_->wait(timeout_ns);
}

}  // namespace sluice

#include "base/newcomers.h"

#include <algorithm>
#include <cassert>

namespace sluice {

// "1.2.3.4:80", "[::1]:80", "node:service"; "::1" is a host alone.
std::string_view Newcomers::host_of(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return address;
  const bool one_colon = address.find(':') == colon;
  const bool bracketed = colon > 0 && address[colon - 1] == ']';
  return one_colon || bracketed ? address.substr(0, colon) : address;
}

std::vector<Newcomers::Peer>::iterator Newcomers::position(uint64_t id) {
  return std::lower_bound(peers_.begin(), peers_.end(), id,
                          [](const Peer& peer, uint64_t of) { return peer.id < of; });
}

Newcomers::Peer* Newcomers::find(uint64_t id) {
  const auto found = position(id);
  return found == peers_.end() || found->id != id ? nullptr : &*found;
}

void Newcomers::count_host(std::string_view host) {
  const auto count = static_cast<size_t>(std::count_if(
      peers_.begin(), peers_.end(), [host](const Peer& peer) { return peer.host == host; }));
  for (Peer& peer : peers_) {
    if (peer.host == host) peer.of_host = count;
  }
}

void Newcomers::add(uint64_t id, std::string_view address) {
  assert(id != 0 && find(id) == nullptr);
  Peer peer;
  peer.id = id;
  peer.host = host_of(address);
  peers_.insert(position(id), std::move(peer));
  ++waiting_;
  count_host(host_of(address));
}

void Newcomers::hold_place(uint64_t id, int64_t now_ns) {
  Peer* const peer = find(id);
  if (peer == nullptr || peer->stage != Stage::kWaiting) return;
  peer->stage = Stage::kHolding;
  peer->since_ns = now_ns;
  --waiting_;
}

void Newcomers::leave(uint64_t id) {
  Peer* const peer = find(id);
  if (peer == nullptr) return;
  if (peer->stage == Stage::kWaiting) --waiting_;
  peer->stage = Stage::kLeaving;
}

bool Newcomers::remove(uint64_t id) {
  Peer* const peer = find(id);
  if (peer == nullptr) return false;
  if (peer->stage == Stage::kWaiting) --waiting_;
  const std::string host = std::move(peer->host);
  peers_.erase(peers_.begin() + (peer - peers_.data()));
  count_host(host);
  return true;
}

int64_t Newcomers::patience_ns() const {
  const size_t line = options_.room > options_.places ? options_.room - options_.places : 1;
  const double left = 1 - static_cast<double>(std::min(waiting_, line)) / static_cast<double>(line);
  return options_.least_patience_ns +
         static_cast<int64_t>(
             left * static_cast<double>(options_.patience_ns - options_.least_patience_ns));
}

// Of equals the first, which is the oldest.
uint64_t Newcomers::next_to_serve() const {
  const Peer* best = nullptr;
  for (const Peer& peer : peers_) {
    if (peer.stage != Stage::kWaiting) continue;
    if (best == nullptr || peer.of_host < best->of_host) best = &peer;
  }
  return best == nullptr ? 0 : best->id;
}

const Newcomers::Peer* Newcomers::first_to_evict() const {
  if (waiting_ == 0) return nullptr;
  const Peer* best = nullptr;
  for (const Peer& peer : peers_) {
    if (peer.stage != Stage::kHolding) continue;
    if (best == nullptr || peer.of_host > best->of_host ||
        (peer.of_host == best->of_host && peer.since_ns < best->since_ns)) {
      best = &peer;
    }
  }
  return best;
}

uint64_t Newcomers::to_evict(int64_t now_ns) const {
  const Peer* const peer = first_to_evict();
  return peer != nullptr && now_ns - peer->since_ns >= patience_ns() ? peer->id : 0;
}

int64_t Newcomers::next_eviction_ns() const {
  const Peer* const peer = first_to_evict();
  return peer == nullptr ? 0 : peer->since_ns + patience_ns();
}

uint64_t Newcomers::to_turn_away() const {
  const Peer* best = nullptr;
  for (const Peer& peer : peers_) {
    if (peer.stage == Stage::kHolding) continue;
    if (best == nullptr || peer.of_host > best->of_host) best = &peer;
  }
  return best == nullptr ? 0 : best->id;
}

}  // namespace sluice

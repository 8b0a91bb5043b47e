#include "bench/simulation/world.h"

#include <algorithm>
#include <map>
#include <utility>

namespace sluice {
namespace {
constexpr uint32_t kPeersAtATime = 16;
constexpr int kSharingRounds = 6;
constexpr double kSpent = 1e-9;  // of a rate
}  // namespace

World::World(Plan plan, std::vector<TrueRate> rates, double step_s)
    : rates_(std::move(rates)),
      step_s_(step_s),
      from_(rates_.size()),
      follows_(rates_.size(), 1),
      is_alive_(rates_.size(), 1),
      holders_(plan.slots.size()) {
  now_followed_.plan = std::move(plan);
  now_followed_.number = 1;
  add_streams(now_followed_, std::vector<uint8_t>(holders_.size()));
}

uint64_t World::bytes_of(const Plan& plan, uint32_t slot, uint32_t node) const {
  for (const PlanCopy& sent : plan.senders_of(plan.slots[slot])) {
    if (sent.node == node) return sent.bytes;
  }
  return 0;
}

// A source begins with itself, and then with its neighbours, as real ones do.
void World::add_streams(Followed& followed, const std::vector<uint8_t>& done) {
  const Plan& plan = followed.plan;
  const auto nodes = static_cast<uint32_t>(plan.nodes.size());
  std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>> slots;  // source, distance
  for (uint32_t i = 0; i < plan.slots.size(); ++i) {
    if (done[i] != 0) continue;
    const uint32_t target = plan.slots[i].target;
    for (const PlanCopy& sent : plan.senders_of(plan.slots[i])) {
      slots[{sent.node, (target + nodes - sent.node) % nodes}].push_back(i);
    }
  }
  followed.delivered.assign(plan.slots.size(), {});
  followed.streams.clear();
  followed.streams.reserve(slots.size());
  for (auto& [key, list] : slots) {
    Stream stream;
    stream.source = key.first;
    stream.target = (key.first + key.second) % nodes;
    stream.slots = std::move(list);
    followed.streams.push_back(std::move(stream));
  }
}

bool World::runs(const Followed& followed, const Stream& stream) const {
  return !stream.ended && is_alive_[stream.source] != 0 && is_alive_[stream.target] != 0 &&
         follows_[stream.source] == followed.number && follows_[stream.target] == followed.number;
}

std::vector<World::Stream*> World::running() {
  std::vector<Stream*> streams;
  std::vector<uint32_t> sends(rates_.size());
  std::vector<uint32_t> hears(rates_.size());
  for (Followed* followed : {&now_followed_, &before_}) {
    for (Stream& stream : followed->streams) {
      stream.rate = 0;
      if (!runs(*followed, stream)) continue;
      if (sends[stream.source] >= kPeersAtATime || hears[stream.target] >= kPeersAtATime + 1) {
        continue;
      }
      const size_t own = ++sends[stream.source] + ++hears[stream.target];
      counts_.most_streams = std::max(counts_.most_streams, own);
      streams.push_back(&stream);
    }
  }
  return streams;
}

void World::share_rates(const std::vector<Stream*>& streams) {
  std::vector<TrueRate> left = rates_;
  std::vector<uint32_t> senders(rates_.size());
  std::vector<uint32_t> receivers(rates_.size());
  for (Stream* stream : streams) stream->frozen = false;
  for (int round = 0; round < kSharingRounds; ++round) {
    std::fill(senders.begin(), senders.end(), 0);
    std::fill(receivers.begin(), receivers.end(), 0);
    for (const Stream* stream : streams) {
      if (stream->frozen) continue;
      ++senders[stream->source];
      ++receivers[stream->target];
    }
    for (Stream* stream : streams) {
      if (stream->frozen) continue;
      stream->share = std::min(left[stream->source].send / senders[stream->source],
                               left[stream->target].receive / receivers[stream->target]);
    }
    for (Stream* stream : streams) {
      if (stream->frozen) continue;
      stream->rate += stream->share;
      left[stream->source].send -= stream->share;
      left[stream->target].receive -= stream->share;
    }
    for (Stream* stream : streams) {
      stream->frozen = stream->frozen ||
                       left[stream->source].send < kSpent * rates_[stream->source].send ||
                       left[stream->target].receive < kSpent * rates_[stream->target].receive;
    }
  }
}

void World::deliver(Followed& followed, const Stream& stream, uint32_t slot) {
  auto& senders = followed.delivered[slot];
  senders.push_back(stream.source);
  if (senders.size() < followed.plan.senders_of(followed.plan.slots[slot]).size()) return;
  holders_[slot].push_back(stream.target);
}

void World::move(Followed& followed, Stream& stream) {
  double bytes = stream.rate * step_s_;
  while (bytes > 0 && !stream.ended) {
    const uint32_t slot = stream.slots[stream.next];
    if (!is_held(slot, stream.target)) {
      const auto size = static_cast<double>(bytes_of(followed.plan, slot, stream.source));
      const double left = size - stream.moved;
      if (bytes < left) {
        stream.moved += bytes;
        return;
      }
      bytes -= left;
      counts_.sent_bytes += static_cast<uint64_t>(size);
      deliver(followed, stream, slot);
    }
    stream.moved = 0;
    stream.ended = ++stream.next == stream.slots.size();
  }
}

// What is on its way, and parts of divergent slots whose other senders are not through.
void World::end(Followed& followed, Stream& stream) {
  if (stream.closed) return;
  stream.closed = true;
  if (!stream.ended) {
    counts_.sent_bytes += static_cast<uint64_t>(stream.moved);
    counts_.given_up_bytes += static_cast<uint64_t>(stream.moved);
  }
  stream.ended = true;
  for (size_t i = 0; i < stream.next && i < stream.slots.size(); ++i) {
    const uint32_t slot = stream.slots[i];
    if (is_held(slot, stream.target)) continue;
    auto& senders = followed.delivered[slot];
    if (std::erase(senders, stream.source) == 0) continue;
    counts_.given_up_bytes += bytes_of(followed.plan, slot, stream.source);
  }
}

void World::kill(uint32_t node) {
  is_alive_[node] = 0;
  for (Followed* followed : {&now_followed_, &before_}) {
    for (Stream& stream : followed->streams) {
      if (stream.source == node || stream.target == node) end(*followed, stream);
    }
  }
  for (uint32_t slot = 0; slot < holders_.size(); ++slot) {
    if (std::erase(holders_[slot], node) == 0) continue;
    counts_.lost_with_targets_bytes += now_followed_.plan.bytes_of(now_followed_.plan.slots[slot]);
  }
}

bool World::is_held(uint32_t slot, uint32_t target) const {
  return std::find(holders_[slot].begin(), holders_[slot].end(), target) != holders_[slot].end();
}

void World::follow(Plan plan, std::vector<double> from) {
  // Who has not even switched to the plan before this one does nothing until it follows this one.
  for (Stream& stream : before_.streams) end(before_, stream);
  before_ = std::move(now_followed_);
  now_followed_ = {};
  now_followed_.plan = std::move(plan);
  now_followed_.number = before_.number + 1;
  from_ = std::move(from);
  add_streams(now_followed_, done());
  switch_nodes();
}

// A target opens its part again, and gives up what is not its any more.
void World::switch_nodes() {
  std::vector<uint8_t> switches(follows_.size());
  bool any = false;
  for (uint32_t node = 0; node < follows_.size(); ++node) {
    if (is_alive_[node] == 0 || follows_[node] == now_followed_.number || from_[node] > now_) {
      continue;
    }
    follows_[node] = now_followed_.number;
    switches[node] = 1;
    any = true;
  }
  if (!any) return;
  for (Stream& stream : before_.streams) {
    if (switches[stream.source] != 0 || switches[stream.target] != 0) end(before_, stream);
  }
  for (uint32_t slot = 0; slot < holders_.size(); ++slot) {
    const size_t given_up = std::erase_if(holders_[slot], [&](uint32_t node) {
      return switches[node] != 0 && now_followed_.plan.slots[slot].target != node;
    });
    if (given_up > 0) {
      counts_.given_up_durable_bytes += before_.plan.bytes_of(before_.plan.slots[slot]);
    }
  }
}

void World::advance() {
  switch_nodes();
  const std::vector<Stream*> streams = running();
  share_rates(streams);
  now_ += step_s_;
  for (Followed* followed : {&before_, &now_followed_}) {
    for (Stream& stream : followed->streams) {
      if (stream.rate > 0) move(*followed, stream);
    }
  }
}

std::vector<uint8_t> World::done() const {
  std::vector<uint8_t> done(holders_.size());
  for (uint32_t i = 0; i < done.size(); ++i) {
    done[i] = is_held(i, now_followed_.plan.slots[i].target) ? 1 : 0;
  }
  return done;
}

bool World::is_finished() const {
  for (uint32_t i = 0; i < holders_.size(); ++i) {
    if (!is_held(i, now_followed_.plan.slots[i].target)) return false;
  }
  return true;
}

uint32_t World::lost() const {
  uint32_t lost = 0;
  for (uint32_t i = 0; i < holders_.size(); ++i) {
    const bool once = holders_[i].size() == 1;
    if (!once || holders_[i][0] != now_followed_.plan.slots[i].target) ++lost;
  }
  return lost;
}

}  // namespace sluice

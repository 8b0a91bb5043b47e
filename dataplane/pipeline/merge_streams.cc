#include "dataplane/pipeline/merge_streams.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/checksum.h"
#include "base/status.h"

namespace sluice {

MergeStreams::~MergeStreams() {
  assert(in_use_ == 0);
  for (Held& held : idle_) held.stream->close(absl::OkStatus());
}

void MergeStreams::close_idle(size_t leave, std::vector<Held>* closed) {
  while (idle_.size() > leave) {
    closed->push_back(std::move(idle_.front()));
    idle_.pop_front();
  }
}

absl::StatusOr<std::vector<MergeStreams::Held>> MergeStreams::open(
    const std::vector<std::string>& nodes) {
  assert(!nodes.empty() && nodes.size() <= options_.max_streams);
  std::vector<Held> streams(nodes.size());
  std::vector<Held> closed;  // let go of outside the lock
  {
    MutexLock lock(mutex_);
    changed_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) {
      return stopping_ || in_use_ + nodes.size() <= options_.max_streams;
    });
    if (stopping_) return cancelled("the merge has ended");
    in_use_ += nodes.size();
    for (size_t i = 0; i < nodes.size(); ++i) {
      streams[i].node = nodes[i];
      const auto found = std::find_if(idle_.begin(), idle_.end(), [&](const Held& held) {
        return held.node == nodes[i] && !held.stream->closed();
      });
      if (found == idle_.end()) continue;
      streams[i] = std::move(*found);
      idle_.erase(found);
    }
    close_idle(options_.max_streams - in_use_, &closed);
  }
  for (const Held& held : closed) held.stream->close(absl::OkStatus());
  for (Held& held : streams) {
    if (held.stream != nullptr) continue;
    absl::StatusOr<std::shared_ptr<Stream>> stream = connect(held.node);
    if (stream.ok()) {
      held.stream = *std::move(stream);
      continue;
    }
    {
      const MutexLock lock(mutex_);
      back_off(held.node);
    }
    give_back(std::move(streams));
    if (absl::IsResourceExhausted(stream.status())) {
      std::vector<Held> idle;
      const MutexLock lock(mutex_);
      close_idle(0, &idle);
      for (const Held& other : idle) other.stream->close(absl::OkStatus());
    }
    return stream.status();
  }
  return streams;
}

absl::StatusOr<std::shared_ptr<Stream>> MergeStreams::connect(const std::string& node) {
  SLUICE_ASSIGN_OR_RETURN(const MergePeer peer, options_.find_source(node));
  Exchange::ConnectOptions options;
  options.address = peer.address;
  options.kind = StreamKind::kBackupMerge;
  options.target = node;
  options.job = options_.job;
  options.attempt = options_.attempt;
  options.receive_blocks = options_.receive_blocks;
  options.timeout_ms = options_.connect_timeout_ms;
  auto stream = exchange_.connect(options);
  if (!stream.ok()) return with_context(stream.status(), node);
  return stream;
}

void MergeStreams::give_back(std::vector<Held> streams) {
  std::vector<Held> closed;
  {
    const MutexLock lock(mutex_);
    in_use_ -= streams.size();
    for (Held& held : streams) {
      if (held.stream != nullptr && !held.stream->closed()) {
        rests_.erase(held.node);
        idle_.push_back(std::move(held));
      } else {
        if (held.stream != nullptr) back_off(held.node);
        closed.push_back(std::move(held));
      }
    }
  }
  changed_.notify_all();
}

// Twice as long each time, and not for everybody equally.
void MergeStreams::back_off(const std::string& node) {
  Rest& rest = rests_[node];
  const int64_t wait_ns = rest.backoff.next_ns();
  const int64_t now = exchange_.clock().monotonic_ns();
  const auto spread =
      static_cast<int64_t>(xxh3_64(&now, sizeof now) % static_cast<uint64_t>(wait_ns));
  rest.until_ns = now + wait_ns / 2 + spread;
}

MergeStreams::Health MergeStreams::health(const std::string& node) const {
  const MutexLock lock(mutex_);
  const auto found = rests_.find(node);
  if (found == rests_.end()) return Health::kSound;
  return found->second.until_ns <= exchange_.clock().monotonic_ns() ? Health::kToBeTried
                                                                    : Health::kLeftAlone;
}

void MergeStreams::prune() {
  std::vector<Held> closed;
  const MutexLock lock(mutex_);
  for (auto at = idle_.begin(); at != idle_.end();) {
    const auto here = at++;
    if (!here->stream->closed()) continue;
    closed.push_back(std::move(*here));
    idle_.erase(here);
  }
}

void MergeStreams::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

}  // namespace sluice

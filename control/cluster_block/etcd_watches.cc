#include "control/cluster_block/etcd_watches.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/backoff.h"
#include "base/guard.h"
#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/etcd_answers.h"
#include "control/cluster_block/etcd_calls.h"

namespace sluice::cluster_block {
namespace {

constexpr int64_t kFirstRewatchMs = 50;
constexpr int64_t kLongestRewatchMs = 1'000;
// While a watcher waits for its watch; otherwise whatever happens wakes the thread.
constexpr int64_t kRetryMs = 500;
constexpr int64_t kIdleMs = 60'000;

}  // namespace

EtcdWatches::EtcdWatches(EtcdClient& client, const EtcdKeys& keys, List list)
    : client_(client),
      keys_(keys),
      list_(std::move(list)),
      watchers_(std::make_shared<Watchers>([this] { run(); }, [this] { wake(); })) {}

void EtcdWatches::wake() {
  const MutexLock lock(mutex_);
  if (stream_ != nullptr) stream_->wake();
}

void EtcdWatches::set_stream(EtcdStream* stream) {
  const MutexLock lock(mutex_);
  stream_ = stream;
}

void EtcdWatches::run() {
  Backoff backoff(kFirstRewatchMs, kLongestRewatchMs);
  while (!watchers_->stopping()) {
    bool answered = false;
    guarded("watching etcd", [&] { answered = serve(); }).IgnoreError();
    watches_.clear();
    if (answered) backoff.reset();
    if (!watchers_->stopping()) client_.pause(EtcdClient::Line::kStreams, backoff.next_ms());
  }
}

bool EtcdWatches::serve() {
  auto context = std::make_unique<grpc::ClientContext>();
  const auto index = client_.prepare(context.get());
  if (!index.ok()) {
    warn("watches", index.status());
    return false;
  }
  EtcdStream stream(*client_.endpoint(*index).watch, std::move(context));
  bool answered = false;
  set_stream(&stream);
  const absl::Status served =
      guarded("watching etcd", [&] { serve_on(stream, *index, &answered); });
  set_stream(nullptr);
  return served.ok() && answered;
}

void EtcdWatches::serve_on(EtcdStream& stream, size_t endpoint, bool* answered) {
  while (!watchers_->stopping()) {
    const bool complete = create_watches(stream);
    const EtcdStream::News news = stream.wait(complete ? kIdleMs : kRetryMs);
    if (news == EtcdStream::News::kBroken) {
      client_.avoid(endpoint);
      return;
    }
    if (news != EtcdStream::News::kResponse) continue;
    *answered = true;
    if (!handle(stream, stream.response())) return;
  }
}

void EtcdWatches::warn(std::string_view what, const absl::Status& status) {
  if (client_.is_closed() || std::exchange(is_unwell_, true)) return;
  spdlog::warn("{}: {}", what, message_of(status));
}

bool EtcdWatches::create_watches(EtcdStream& stream) {
  bool complete = true;
  for (const WatcherPtr& watcher : watchers_->all()) {
    const bool has_one = std::any_of(watches_.begin(), watches_.end(),
                                     [&](const auto& watch) { return watch.second == watcher; });
    if (has_one || watcher->ended) continue;
    const absl::Status created = create_watch(stream, watcher);
    if (created.ok()) continue;
    complete = false;
    warn(fmt::format("watch of '{}'", printable(watcher->prefix)), created);
  }
  return complete;
}

absl::Status EtcdWatches::create_watch(EtcdStream& stream, const WatcherPtr& watcher) {
  if (watcher->position == 0) {
    SLUICE_ASSIGN_OR_RETURN(ClusterListing listing, list_(watcher->prefix));
    auto& entries = listing.entries;
    std::sort(entries.begin(), entries.end(),
              [](const ClusterEntry& a, const ClusterEntry& b) { return a.revision < b.revision; });
    for (ClusterEntry& entry : entries) {
      watchers_->deliver(watcher, {WatchEvent::Kind::kPut, std::move(entry.key),
                                   std::move(entry.value), entry.revision});
    }
    watcher->position = listing.revision;
  }
  etcdserverpb::WatchRequest request;
  auto* create = request.mutable_create_request();
  create->set_key(keys_.of(watcher->prefix));
  create->set_range_end(keys_.end_of(watcher->prefix));
  create->set_start_revision(static_cast<int64_t>(watcher->position) + 1);
  create->set_progress_notify(true);
  create->set_fragment(true);
  create->set_watch_id(++last_id_);
  watches_[last_id_] = watcher;
  stream.send(std::move(request));
  return absl::OkStatus();
}

void EtcdWatches::cancel_watch(EtcdStream& stream, int64_t id) {
  etcdserverpb::WatchRequest request;
  request.mutable_cancel_request()->set_watch_id(id);
  stream.send(std::move(request));
  watches_.erase(id);
}

bool EtcdWatches::handle(EtcdStream& stream, const etcdserverpb::WatchResponse& response) {
  const int64_t id = response.watch_id();
  const auto found = watches_.find(id);
  if (response.canceled() && found == watches_.end()) {
    // One of ours that was cancelled; or a refusal, which has no number.
    return response.created() ? handle_cancelled(id, nullptr, false) : true;
  }
  if (found == watches_.end()) return true;
  const WatcherPtr watcher = found->second;
  if (response.canceled()) {
    return watcher->ended || handle_cancelled(id, watcher, response.compact_revision() != 0);
  }
  if (const absl::Status answered = check_answer(response); !answered.ok()) {
    warn("watches: not an answer of etcd", answered);
    return false;
  }
  is_unwell_ = false;
  if (watcher->ended) {
    cancel_watch(stream, id);
    return true;
  }
  const auto head = static_cast<Revision>(response.header().revision());
  if (response.created()) {
    return watcher->position <= head || check_position(stream, id, watcher);
  }
  report(watcher, response);
  // Nothing comes when the prefix is quiet; so much is known from what etcd says at times.
  if (response.events().empty()) watcher->position = std::max(watcher->position, head);
  return true;
}

void EtcdWatches::report(const WatcherPtr& watcher, const etcdserverpb::WatchResponse& response) {
  for (const etcdserverpb::Event& event : response.events()) {
    const auto revision = static_cast<Revision>(event.kv().mod_revision());
    auto key = keys_.ours(event.kv().key());
    if (!key || revision <= watcher->position) continue;
    // The revision may go on in the next message, or in another stream.
    watcher->position = revision - 1;
    const bool is_put = event.type() == etcdserverpb::Event::PUT;
    watchers_->deliver(watcher,
                       {is_put ? WatchEvent::Kind::kPut : WatchEvent::Kind::kErase, *std::move(key),
                        is_put ? event.kv().value() : std::string(), revision});
  }
  if (response.fragment() || response.events().empty()) return;
  const auto last = static_cast<Revision>(response.events().rbegin()->kv().mod_revision());
  watcher->position = std::max(watcher->position, last);
}

bool EtcdWatches::handle_cancelled(int64_t id, const WatcherPtr& watcher, bool compacted) {
  if (compacted) return resync(id, watcher);
  // etcd says why in words alone; a call says it with a code, and signs in anew where that helps.
  const auto refused = newest_revision(client_, keys_.of("")).status();
  if (!refused.ok()) warn("watches", refused);
  return false;
}

// A member that lags has not come to the position yet; an etcd that was set back to a backup never
// had it.
bool EtcdWatches::check_position(EtcdStream& stream, int64_t id, const WatcherPtr& watcher) {
  const auto head = newest_revision(client_, keys_.of(watcher->prefix));
  if (!head.ok()) return false;
  if (watcher->position <= *head) return true;
  cancel_watch(stream, id);
  return resync(id, watcher);
}

bool EtcdWatches::resync(int64_t id, const WatcherPtr& watcher) {
  const auto head = newest_revision(client_, keys_.of(watcher->prefix));
  if (!head.ok()) return false;
  watches_.erase(id);
  watcher->position = *head;
  watchers_->deliver(watcher, {WatchEvent::Kind::kResync, {}, {}, *head});
  return true;
}

}  // namespace sluice::cluster_block

#include "drivers/link_bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/clock.h"
#include "base/newcomers.h"
#include "base/random.h"
#include "base/status.h"
#include "drivers/ring.h"

namespace sluice {
namespace {

constexpr uint32_t kMagic = 0x6b6e'696c;  // "link"
constexpr size_t kReportBytes = kLinkHeaderBytes + 32;
constexpr int64_t kIdleSliceNs = 100'000'000;
constexpr int64_t kSenderPatienceNs = 30'000'000'000;

// Where sent blocks are copied, one that waits to be sent gains nothing, and leaves the cache.
constexpr size_t kFilledAheadBytes = size_t{2} << 20;

enum class Kind : uint32_t { kBlock = 1, kUncheckedBlock = 2, kEnd = 3, kReport = 4 };

struct Header {
  uint32_t magic = 0;
  Kind kind = Kind::kBlock;
  uint64_t sequence = 0;
  uint64_t length = 0;
  uint64_t checksum = 0;
};

void store_header(uint8_t* to, Kind kind, uint64_t sequence, uint64_t length, uint64_t checksum) {
  store_le<uint32_t>(to, kMagic);
  store_le<uint32_t>(to + 4, static_cast<uint32_t>(kind));
  store_le<uint64_t>(to + 8, sequence);
  store_le<uint64_t>(to + 16, length);
  store_le<uint64_t>(to + 24, checksum);
}

Header load_header(const uint8_t* from) {
  return {load_le<uint32_t>(from), static_cast<Kind>(load_le<uint32_t>(from + 4)),
          load_le<uint64_t>(from + 8), load_le<uint64_t>(from + 16), load_le<uint64_t>(from + 24)};
}

// A block's own length, its header included; never less than the header.
uint64_t message_bytes(uint64_t block_bytes) {
  return std::max<uint64_t>(block_bytes, kLinkHeaderBytes);
}

double thread_cpu_s() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void finish_result(LinkResult* result, int64_t begin_ns, int64_t end_ns, double cpu_begin_s) {
  result->seconds = static_cast<double>(end_ns - begin_ns) * 1e-9;
  result->gbit_s = end_ns > begin_ns ? static_cast<double>(result->bytes) * 8 /
                                           static_cast<double>(end_ns - begin_ns)
                                     : 0;
  result->cpu_s = thread_cpu_s() - cpu_begin_s;
}

// What both ends need: a pool, an endpoint, and a loop that ends when nothing happens for too long.
class LinkEnd {
 public:
  LinkEnd(std::unique_ptr<BlockPool> pool, std::unique_ptr<Endpoint> endpoint, int64_t patience_ns,
          size_t streams)
      : pool_(std::move(pool)),
        endpoint_(std::move(endpoint)),
        patience_ns_(patience_ns),
        stream_count_(streams) {}
  virtual ~LinkEnd() = default;

  absl::StatusOr<LinkResult> run() {
    std::array<Completion, 32> completions;
    while (!done_) {
      const size_t count = endpoint_->poll(completions);
      // The time is only asked for when there is some: reading the clock is dear on some machines.
      const int64_t now = count > 0 ? 0 : system_clock().monotonic_ns();
      if (count > 0 || idle_since_ns_ == 0) idle_since_ns_ = now;
      if (now - idle_since_ns_ > patience_ns_) {
        return deadline_exceeded("link: nothing happened for {} ms", patience_ns_ / 1'000'000);
      }
      for (size_t i = 0; i < count; ++i)
        SLUICE_RETURN_IF_ERROR(take(std::exchange(completions[i], Completion())));
      const bool posted = !done_ && post();
      if (count == 0 && !posted) endpoint_->wait(std::min(patience_ns_, kIdleSliceNs));
    }
    return result_;
  }

 protected:
  virtual absl::Status take(Completion completion) = 0;
  // Posts what can be posted; whether anything was.
  virtual bool post() = 0;

  void begin() {
    if (begin_ns_ != 0) return;
    begin_ns_ = system_clock().monotonic_ns();
    cpu_begin_s_ = thread_cpu_s();
  }
  void finish() { finish_result(&result_, begin_ns_, system_clock().monotonic_ns(), cpu_begin_s_); }

  const std::unique_ptr<BlockPool> pool_;
  const std::unique_ptr<Endpoint> endpoint_;  // goes before the pool
  const int64_t patience_ns_;
  const size_t stream_count_;
  int64_t idle_since_ns_ = 0;  // 0: not idle
  bool done_ = false;
  LinkResult result_;
  int64_t begin_ns_ = 0;

 private:
  double cpu_begin_s_ = 0;
};

// Who connects is a newcomer until it sends the first block.
class LinkReceiver final : public LinkEnd {
 public:
  LinkReceiver(std::unique_ptr<BlockPool> pool, std::unique_ptr<Endpoint> endpoint,
               int64_t patience_ns, size_t streams)
      : LinkEnd(std::move(pool), std::move(endpoint), patience_ns, streams),
        places_(std::min(pool_->size() - 1 - streams, kPlaces)),
        newcomers_({.room = kRoom + places_, .places = places_}) {}

 private:
  static constexpr size_t kPlaces = 4;
  static constexpr size_t kRoom = 32;

  struct Peer {
    ConnectionId id = 0;
    size_t posted = 0;  // receive buffers
    uint64_t blocks = 0;
    uint64_t bytes = 0;
    uint64_t bad_blocks = 0;
    bool ended = false;
    bool reported = false;
    bool closed = false;
  };

  bool complete() const { return peers_.size() == stream_count_; }

  absl::Status take(Completion completion) override {
    Peer* peer = find(completion.connection);
    if (peer == nullptr) peer = take_from_newcomer(completion);
    if (peer == nullptr) return absl::OkStatus();
    if (completion.kind == CompletionKind::kReceived) {
      --peer->posted;
      if (completion.status.ok()) receive(*peer, completion);
    }
    if (completion.kind != CompletionKind::kClosed) return absl::OkStatus();
    if (!peer->ended)
      return aborted("link: the sender left before its end: {}", message_of(completion.status));
    peer->closed = true;
    done_ = complete() &&
            std::all_of(peers_.begin(), peers_.end(), [](const Peer& each) { return each.closed; });
    return absl::OkStatus();
  }

  Peer* find(ConnectionId id) {
    const auto at = std::find_if(peers_.begin(), peers_.end(),
                                 [id](const Peer& peer) { return peer.id == id; });
    return at == peers_.end() ? nullptr : &*at;
  }

  // The peer, when this is its first block.
  Peer* take_from_newcomer(const Completion& completion) {
    const ConnectionId id = completion.connection;
    if (completion.kind == CompletionKind::kAccepted) {
      if (complete()) {
        endpoint_->abort(id);
      } else {
        newcomers_.add(id, completion.peer);
        if (newcomers_.overfull()) turn_away(newcomers_.to_turn_away());
      }
      return nullptr;
    }
    if (completion.kind == CompletionKind::kClosed) newcomers_.remove(id);
    if (completion.kind != CompletionKind::kReceived) return nullptr;
    --placed_;
    if (complete() || !completion.status.ok()) return nullptr;
    if (completion.bytes < kLinkHeaderBytes ||
        load_header(completion.buffer.data()).magic != kMagic) {
      turn_away(id);
      return nullptr;
    }
    newcomers_.remove(id);
    peers_.push_back({.id = id, .posted = 1});
    if (complete()) {
      while (newcomers_.waiting() > 0) turn_away(newcomers_.next_to_serve());
      for (const ConnectionId other : std::exchange(holders_, {})) {
        if (find(other) == nullptr) turn_away(other);
      }
    }
    return &peers_.back();
  }

  void turn_away(ConnectionId id) {
    if (newcomers_.remove(id)) endpoint_->abort(id);
  }

  // Gives each of the newcomers a buffer for its first block; silent ones give theirs back while
  // others wait.
  bool serve_newcomers() {
    bool posted = false;
    while (newcomers_.waiting() > 0) {
      const int64_t now = system_clock().monotonic_ns();
      if (placed_ == places_) {
        turn_away(newcomers_.to_evict(now));
        return posted;
      }
      BlockBuffer buffer = pool_->try_take();
      const ConnectionId id = newcomers_.next_to_serve();
      if (!buffer || endpoint_->post_recv(id, {&buffer, 1}) == 0) return posted;
      newcomers_.hold_place(id, now);
      holders_.push_back(id);
      ++placed_;
      posted = true;
    }
    return posted;
  }

  void receive(Peer& peer, const Completion& completion) {
    begin();
    const uint8_t* data = completion.buffer.data();
    const Header header = completion.bytes >= kLinkHeaderBytes ? load_header(data) : Header();
    if (completion.bytes == kLinkHeaderBytes && header.magic == kMagic &&
        header.kind == Kind::kEnd) {
      end(peer, header.sequence);
      return;
    }
    const size_t rest = completion.bytes - std::min<size_t>(completion.bytes, kLinkHeaderBytes);
    const bool checked = header.kind == Kind::kBlock;
    const bool good = header.magic == kMagic && (checked || header.kind == Kind::kUncheckedBlock) &&
                      header.sequence == peer.blocks &&
                      completion.bytes == message_bytes(header.length) &&
                      (!checked || xxh3_64(data + kLinkHeaderBytes, rest) == header.checksum);
    ++peer.blocks;
    peer.bytes += good ? header.length : completion.bytes;
    if (!good) ++peer.bad_blocks;
  }

  void end(Peer& peer, uint64_t sent) {
    // Blocks that never came are bad ones too.
    peer.bad_blocks += sent > peer.blocks ? sent - peer.blocks : 0;
    peer.ended = true;
    result_.blocks += peer.blocks;
    result_.bytes += peer.bytes;
    result_.bad_blocks += peer.bad_blocks;
    finish();
  }

  // Receive buffers of each peer. One buffer stays for a report, and the newcomers' places while
  // there are any.
  size_t share() const { return (pool_->size() - 1 - (complete() ? 0 : places_)) / stream_count_; }

  bool post() override {
    bool posted = !complete() && serve_newcomers();
    for (Peer& peer : peers_) {
      if (peer.closed) continue;
      posted = peer.ended ? post_report(peer) || posted : post_receives(peer) || posted;
    }
    return posted;
  }

  bool post_receives(Peer& peer) {
    bool posted = false;
    while (peer.posted < share()) {
      BlockBuffer buffer = pool_->try_take();
      if (!buffer || endpoint_->post_recv(peer.id, {&buffer, 1}) == 0) break;
      ++peer.posted;
      posted = true;
    }
    return posted;
  }

  bool post_report(Peer& peer) {
    if (peer.reported || endpoint_->credits(peer.id) == 0) return false;
    SendRequest report{pool_->try_take(), kReportBytes};
    if (!report.buffer) return false;
    uint8_t* to = report.buffer.data();
    store_header(to, Kind::kReport, 0, kReportBytes - kLinkHeaderBytes, 0);
    store_le<uint64_t>(to + kLinkHeaderBytes, peer.blocks);
    store_le<uint64_t>(to + kLinkHeaderBytes + 8, peer.bytes);
    store_le<uint64_t>(to + kLinkHeaderBytes + 16, peer.bad_blocks);
    store_le<uint64_t>(to + kLinkHeaderBytes + 24, 0);
    peer.reported = endpoint_->post_send(peer.id, {&report, 1}) == 1;
    return peer.reported;
  }

  const size_t places_;
  Newcomers newcomers_;
  size_t placed_ = 0;                  // buffers that are posted for newcomers, or were
  std::vector<ConnectionId> holders_;  // who got one
  std::vector<Peer> peers_;
};

class LinkSender final : public LinkEnd {
 public:
  LinkSender(std::unique_ptr<BlockPool> pool, std::unique_ptr<Endpoint> endpoint,
             int64_t patience_ns, size_t streams, bool copies)
      : LinkEnd(std::move(pool), std::move(endpoint), patience_ns, streams), copies_(copies) {}

  absl::Status start(std::string_view address, double seconds, size_t block_bytes, bool checksum) {
    block_bytes_ = block_bytes;
    checksum_ = checksum;
    duration_ns_ = static_cast<int64_t>(seconds * 1e9);
    Random random(1);
    while (BlockBuffer buffer = pool_->try_take()) {
      for (size_t at = 0; at + 8 <= message_bytes(block_bytes); at += 8) {
        store_le<uint64_t>(buffer.data() + at, random.next());
      }
      free_.push_back(std::move(buffer));
    }
    for (size_t i = 0; i < stream_count_; ++i) {
      SLUICE_ASSIGN_OR_RETURN(const ConnectionId id, endpoint_->connect(address));
      streams_.push_back({.id = id});
    }
    return absl::OkStatus();
  }

 private:
  struct Stream {
    ConnectionId id = 0;
    uint64_t sequence = 0;
    size_t in_flight = 0;
    bool connected = false;
    bool report_posted = false;
    bool end_posted = false;
    bool reported = false;
    bool closed = false;
  };

  absl::Status take(Completion completion) override {
    const auto stream = std::find_if(streams_.begin(), streams_.end(), [&](const Stream& each) {
      return each.id == completion.connection && !each.closed;
    });
    if (stream == streams_.end()) return absl::OkStatus();
    switch (completion.kind) {
      case CompletionKind::kConnected:
        stream->connected = true;
        begin();
        break;
      case CompletionKind::kSent:
        --stream->in_flight;
        free_.push_back(std::move(completion.buffer));
        break;
      case CompletionKind::kReceived:
        if (completion.status.ok()) return take_report(*stream, completion);
        break;
      case CompletionKind::kClosed:
        if (!stream->reported) {
          return completion.status.ok() ? aborted("link: the receiver left before its report")
                                        : completion.status;
        }
        stream->closed = true;
        done_ = std::all_of(streams_.begin(), streams_.end(),
                            [](const Stream& each) { return each.closed; });
        break;
      default:
        break;
    }
    return absl::OkStatus();
  }

  absl::Status take_report(Stream& stream, const Completion& completion) {
    const uint8_t* data = completion.buffer.data();
    if (completion.bytes != kReportBytes || load_header(data).magic != kMagic ||
        load_header(data).kind != Kind::kReport || !stream.end_posted) {
      return data_loss("link: the receiver's report is not one");
    }
    result_.blocks += load_le<uint64_t>(data + kLinkHeaderBytes);
    result_.bytes += load_le<uint64_t>(data + kLinkHeaderBytes + 8);
    result_.bad_blocks += load_le<uint64_t>(data + kLinkHeaderBytes + 16);
    finish();
    stream.reported = true;
    endpoint_->close(stream.id);
    return absl::OkStatus();
  }

  bool post() override {
    bool posted = false;
    for (Stream& stream : streams_) {
      if (!stream.connected || stream.end_posted) continue;
      if (!stream.report_posted) {
        if (free_.empty()) continue;
        BlockBuffer buffer = free_.pop_front();
        stream.report_posted = endpoint_->post_recv(stream.id, {&buffer, 1}) == 1;
        if (buffer) free_.push_back(std::move(buffer));
        if (!stream.report_posted) continue;
      }
      posted = post_blocks(stream) || posted;
    }
    return posted;
  }

  // Blocks of one stream. The other buffers are the other streams', and one of each is for its
  // report.
  size_t in_flight_limit() const {
    const size_t share = pool_->size() / stream_count_ - 1;
    if (!copies_) return share;
    return std::min(share, std::max<size_t>(kFilledAheadBytes / message_bytes(block_bytes_), 2));
  }

  bool post_blocks(Stream& stream) {
    const size_t share = in_flight_limit();
    if (endpoint_->credits(stream.id) == 0 || stream.in_flight >= share) return false;
    bool posted = false;
    const bool over = system_clock().monotonic_ns() - begin_ns_ >= duration_ns_;
    while (!stream.end_posted && stream.in_flight < share && endpoint_->credits(stream.id) > 0) {
      if (free_.empty()) break;
      SendRequest request{free_.pop_front(), static_cast<uint32_t>(message_bytes(block_bytes_))};
      const bool last = stream.sequence > 0 && over;
      if (last) {
        request.bytes = kLinkHeaderBytes;
        store_header(request.buffer.data(), Kind::kEnd, stream.sequence, 0, 0);
      } else {
        fill(request, stream.sequence);
      }
      if (endpoint_->post_send(stream.id, {&request, 1}) == 0) {
        free_.push_back(std::move(request.buffer));
        break;
      }
      posted = true;
      ++stream.in_flight;
      if (last)
        stream.end_posted = true;
      else
        ++stream.sequence;
    }
    return posted;
  }

  void fill(const SendRequest& request, uint64_t sequence) const {
    uint8_t* data = request.buffer.data();
    const size_t rest = request.bytes - kLinkHeaderBytes;
    const uint64_t sum = checksum_ ? xxh3_64(data + kLinkHeaderBytes, rest) : 0;
    store_header(data, checksum_ ? Kind::kBlock : Kind::kUncheckedBlock, sequence, block_bytes_,
                 sum);
  }

  const bool copies_;
  Ring<BlockBuffer> free_;  // first in, first out, so that all are used in turn
  size_t block_bytes_ = 0;
  bool checksum_ = true;
  int64_t duration_ns_ = 0;
  std::vector<Stream> streams_;
};

absl::StatusOr<std::unique_ptr<BlockPool>> take_pool(Arena& arena, const LinkOptions& options) {
  if (options.streams < 1 || options.streams > kMaxLinkStreams) {
    return invalid_argument("link: {} streams; 1 to {} are possible", options.streams,
                            kMaxLinkStreams);
  }
  const size_t least = std::max<size_t>(3, 2 * options.streams);
  const size_t buffers = std::min(arena.unassigned(), options.buffers);
  if (buffers < least) {
    return resource_exhausted("link: {} buffers for {} streams; at least {} are needed", buffers,
                              options.streams, least);
  }
  return arena.make_pool("link", buffers);
}

}  // namespace

absl::StatusOr<LinkResult> run_link_receiver(
    Transport& transport, Arena& arena, std::string_view listen,
    const std::function<void(std::string_view bound_address)>& on_listening,
    int64_t idle_timeout_ns, const LinkOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<BlockPool> pool, take_pool(arena, options));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Endpoint> endpoint, transport.open(arena, listen));
  if (on_listening) on_listening(endpoint->address());
  return LinkReceiver(std::move(pool), std::move(endpoint), idle_timeout_ns, options.streams).run();
}

absl::StatusOr<LinkResult> run_link_sender(Transport& transport, Arena& arena,
                                           std::string_view address, double seconds,
                                           size_t block_bytes, bool checksum,
                                           const LinkOptions& options) {
  const size_t most = std::min(arena.buffer_bytes(), transport.limits().max_message_bytes);
  if (block_bytes < 1 || block_bytes > most) {
    return invalid_argument("link: a block of {} bytes; 1 to {} are possible", block_bytes, most);
  }
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<BlockPool> pool, take_pool(arena, options));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Endpoint> endpoint, transport.open(arena, ""));
  LinkSender sender(std::move(pool), std::move(endpoint), kSenderPatienceNs, options.streams,
                    transport.limits().copies_on_send);
  SLUICE_RETURN_IF_ERROR(sender.start(address, seconds, block_bytes, checksum));
  return sender.run();
}

}  // namespace sluice

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

namespace sluice {
namespace {

constexpr uint32_t kMagic = 0x6b6e'696c;  // "link"
constexpr size_t kBuffers = 128;
constexpr size_t kReportBytes = kLinkHeaderBytes + 32;
constexpr int64_t kIdleSliceNs = 100'000'000;
constexpr int64_t kSenderPatienceNs = 30'000'000'000;

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
  LinkEnd(std::unique_ptr<BlockPool> pool, std::unique_ptr<Endpoint> endpoint, int64_t patience_ns)
      : pool_(std::move(pool)), endpoint_(std::move(endpoint)), patience_ns_(patience_ns) {}
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

  const std::unique_ptr<BlockPool> pool_;
  const std::unique_ptr<Endpoint> endpoint_;  // goes before the pool
  const int64_t patience_ns_;
  int64_t idle_since_ns_ = 0;  // 0: not idle
  ConnectionId peer_ = 0;
  bool done_ = false;
  LinkResult result_;
  int64_t begin_ns_ = 0;
  double cpu_begin_s_ = 0;
};

// Who connects is a newcomer until it sends the first block.
class LinkReceiver final : public LinkEnd {
 public:
  LinkReceiver(std::unique_ptr<BlockPool> pool, std::unique_ptr<Endpoint> endpoint,
               int64_t patience_ns)
      : LinkEnd(std::move(pool), std::move(endpoint), patience_ns),
        places_(std::min(pool_->size() - 1, kPlaces)),
        newcomers_({.room = kRoom + places_, .places = places_}) {}

 private:
  static constexpr size_t kPlaces = 4;
  static constexpr size_t kRoom = 32;

  absl::Status take(Completion completion) override {
    if (completion.connection != peer_) {
      take_from_newcomer(completion);
      if (completion.connection != peer_) return absl::OkStatus();
    }
    if (completion.kind == CompletionKind::kReceived && completion.status.ok()) receive(completion);
    if (completion.kind != CompletionKind::kClosed) return absl::OkStatus();
    if (!ended_)
      return aborted("link: the sender left before its end: {}", message_of(completion.status));
    done_ = true;
    return absl::OkStatus();
  }

  void take_from_newcomer(const Completion& completion) {
    const ConnectionId id = completion.connection;
    if (completion.kind == CompletionKind::kAccepted) {
      if (peer_ == 0) {
        newcomers_.add(id, completion.peer);
        if (newcomers_.overfull()) turn_away(newcomers_.to_turn_away());
      } else {
        endpoint_->abort(id);
      }
      return;
    }
    if (completion.kind == CompletionKind::kClosed) newcomers_.remove(id);
    if (completion.kind != CompletionKind::kReceived) return;
    --placed_;
    if (peer_ != 0 || !completion.status.ok()) return;
    if (completion.bytes < kLinkHeaderBytes ||
        load_header(completion.buffer.data()).magic != kMagic) {
      turn_away(id);
      return;
    }
    newcomers_.remove(id);
    peer_ = id;
    cpu_begin_s_ = thread_cpu_s();
    while (newcomers_.waiting() > 0) turn_away(newcomers_.next_to_serve());
    for (const ConnectionId other : std::exchange(holders_, {})) {
      if (other != id) turn_away(other);
    }
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

  void receive(const Completion& completion) {
    if (begin_ns_ == 0) begin_ns_ = system_clock().monotonic_ns();
    const uint8_t* data = completion.buffer.data();
    const Header header = completion.bytes >= kLinkHeaderBytes ? load_header(data) : Header();
    if (completion.bytes == kLinkHeaderBytes && header.magic == kMagic &&
        header.kind == Kind::kEnd) {
      // Blocks that never came are bad ones too.
      result_.bad_blocks += header.sequence > result_.blocks ? header.sequence - result_.blocks : 0;
      finish_result(&result_, begin_ns_, system_clock().monotonic_ns(), cpu_begin_s_);
      ended_ = true;
      return;
    }
    const size_t rest = completion.bytes - std::min<size_t>(completion.bytes, kLinkHeaderBytes);
    const bool checked = header.kind == Kind::kBlock;
    const bool good = header.magic == kMagic && (checked || header.kind == Kind::kUncheckedBlock) &&
                      header.sequence == result_.blocks &&
                      completion.bytes == message_bytes(header.length) &&
                      (!checked || xxh3_64(data + kLinkHeaderBytes, rest) == header.checksum);
    ++result_.blocks;
    result_.bytes += good ? header.length : completion.bytes;
    if (!good) ++result_.bad_blocks;
  }

  bool post() override {
    if (peer_ == 0) return serve_newcomers();
    bool posted = false;
    if (ended_ && !reported_ && endpoint_->credits(peer_) > 0) {
      SendRequest report{pool_->try_take(), kReportBytes};
      if (report.buffer) {
        uint8_t* to = report.buffer.data();
        store_header(to, Kind::kReport, 0, kReportBytes - kLinkHeaderBytes, 0);
        store_le<uint64_t>(to + kLinkHeaderBytes, result_.blocks);
        store_le<uint64_t>(to + kLinkHeaderBytes + 8, result_.bytes);
        store_le<uint64_t>(to + kLinkHeaderBytes + 16, result_.bad_blocks);
        store_le<uint64_t>(to + kLinkHeaderBytes + 24, 0);
        reported_ = endpoint_->post_send(peer_, {&report, 1}) == 1;
        posted = reported_;
      }
    }
    // One buffer stays for the report.
    while (!ended_ && pool_->free() > 1) {
      BlockBuffer buffer = pool_->try_take();
      if (endpoint_->post_recv(peer_, {&buffer, 1}) == 0) break;
      posted = true;
    }
    return posted;
  }

  const size_t places_;
  Newcomers newcomers_;
  size_t placed_ = 0;                  // buffers that are posted for newcomers, or were
  std::vector<ConnectionId> holders_;  // who got one
  bool ended_ = false;
  bool reported_ = false;
};

class LinkSender final : public LinkEnd {
 public:
  using LinkEnd::LinkEnd;

  absl::Status start(std::string_view address, double seconds, size_t block_bytes, bool checksum) {
    block_bytes_ = block_bytes;
    checksum_ = checksum;
    duration_ns_ = static_cast<int64_t>(seconds * 1e9);
    Random random(1);
    std::vector<BlockBuffer> all;
    while (BlockBuffer buffer = pool_->try_take()) {
      for (size_t at = 0; at + 8 <= message_bytes(block_bytes); at += 8) {
        store_le<uint64_t>(buffer.data() + at, random.next());
      }
      all.push_back(std::move(buffer));
    }
    all.clear();
    SLUICE_ASSIGN_OR_RETURN(connecting_, endpoint_->connect(address));
    return absl::OkStatus();
  }

 private:
  absl::Status take(Completion completion) override {
    if (completion.connection != connecting_) return absl::OkStatus();
    switch (completion.kind) {
      case CompletionKind::kConnected:
        peer_ = connecting_;
        begin_ns_ = system_clock().monotonic_ns();
        cpu_begin_s_ = thread_cpu_s();
        break;
      case CompletionKind::kReceived:
        if (completion.status.ok()) return take_report(completion);
        break;
      case CompletionKind::kClosed:
        if (!reported_) {
          return completion.status.ok() ? aborted("link: the receiver left before its report")
                                        : completion.status;
        }
        done_ = true;
        break;
      default:
        break;
    }
    return absl::OkStatus();
  }

  absl::Status take_report(const Completion& completion) {
    const uint8_t* data = completion.buffer.data();
    if (completion.bytes != kReportBytes || load_header(data).magic != kMagic ||
        load_header(data).kind != Kind::kReport || !end_posted_) {
      return data_loss("link: the receiver's report is not one");
    }
    result_.blocks = load_le<uint64_t>(data + kLinkHeaderBytes);
    result_.bytes = load_le<uint64_t>(data + kLinkHeaderBytes + 8);
    result_.bad_blocks = load_le<uint64_t>(data + kLinkHeaderBytes + 16);
    finish_result(&result_, begin_ns_, system_clock().monotonic_ns(), cpu_begin_s_);
    reported_ = true;
    endpoint_->close(peer_);
    return absl::OkStatus();
  }

  bool post() override {
    if (peer_ == 0 || end_posted_) return false;
    if (!report_posted_) {
      BlockBuffer buffer = pool_->try_take();
      report_posted_ = buffer && endpoint_->post_recv(peer_, {&buffer, 1}) == 1;
      if (!report_posted_) return false;
    }
    if (endpoint_->credits(peer_) == 0) return false;
    bool posted = false;
    const bool over = system_clock().monotonic_ns() - begin_ns_ >= duration_ns_;
    while (endpoint_->credits(peer_) > 0 && !end_posted_) {
      SendRequest request{pool_->try_take(), static_cast<uint32_t>(message_bytes(block_bytes_))};
      if (!request.buffer) break;
      uint8_t* data = request.buffer.data();
      const bool last = sequence_ > 0 && over;
      if (last) {
        request.bytes = kLinkHeaderBytes;
        store_header(data, Kind::kEnd, sequence_, 0, 0);
      } else {
        const size_t rest = request.bytes - kLinkHeaderBytes;
        const uint64_t sum = checksum_ ? xxh3_64(data + kLinkHeaderBytes, rest) : 0;
        store_header(data, checksum_ ? Kind::kBlock : Kind::kUncheckedBlock, sequence_,
                     block_bytes_, sum);
      }
      if (endpoint_->post_send(peer_, {&request, 1}) == 0) break;
      posted = true;
      if (last)
        end_posted_ = true;
      else
        ++sequence_;
    }
    return posted;
  }

  ConnectionId connecting_ = 0;
  size_t block_bytes_ = 0;
  bool checksum_ = true;
  int64_t duration_ns_ = 0;
  uint64_t sequence_ = 0;
  bool report_posted_ = false;
  bool end_posted_ = false;
  bool reported_ = false;
};

absl::StatusOr<std::unique_ptr<BlockPool>> take_pool(Arena& arena) {
  const size_t buffers = std::min(arena.unassigned(), kBuffers);
  if (buffers < 3)
    return resource_exhausted("link: the arena has {} free buffers; at least 3 are needed",
                              buffers);
  return arena.make_pool("link", buffers);
}

}  // namespace

absl::StatusOr<LinkResult> run_link_receiver(
    Transport& transport, Arena& arena, std::string_view listen,
    const std::function<void(std::string_view bound_address)>& on_listening,
    int64_t idle_timeout_ns) {
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<BlockPool> pool, take_pool(arena));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Endpoint> endpoint, transport.open(arena, listen));
  if (on_listening) on_listening(endpoint->address());
  return LinkReceiver(std::move(pool), std::move(endpoint), idle_timeout_ns).run();
}

absl::StatusOr<LinkResult> run_link_sender(Transport& transport, Arena& arena,
                                           std::string_view address, double seconds,
                                           size_t block_bytes, bool checksum) {
  const size_t most = std::min(arena.buffer_bytes(), transport.limits().max_message_bytes);
  if (block_bytes < 1 || block_bytes > most) {
    return invalid_argument("link: a block of {} bytes; 1 to {} are possible", block_bytes, most);
  }
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<BlockPool> pool, take_pool(arena));
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Endpoint> endpoint, transport.open(arena, ""));
  LinkSender sender(std::move(pool), std::move(endpoint), kSenderPatienceNs);
  SLUICE_RETURN_IF_ERROR(sender.start(address, seconds, block_bytes, checksum));
  return sender.run();
}

}  // namespace sluice

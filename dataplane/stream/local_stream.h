// Streams of a node to itself: what is sent is handed over in the buffer that it stands in, without
// visiting the wire. Internal to dataplane/stream.
#ifndef SLUICE_DATAPLANE_STREAM_LOCAL_STREAM_H_
#define SLUICE_DATAPLANE_STREAM_LOCAL_STREAM_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "dataplane/stream/exchange.h"
#include "dataplane/stream/session.h"

namespace sluice::stream {

// What local streams need of their exchange, for as long as they are open.
struct LocalHost {
  BlockPool* control_pool = nullptr;
  Clock* clock = nullptr;
  std::atomic<uint64_t> streams{0};  // that the exchange ever had, wired ones too: their numbers
  std::atomic<uint64_t> bytes{0};    // delivered
  std::atomic<size_t> open{0};       // ends of open streams
  BulkLimit* limit = nullptr;        // null: none
  // A sender was held back by the limit: the exchange's thread, which `wake` wakes, calls
  // limit_lifted() once it has room.
  std::atomic<bool> held_back{false};
  // The exchange's own streams wait for the limit: local ones wait for their turn then.
  std::atomic<bool> others_wait{false};
  std::function<void()> wake;
};

class LocalStream;

// Both ends of one stream. Thread-safe. Lock order: its mutex, then an inbox's; never a pool's.
class LocalLink final : public CreditOwner, public std::enable_shared_from_this<LocalLink> {
 public:
  struct EndOptions {
    size_t receive_blocks = 1;         // messages that may wait there, not counting control ones
    std::shared_ptr<InboxImpl> inbox;  // null: the end's own
  };
  // The connecting and the accepting end.
  using Ends = std::pair<std::shared_ptr<LocalStream>, std::shared_ptr<LocalStream>>;
  static Ends make(std::shared_ptr<LocalHost> host, const Hello& hello, std::string peer,
                   EndOptions connecting, EndOptions accepting);
  LocalLink(std::shared_ptr<LocalHost> host, const Hello& hello, std::string peer)
      : host_(std::move(host)), hello_(hello), peer_(std::move(peer)) {}

  const Hello& hello() const { return hello_; }
  const std::string& peer() const { return peer_; }
  // By an end, 0 or 1.
  absl::Status send(size_t from, BlockBuffer message, uint32_t bytes, int64_t timeout_ms,
                    bool control);
  absl::Status send_control(size_t from, Envelope envelope, std::string_view payload,
                            int64_t timeout_ms);
  absl::StatusOr<Message> receive(size_t end, int64_t timeout_ms);
  void on_change(size_t end, std::function<void()> hook);
  void close(size_t end, const absl::Status& reason);
  bool closed() const;
  absl::Status closed_reason(size_t end) const;
  Stream::Counters counters(size_t end) const;
  // Ends both ends: the exchange goes.
  void shut_down(const absl::Status& reason);
  // One message may go, though the limit's room is gone before the sender is awake.
  void limit_lifted();

  void credit_returned(size_t kind) override;

 private:
  static constexpr size_t kMaxControl = 2;
  struct End {
    EndOptions options;
    std::weak_ptr<LocalStream> handle;
    std::deque<Message> incoming;
    std::array<size_t, 2> waiting{};  // messages there that were not let go, control ones apart
    absl::Status reason;
    Stream::Counters counters;
    std::function<void()> on_change;
  };
  // Something has come for this end, or room to send from it.
  void notify_locked(const End& end) SLUICE_REQUIRES(mutex_) {
    changed_.notify_all();
    if (end.on_change) end.on_change();
  }
  bool has_room(size_t to, bool control) SLUICE_REQUIRES(mutex_);
  size_t limit(size_t to, bool control) const SLUICE_REQUIRES(mutex_) {
    return control ? kMaxControl : ends_[to].options.receive_blocks;
  }
  // What the ends' inboxes did not take: let go of behind the lock.
  using Last = std::array<Inbox::Delivery, 2>;
  void end_both(const std::array<absl::Status, 2>& reasons, Last* last) SLUICE_REQUIRES(mutex_);
  static absl::Status told(const absl::Status& reason) {
    return reason.ok() ? absl::UnavailableError("stream is closed") : reason;
  }

  const std::shared_ptr<LocalHost> host_;
  const Hello hello_;
  const std::string peer_;
  mutable Mutex mutex_;
  Condition changed_;
  std::array<End, 2> ends_ SLUICE_GUARDED_BY(mutex_);
  bool may_pass_ SLUICE_GUARDED_BY(mutex_) = false;
  bool closed_ SLUICE_GUARDED_BY(mutex_) = false;
};

// One end. Closes the link when it goes.
class LocalStream final : public Stream {
 public:
  LocalStream(std::shared_ptr<LocalLink> link, size_t end, uint64_t number)
      : link_(std::move(link)), end_(end), number_(number) {}
  ~LocalStream() override { link_->close(end_, absl::OkStatus()); }
  const std::shared_ptr<LocalLink>& link() const { return link_; }

  const Hello& hello() const override { return link_->hello(); }
  const std::string& peer() const override { return link_->peer(); }
  uint64_t number() const override { return number_; }
  absl::Status send(BlockBuffer message, uint32_t bytes, int64_t timeout_ms) override {
    return link_->send(end_, std::move(message), bytes, timeout_ms, /*control=*/false);
  }
  absl::Status send_control(Envelope envelope, std::string_view payload,
                            int64_t timeout_ms) override {
    return link_->send_control(end_, envelope, payload, timeout_ms);
  }
  absl::StatusOr<Message> receive(int64_t timeout_ms) override {
    return link_->receive(end_, timeout_ms);
  }
  void on_change(std::function<void()> hook) override { link_->on_change(end_, std::move(hook)); }
  void close(const absl::Status& reason) override { link_->close(end_, reason); }
  bool closed() const override { return link_->closed(); }
  absl::Status closed_reason() const override { return link_->closed_reason(end_); }
  Counters counters() const override { return link_->counters(end_); }

 private:
  const std::shared_ptr<LocalLink> link_;
  const size_t end_;
  const uint64_t number_;
};

}  // namespace sluice::stream

#endif  // SLUICE_DATAPLANE_STREAM_LOCAL_STREAM_H_

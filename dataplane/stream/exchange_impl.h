// The exchange's insides. Internal to dataplane/stream.
#ifndef SLUICE_DATAPLANE_STREAM_EXCHANGE_IMPL_H_
#define SLUICE_DATAPLANE_STREAM_EXCHANGE_IMPL_H_

#include <array>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/newcomers.h"
#include "dataplane/stream/local_stream.h"
#include "dataplane/stream/session.h"

namespace sluice::stream {

// Lock order: handlers_mutex_ and a session's mutex first, then a pool's, then work_mutex_.
class ExchangeImpl final : public Exchange, public SessionHost {
 public:
  explicit ExchangeImpl(const Options& options);
  ~ExchangeImpl() override;
  absl::Status start();

  std::string address() const override { return address_; }
  absl::StatusOr<std::shared_ptr<Stream>> connect(const ConnectOptions& options) override;
  void begin_connect(const ConnectOptions& options, Connected done) override;
  absl::Status serve(StreamKind kind, const std::string& job, StreamHandler* handler) override;
  void withdraw(StreamKind kind, const std::string& job) override;
  Arena& arena() override { return *options_.arena; }
  Clock& clock() override { return *clock_; }
  Executor& executor() override { return *executor_; }
  TransportLimits limits() const override { return limits_; }
  TransportCounters counters() const override;
  size_t streams() const override {
    return open_streams_.load(std::memory_order_relaxed) + local_->open.load();
  }
  StageTimes times() const override;
  uint64_t local_bytes() const override { return local_->bytes.load(std::memory_order_relaxed); }

  void mark_dirty(Session* session) override;
  BlockPool& control_pool() override { return *control_pool_; }
  void note_control(const BlockBuffer& buffer) override { is_control_[buffer.index()] = 1; }
  size_t send_queue_limit() const override { return options_.send_queue; }

 private:
  using SessionPtr = std::shared_ptr<Session>;

  struct Connecting {
    SessionPtr session;
    std::string address;
    Connected done;
  };
  using ConnectingPtr = std::shared_ptr<Connecting>;

  bool is_local(const ConnectOptions& options) const {
    return !options_.listen.empty() && options.address == address_;
  }
  absl::StatusOr<std::shared_ptr<Stream>> connect_local(const ConnectOptions& options,
                                                        int64_t wait_ms);
  Hello hello_of(const ConnectOptions& options) const;
  StreamHandler* find_handler(const Hello& hello) SLUICE_REQUIRES(handlers_mutex_);
  absl::Status not_served(const Hello& hello) const;

  // exchange.cc: the loop and moving messages.
  void run();
  bool take_work();
  bool pump(Session& session);
  bool send_own(Session& session);
  static bool has_waiting(Session& session);
  int64_t idle_wait_ns();
  bool post_receives(Session& session);
  static bool fill_unposted(Session& session, size_t most);
  void refused(Session& session);
  bool offer_refused();
  void release(Session& session, BlockBuffer buffer);
  void snapshot_counters();
  void stop_all();

  // exchange_events.cc: what happens on connections.
  bool poll_completions();
  void on_completion(Completion& completion);
  void on_connected(Session& session, Completion& completion);
  void on_received(const SessionPtr& session, Completion& completion);
  void on_hello_reply(const SessionPtr& session, const Message& message);
  void on_message(const SessionPtr& session, Message message);
  void on_closed(const SessionPtr& session, const absl::Status& status);
  void try_connect(const ConnectingPtr& connecting);
  bool connect_again(const SessionPtr& session, const absl::Status& status);
  void finish_connect(Session& session, const absl::Status& status);
  void open_session(const SessionPtr& session);
  // Ends a session from this side: tells the peer `reason` when it is an error and can be told,
  // then closes.
  void begin_close(Session& session, const absl::Status& reason);
  // Ends it now, waiting for nobody; on_closed() follows.
  void abort(Session& session, const absl::Status& reason);
  void stop_taking(Session& session, const absl::Status& reason);
  void run_timers();
  void check_session_time(Session& session, int64_t now);

  // exchange_limit.cc: what the limit holds back. All of it needs one.
  bool may_send(const Outgoing& next);
  void take_back(const Outgoing& unsent);
  void charge_received(Session& session, const Envelope& envelope, uint32_t bytes);
  void uncharge(Session& session);
  void hold_back(Session& session);
  bool grant_held_back();
  void lift_local_limit();
  bool grant_one(Session& session);
  int64_t limit_wait_ns() const;

  // exchange_strangers.cc: accepted connections up to their hello.
  void on_accepted(Completion& completion);
  void serve_newcomers();
  void turn_away(Session& session, const absl::Status& reason);
  void report_turned_away(int64_t now);
  void on_hello(const SessionPtr& session, const Message& message);
  absl::Status check_hello(const Hello& hello) const;
  absl::Status admit(const SessionPtr& session);
  void admit_waiting();
  void refuse(Session& session, const absl::Status& refusal);

  const Options options_;
  Clock* const clock_;
  const std::unique_ptr<Executor> own_executor_;  // where none was given
  Executor* const executor_;
  TransportLimits limits_;
  std::string address_;
  std::unique_ptr<Endpoint> endpoint_;
  std::unique_ptr<BlockPool> hello_pool_;  // for strangers' hellos; null where nobody can connect
  std::unique_ptr<BlockPool> own_pool_;    // hellos, answers to them, keepalives, errors
  std::unique_ptr<BlockPool> control_pool_;
  std::vector<uint8_t>
      is_control_;  // by buffer index; set before a buffer is queued, cleared when it is done
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> sleeping_{false};
  std::atomic<size_t> open_streams_{0};

  Stage moving_;  // the thread, while it does not wait
  const std::shared_ptr<LocalHost> local_ = std::make_shared<LocalHost>();
  Mutex links_mutex_;
  std::vector<std::weak_ptr<LocalLink>> links_ SLUICE_GUARDED_BY(links_mutex_);

  Mutex work_mutex_;
  std::vector<SessionPtr> dirty_ SLUICE_GUARDED_BY(work_mutex_);
  std::vector<ConnectingPtr> connect_requests_ SLUICE_GUARDED_BY(work_mutex_);

  mutable Mutex counters_mutex_;
  TransportCounters counters_ SLUICE_GUARDED_BY(counters_mutex_);

  Mutex handlers_mutex_;
  std::map<std::pair<StreamKind, std::string>, StreamHandler*> handlers_
      SLUICE_GUARDED_BY(handlers_mutex_);
  Condition handlers_changed_;
  std::atomic<bool> handler_came_{false};

  // The exchange's thread alone:
  std::unordered_map<ConnectionId, SessionPtr> sessions_;
  std::vector<SessionPtr> sending_;   // with messages that wait for credits
  std::deque<SessionPtr> held_back_;  // with credits that the limit has no room for, in turn
  std::vector<SessionPtr> refused_;   // the driver took fewer buffers than were offered
  bool send_held_back_ = false;       // in this round of the loop
  std::vector<SessionPtr> retired_;   // over, some buffers not home yet
  std::vector<SessionPtr> waiting_;   // for a handler, or were
  std::unordered_map<Session*, ConnectingPtr> connecting_;
  std::vector<SessionPtr> taken_;  // scratch of take_work()
  std::array<Completion, 64> completions_;
  std::vector<SendRequest> send_scratch_;
  Newcomers newcomers_;
  size_t buffers_awaited_ = 0;  // of strangers that were aborted
  size_t admitted_ = 0;         // accepted streams
  size_t connectors_ = 0;       // connections that were begun here
  size_t turned_away_ = 0;      // since the last report
  std::string last_turned_away_;
  int64_t next_report_ns_ = 0;
  int64_t next_timer_ns_ = 0;
};

}  // namespace sluice::stream

#endif  // SLUICE_DATAPLANE_STREAM_EXCHANGE_IMPL_H_

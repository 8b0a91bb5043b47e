// The epoll loop of one endpoint: its listening socket, its connections, its timers.
#ifndef SLUICE_DRIVERS_TCP_ENDPOINT_H_
#define SLUICE_DRIVERS_TCP_ENDPOINT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/newcomers.h"
#include "drivers/tcp/connection.h"
#include "drivers/transport.h"

namespace sluice::tcp {

class TcpEndpoint final : public Endpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Endpoint>> open(const TcpOptions& options, Arena& arena,
                                                        std::string_view listen);
  ~TcpEndpoint() override;

  std::string address() const override { return address_; }
  absl::StatusOr<ConnectionId> connect(std::string_view address) override;
  void close(ConnectionId connection) override;
  void abort(ConnectionId connection) override;
  size_t post_recv(ConnectionId connection, std::span<BlockBuffer> buffers) override;
  size_t post_send(ConnectionId connection, std::span<SendRequest> requests) override;
  size_t credits(ConnectionId connection) const override;
  size_t poll(std::span<Completion> completions) override;
  void wait(int64_t timeout_ns) override;
  void wake() override;
  TransportCounters counters() const override;

 private:
  TcpEndpoint(const TcpOptions& options, Arena& arena);
  absl::Status set_up(std::string_view listen);
  absl::Status start_listening(std::string_view listen);

  Connection* find(ConnectionId id) const;
  void enqueue(Connection* connection);
  absl::Status watch(int fd, ConnectionId id, uint32_t events);
  ConnectionId add(UniqueFd fd, const SocketAddress& peer, bool connecting,
                   const absl::Status& status);

  void progress();
  void collect_events(int64_t timeout_ns);
  void accept_some();
  void accept_one(UniqueFd fd, const SocketAddress& peer);
  void set_accepting(bool on);
  void advance_queued();
  void check_deadlines();
  void note_half_open(const Connection& connection);
  bool turn_one_away(const absl::Status& why);
  bool make_room(int fd);
  void report_turned_away();
  int64_t next_deadline_ns() const;

  Shared shared_;
  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd listener_;
  std::string address_;
  bool accepting_ = false;
  bool accept_ready_ = false;
  int64_t accept_again_ns_ = 0;  // when the process ran out of descriptors: do not try before
  Newcomers half_open_;
  size_t accepted_ = 0;     // of connections_
  size_t turned_away_ = 0;  // since the last report
  std::string last_turned_away_;
  int64_t next_report_ns_ = 0;
  ConnectionId next_id_;
  int64_t next_scan_ns_ = 0;
  std::unordered_map<ConnectionId, std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> work_;
  std::vector<Connection*> working_;  // the part of work_ that is being gone through
  bool woken_ = false;                // wake_ is readable
  bool collected_ = false;            // by wait(): the poll after it need not ask epoll again
  std::atomic<uint64_t> wakes_{0};
};

}  // namespace sluice::tcp

#endif  // SLUICE_DRIVERS_TCP_ENDPOINT_H_

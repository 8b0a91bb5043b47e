// A proxy in front of a server on loopback, which loses what tests want lost.
#ifndef SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_TCP_PROXY_H_
#define SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_TCP_PROXY_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <string>
#include <thread>

#include "base/file.h"

namespace sluice {

class TcpProxy {
 public:
  enum class Mode {
    kPass,
    kLoseAnswers,  // what the server sends is dropped
    kRefuse,       // connections break, also new ones
  };
  explicit TcpProxy(uint16_t server);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  std::string address() const;
  // Nothing is passed on otherwise when it returns.
  void set(Mode mode);
  // Bytes of answers that were dropped.
  size_t lost() const { return lost_; }

 private:
  struct Pair {
    UniqueFd client;
    UniqueFd server;
  };
  void run();
  void accept_one();
  // False when the connection is over.
  bool pass_on(const Pair& pair, bool from_server);

  const uint16_t server_;
  UniqueFd listener_;
  uint16_t port_ = 0;
  std::atomic<Mode> wanted_{Mode::kPass};
  std::atomic<Mode> mode_{Mode::kPass};  // of the thread
  std::atomic<size_t> lost_{0};
  std::atomic<bool> stopping_{false};
  std::list<Pair> pairs_;
  std::thread thread_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_TCP_PROXY_H_

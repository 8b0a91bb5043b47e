#include "tests/control/cluster_block/tcp_proxy.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <vector>

namespace sluice {
namespace {

constexpr int kPollMs = 5;

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

UniqueFd new_socket() { return UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

}  // namespace

TcpProxy::TcpProxy(uint16_t server) : server_(server), listener_(new_socket()) {
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof(address);
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(listener_.get(), raw, size), 0);
  EXPECT_EQ(::listen(listener_.get(), 64), 0);
  EXPECT_EQ(::getsockname(listener_.get(), raw, &size), 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

TcpProxy::~TcpProxy() {
  stopping_ = true;
  thread_.join();
}

void TcpProxy::set(Mode mode) {
  wanted_ = mode;
  while (mode_ != mode) std::this_thread::yield();
}

std::string TcpProxy::address() const { return fmt::format("127.0.0.1:{}", port_); }

void TcpProxy::accept_one() {
  Pair pair{UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)), new_socket()};
  sockaddr_in address = loopback(server_);
  if (!pair.client || mode_ == Mode::kRefuse) return;
  if (::connect(pair.server.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return;
  }
  pairs_.push_back(std::move(pair));
}

bool TcpProxy::pass_on(const Pair& pair, bool from_server) {
  char bytes[65536];
  const int from = (from_server ? pair.server : pair.client).get();
  const int to = (from_server ? pair.client : pair.server).get();
  const ssize_t count = ::read(from, bytes, sizeof(bytes));
  if (count <= 0) return false;
  if (from_server && mode_ == Mode::kLoseAnswers) {
    lost_ += static_cast<size_t>(count);
    return true;
  }
  for (ssize_t done = 0; done < count;) {
    const ssize_t sent = ::send(to, bytes + done, static_cast<size_t>(count - done), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    done += sent;
  }
  return true;
}

void TcpProxy::run() {
  while (!stopping_) {
    if (wanted_ == Mode::kRefuse) pairs_.clear();
    mode_ = wanted_.load();
    std::vector<pollfd> polled{{listener_.get(), POLLIN, 0}};
    for (const Pair& pair : pairs_) {
      polled.push_back({pair.client.get(), POLLIN, 0});
      polled.push_back({pair.server.get(), POLLIN, 0});
    }
    if (::poll(polled.data(), polled.size(), kPollMs) <= 0) continue;
    size_t index = 1;
    for (auto pair = pairs_.begin(); pair != pairs_.end(); index += 2) {
      bool is_open = true;
      if (polled[index].revents != 0) is_open = pass_on(*pair, false);
      if (is_open && polled[index + 1].revents != 0) is_open = pass_on(*pair, true);
      pair = is_open ? std::next(pair) : pairs_.erase(pair);
    }
    if (polled[0].revents != 0) accept_one();
  }
}

}  // namespace sluice

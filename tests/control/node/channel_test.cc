#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "base/file.h"
#include "control/peers/peers.h"
#include "control/peers/rpc.h"

namespace sluice {
namespace {

// A peer on a slow machine, or far away: its first frame comes a good while after the connection.
TEST(Channel, ConnectsToAPeerThatAnswersLate) {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(listener.get(), 16), 0);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  std::atomic<bool> over = false;
  std::thread server([&] {
    while (!over) {
      pollfd waiting{listener.get(), POLLIN, 0};
      if (poll(&waiting, 1, 20) != 1) continue;
      const UniqueFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      std::this_thread::sleep_for(std::chrono::milliseconds(600));
      constexpr std::array<uint8_t, 9> kEmptySettings = {0, 0, 0, 4, 0, 0, 0, 0, 0};
      (void)!send(peer.get(), kEmptySettings.data(), kEmptySettings.size(), MSG_NOSIGNAL);
      pollfd gone{peer.get(), POLLRDHUP, 0};
      while (!over && poll(&gone, 1, 20) == 0) {
      }
    }
  });
  const auto channel = make_channel("127.0.0.1:" + std::to_string(ntohs(address.sin_port)));
  // So long a node's first write waits for the connection.
  EXPECT_TRUE(channel->WaitForConnected(std::chrono::system_clock::now() +
                                        std::chrono::milliseconds(PeerNode::kFirstConnectMs)));
  over = true;
  server.join();
}

}  // namespace
}  // namespace sluice

#include "tests/drivers/network_kinds.h"

#include <cstdio>
#include <map>

#include "drivers/fault.h"
#include "drivers/packet/packet.h"
#include "drivers/rdma/rdma.h"
#include "drivers/sim/packet_network.h"
#include "drivers/sim/sim.h"
#include "drivers/tcp/tcp.h"
#include "tests/drivers/rdma_here.h"
#include "tests/drivers/real_time.h"

namespace sluice {
namespace {

class TcpNetwork final : public Network {
 public:
  explicit TcpNetwork(const TcpOptions& options) : transport_(options) {}
  Transport& transport(size_t) override { return transport_; }
  std::string listen_address(size_t) override { return "127.0.0.1:0"; }
  // Port 1 (tcpmux) is below the ephemeral ports, so no socket of this machine has it by chance.
  std::string nobody() override { return "127.0.0.1:1"; }
  std::string nonsense() override { return "no-port"; }

 private:
  TcpTransport transport_;
};

class RdmaNetwork final : public Network {
 public:
  Transport& transport(size_t) override { return transport_; }
  std::string listen_address(size_t) override { return rdma_address() + ":0"; }
  std::string nobody() override { return rdma_address() + ":1"; }
  std::string nonsense() override { return "no-port"; }

 private:
  RdmaTransport transport_;
};

SimOptions with_time(SimOptions options, SimTime* time) {
  options.time = time;
  return options;
}

class SimNetwork final : public Network {
 public:
  SimNetwork(const SimOptions& options, bool real_time)
      : fabric_(42, with_time(options, real_time ? &time_ : nullptr)) {}
  Transport& transport(size_t node) override {
    return transports_.try_emplace(node, fabric_, listen_address(node)).first->second;
  }
  std::string listen_address(size_t node) override { return "node" + std::to_string(node); }
  std::string nobody() override { return "elsewhere"; }
  std::string nonsense() override { return ":service"; }

 private:
  RealTime time_;
  SimFabric fabric_;
  std::map<size_t, SimTransport> transports_;
};

// The packet layer on a simulated network.
class PacketSimNetwork final : public Network {
 public:
  PacketSimNetwork(const SimOptions& fabric, bool real_time, const SimPacketOptions& packets)
      : fabric_(42, with_time(fabric, real_time ? &time_ : nullptr)),
        clock_(fabric_),
        network_(fabric_, packets),
        exact_(packets.loss == 0 && !real_time),
        real_time_(real_time) {}
  Transport& transport(size_t node) override {
    PacketOptions options;
    options.seed = node + 1;
    return transports_
        .try_emplace(
            node, "packet_sim",
            [this, name = listen_address(node)](std::string_view listen) {
              return network_.open(name, listen);
            },
            options, clock_)
        .first->second;
  }
  std::string listen_address(size_t node) override { return "node" + std::to_string(node); }
  std::string nobody() override { return "elsewhere"; }
  std::string nonsense() override { return ":service"; }
  bool exact_bytes() const override { return exact_; }
  bool threads() const override { return real_time_; }

 private:
  RealTime time_;
  SimFabric fabric_;
  SimClock clock_;
  SimPacketNetwork network_;
  std::map<size_t, PacketTransport> transports_;
  const bool exact_;
  const bool real_time_;
};

std::unique_ptr<Network> packet_sim(bool real_time, bool lossy) {
  SimOptions options;
  SimPacketOptions packets;
  if (lossy) {
    packets.loss = 0.1;
    packets.duplicate = 0.05;
    packets.corrupt = 0.02;
    packets.reorder = 0.2;
    packets.device_reads_late = true;
    options.jitter_ns = 5'000;
  }
  return std::make_unique<PacketSimNetwork>(options, real_time, packets);
}

std::unique_ptr<Network> sim_network(bool real_time) {
  SimOptions options;
  options.jitter_ns = 5'000;
  return std::make_unique<SimNetwork>(options, real_time);
}

std::unique_ptr<Network> tcp_network(TcpOptions::SendBy send_by) {
  TcpOptions options;
  options.send_by = send_by;
  return std::make_unique<TcpNetwork>(options);
}

// Every node's transport with faults that the contract allows.
class FaultyNetwork final : public Network {
 public:
  explicit FaultyNetwork(std::unique_ptr<Network> inner) : inner_(std::move(inner)) {}
  Transport& transport(size_t node) override {
    FaultOptions options;
    options.seed = node + 7;
    options.partial_post = 0.3;
    options.delay = 0.3;
    return transports_.try_emplace(node, inner_->transport(node), options).first->second;
  }
  std::string listen_address(size_t node) override { return inner_->listen_address(node); }
  std::string nobody() override { return inner_->nobody(); }
  std::string nonsense() override { return inner_->nonsense(); }
  bool exact_bytes() const override { return inner_->exact_bytes(); }
  bool threads() const override { return inner_->threads(); }

 private:
  const std::unique_ptr<Network> inner_;
  std::map<size_t, FaultTransport> transports_;
};

std::unique_ptr<Network> faulty(std::unique_ptr<Network> inner) {
  return std::make_unique<FaultyNetwork>(std::move(inner));
}

}  // namespace

std::vector<NetworkKind> network_kinds() {
  std::vector<NetworkKind> kinds = {
      {"TcpSendfile", [] { return tcp_network(TcpOptions::SendBy::kSendfile); }},
      {"TcpWrite", [] { return tcp_network(TcpOptions::SendBy::kWrite); }},
      {"SimStepped", [] { return sim_network(false); }},
      {"SimRealTime", [] { return sim_network(true); }},
      {"PacketSim", [] { return packet_sim(false, false); }},
      {"PacketSimLossy", [] { return packet_sim(false, true); }},
      {"PacketSimRealTime", [] { return packet_sim(true, false); }},
      {"PacketSimLossyRealTime", [] { return packet_sim(true, true); }},
      {"FaultyPacketSimLossy", [] { return faulty(packet_sim(false, true)); }},
      {"FaultyTcpSendfile", [] { return faulty(tcp_network(TcpOptions::SendBy::kSendfile)); }},
      {"FaultyTcpWrite", [] { return faulty(tcp_network(TcpOptions::SendBy::kWrite)); }},
      {"FaultySimStepped", [] { return faulty(sim_network(false)); }},
      {"FaultySimRealTime", [] { return faulty(sim_network(true)); }},
  };
  if (rdma_address().empty()) {
    std::fprintf(stderr, "rdma: skipped: %s\n", why_no_rdma().c_str());
    return kinds;
  }
  kinds.push_back({"Rdma", [] { return std::make_unique<RdmaNetwork>(); }});
  kinds.push_back({"FaultyRdma", [] { return faulty(std::make_unique<RdmaNetwork>()); }});
  return kinds;
}

}  // namespace sluice

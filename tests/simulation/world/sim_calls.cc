#include "tests/simulation/world/sim_calls.h"

#include <algorithm>

#include "tests/control/calls/direct_call.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

// When a side that hears nothing gives the connection up.
constexpr int64_t kKeepAliveNs = 30'000'000'000;
constexpr std::string_view kWriter = "writer";

std::string host_of(const std::string& address) { return address.substr(0, address.find(':')); }

}  // namespace

void SimCalls::crash_host(const std::string& host, const std::string& address, bool dead) {
  if (!address.empty()) crash(address);
  std::vector<std::weak_ptr<DirectCall>> calls;
  calls.swap(in_work_[host]);
  for (const auto& each : calls) {
    const auto call = each.lock();
    if (call == nullptr || call->ended()) continue;
    call->lose();
    at(now_ns() + (dead ? kKeepAliveNs : 0), [call] {
      call->give_up({grpc::StatusCode::UNAVAILABLE, "broke off the connection"});
    });
  }
}

void SimCalls::take_over(const std::string& address, const std::string& by) {
  DirectNetwork::take_over(address, by);
  hosts_instead_[address] = host_of(by);
  // Some may still arrive.
  auto& calls = in_work_[host_of(by)];
  const auto& under_way = in_work_[host_of(address)];
  calls.insert(calls.end(), under_way.begin(), under_way.end());
}

void SimCalls::carry(const DirectMessage& message, std::function<void()> deliver) {
  const NoSwitch whole;
  if (Process::current().crashed()) return;
  if (before) before(message);
  if (Process::current().crashed()) return;
  if (watch) watch(message);
  const std::pair direction(host_of(message.from), host_of(message.to));
  if (message.kind == DirectMessage::Kind::kRequest) {
    const auto instead = hosts_instead_.find(message.to);
    for (const std::string& host :
         {direction.first, direction.second,
          instead == hosts_instead_.end() ? direction.second : instead->second}) {
      auto& calls = in_work_[host];
      if (calls.size() == calls.capacity()) {
        std::erase_if(calls, [](const auto& each) { return each.expired(); });
      }
      calls.push_back(message.call);
    }
  }
  const bool loses = random_.chance(faults.lost);
  const bool breaks = random_.chance(faults.broken);
  const bool arrives = random_.chance(0.5);
  int64_t takes = faults.fastest_ns + static_cast<int64_t>(random_.below(static_cast<uint64_t>(
                                          faults.slowest_ns - faults.fastest_ns + 1)));
  const bool of_writer = faults.delayed_from_writers > 0 &&
                         message.kind == DirectMessage::Kind::kRequest &&
                         Process::current().name().starts_with(kWriter);
  if (random_.chance(of_writer ? faults.delayed_from_writers : faults.delayed)) {
    takes += static_cast<int64_t>(random_.below(static_cast<uint64_t>(faults.longest_delay_ns)));
  }
  if ((loses || blocked_.contains(direction)) && !message.call->lost()) {
    message.call->lose();
    at(now_ns() + kKeepAliveNs, [call = message.call] {
      call->give_up({grpc::StatusCode::UNAVAILABLE, "keepalive watchdog timeout"});
    });
  }
  if (message.call->lost()) return;
  int64_t& last = last_ns_[direction];
  last = std::max(last, now_ns() + takes);
  if (breaks) {
    message.call->lose();
    at(last, [call = message.call] {
      call->give_up({grpc::StatusCode::UNAVAILABLE, "broke off the connection"});
    });
    if (message.kind != DirectMessage::Kind::kRequest || !arrives) return;
  }
  at(last, std::move(deliver));
}

}  // namespace sluice::simulation

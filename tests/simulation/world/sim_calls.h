// The network that calls between the processes of a simulated cluster go over: messages take time,
// connections break, partitions keep messages from hosts.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_SIM_CALLS_H_
#define SLUICE_TESTS_SIMULATION_WORLD_SIM_CALLS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "tests/control/calls/direct_calls.h"

namespace sluice::simulation {

// Of each message; may be changed at any time.
struct CallFaults {
  int64_t fastest_ns = 50'000;
  int64_t slowest_ns = 300'000;
  double lost = 0;     // and all that follow it in its call, until who waits gives up
  double broken = 0;   // its call ends with UNAVAILABLE; a request may have arrived all the same
  double delayed = 0;  // by up to longest_delay_ns more
  double delayed_from_writers = 0;  // the same, of requests of writers alone
  int64_t longest_delay_ns = 3'000'000'000;
};

// A host is what stands before the colon of an address, or the name of a caller. What a process
// that has crashed sends is lost.
class SimCalls final : public DirectNetwork {
 public:
  explicit SimCalls(uint64_t seed) : random_(seed) {}

  CallFaults faults;
  // Called for each message of a living process, before its fate is drawn.
  std::function<void(const DirectMessage&)> before;
  // Called for each that is sent, for who only looks.
  std::function<void(const DirectMessage&)> watch;

  void carry(const DirectMessage& message, std::function<void()> deliver) override;
  // Nobody of the host is there any more. Calls in work end when the other side notices: at once,
  // because the host's system says so, unless the host is dead.
  void crash_host(const std::string& host, const std::string& address, bool dead);
  // As DirectNetwork's; calls to the address are the host's of `by` from now on.
  void take_over(const std::string& address, const std::string& by);
  // One way.
  void block(const std::string& from, const std::string& to) { blocked_.emplace(from, to); }
  void unblock_all() { blocked_.clear(); }

 private:
  Random random_;
  std::set<std::pair<std::string, std::string>> blocked_;
  std::map<std::pair<std::string, std::string>, int64_t> last_ns_;         // arrivals, by direction
  std::map<std::string, std::vector<std::weak_ptr<DirectCall>>> in_work_;  // by host, either side
  std::map<std::string, std::string> hosts_instead_;  // of addresses that were taken over
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_SIM_CALLS_H_

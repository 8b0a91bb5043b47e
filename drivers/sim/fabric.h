// A network in memory, for tests and the simulator: nodes with names, links with delay and
// bandwidth, and faults, all from one seed. It delivers events, in order for each pair of nodes;
// what the events mean is up to the adapters (sim.h: as a transport).
//
// Time. Stepped (the default): time is virtual and moves only in step(), advance() and in an
// endpoint's wait(); all in one thread, the same seed and the same calls give the same run.
// From outside (SimOptions::time): events happen when that time has come to them, on the thread
// that it calls from, and endpoints live in threads of their own; wait() sleeps.
//
// Thread-safe: one mutex guards the fabric and everything of its adapters. Outlives its transports.
#ifndef SLUICE_DRIVERS_SIM_FABRIC_H_
#define SLUICE_DRIVERS_SIM_FABRIC_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <queue>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/random.h"

namespace sluice {

// What is attached to a node and hears of its faults. Called with the fabric's mutex held.
class SimParticipant {
 public:
  virtual ~SimParticipant() = default;
  virtual void on_cut(const std::string& peer_node) = 0;
  virtual void on_crash() = 0;
};

// Whose time a fabric goes by, where it does not keep its own. Thread-safe. Outlives the fabric.
class SimTime {
 public:
  virtual ~SimTime() = default;
  virtual int64_t now_ns() const = 0;
  // Calls `due` once, at that time or soon after, in place of what it was to call before. Called
  // with the fabric's mutex held, which `due` takes.
  virtual void call_at(int64_t at_ns, std::function<void()> due) = 0;
  // Calls nothing any more; waits for a call that is under way.
  virtual void forget() = 0;
};

struct SimOptions {
  int64_t delay_ns = 20'000;                      // of each event, one way
  int64_t jitter_ns = 0;                          // added: uniform in [0, jitter_ns]
  uint64_t bytes_per_second = 5'000'000'000;      // of each ordered pair of nodes
  int64_t dead_peer_timeout_ns = 20'000'000'000;  // a partition that lasts so long cuts
  SimTime* time = nullptr;                        // null: virtual
};

class SimFabric {
 public:
  using Event = std::function<void()>;

  explicit SimFabric(uint64_t seed, const SimOptions& options = {});
  ~SimFabric();
  SimFabric(const SimFabric&) = delete;
  SimFabric& operator=(const SimFabric&) = delete;

  // Runs the next event and moves time to it; false when there is none. Stepped fabrics only.
  bool step();
  // Runs what happens within `duration_ns` and moves time by it. Stepped fabrics only.
  void advance(int64_t duration_ns);
  int64_t now_ns() const;

  // Between two nodes nothing gets through, in either direction, until heal(): it waits, and is not
  // lost.
  void partition(const std::string& a, const std::string& b);
  void heal(const std::string& a, const std::string& b);
  // Breaks the connections that two nodes have now.
  void cut(const std::string& a, const std::string& b);
  // The node's process dies: its connections break, nobody listens there, nothing leaves it.
  // restart() lets new endpoints of the node work; those from before stay dead.
  void crash(const std::string& node);
  void restart(const std::string& node);

  // For adapters. The mutex must be held for all of these.
  std::mutex& mutex() const { return mutex_; }
  const SimOptions& options() const { return options_; }
  void attach(const std::string& node, SimParticipant* participant);
  void detach(SimParticipant* participant);
  const std::vector<std::pair<std::string, SimParticipant*>>& participants() const {
    return participants_;
  }
  bool crashed(const std::string& node) const { return crashed_.contains(node); }
  bool partitioned(const std::string& a, const std::string& b) const {
    return !partitions_.empty() && partitions_.contains(unordered(a, b));
  }
  // The event happens at `to` when `bytes` bytes sent now from `from` have arrived.
  void transmit(const std::string& from, const std::string& to, size_t bytes, Event event);
  void schedule(int64_t at_ns, Event event);
  int64_t now_locked() const;
  // -1: nothing is to come.
  int64_t next_event_ns() const { return events_.empty() ? -1 : events_.top().at_ns; }
  // An adapter's wait(): runs events until `done` or the time is up. `lock` holds the mutex;
  // `changed` is notified when `done` may have become true.
  void wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
            const std::function<bool()>& done, int64_t timeout_ns);

 private:
  struct Scheduled {
    int64_t at_ns;
    uint64_t sequence;  // events of one time happen in the order of their scheduling
    Event event;
    bool operator<(const Scheduled& other) const {  // std::priority_queue has the largest on top
      return std::tie(other.at_ns, other.sequence) < std::tie(at_ns, sequence);
    }
  };
  struct Path {
    int64_t free_at_ns = 0;                       // when the wire has taken what was sent so far
    int64_t last_at_ns = 0;                       // when that arrives
    std::deque<std::pair<size_t, Event>> parked;  // sent into a partition
  };
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  using Pair = std::pair<std::string, std::string>;
  static Pair unordered(const std::string& a, const std::string& b) {
    return a < b ? Pair(a, b) : Pair(b, a);
  }
  // Runs the next event if it is due by `until_ns`.
  bool run_next(int64_t until_ns);
  // Time from outside: runs what is due, and asks to be called for the next.
  void run_due();
  void ask_for(int64_t at_ns);
  void move_time_to(int64_t at_ns);
  void cut_locked(const std::string& a, const std::string& b);
  void put_on_wire(const Pair& direction, size_t bytes, Event event);

  const SimOptions options_;
  mutable std::mutex mutex_;
  Random random_;
  int64_t virtual_now_ns_ = 0;
  int64_t asked_for_ns_ = kNever;  // when time calls from outside
  uint64_t next_sequence_ = 0;
  std::priority_queue<Scheduled> events_;
  std::map<Pair, Path> paths_;  // from, to
  std::map<Pair, uint64_t>
      partitions_;  // unordered; the number tells one partition from a later one
  uint64_t next_partition_ = 1;
  std::set<std::string> crashed_;
  std::vector<std::pair<std::string, SimParticipant*>> participants_;
};

}  // namespace sluice

#endif  // SLUICE_DRIVERS_SIM_FABRIC_H_

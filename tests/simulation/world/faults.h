// Strikes the hosts of a cluster with a scenario's faults, and starts again what went down, as a
// service manager does.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_FAULTS_H_
#define SLUICE_TESTS_SIMULATION_WORLD_FAULTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "base/random.h"
#include "tests/simulation/world/oracle.h"
#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// To be used by threads of the harness; lives until the run ends.
class Faults {
 public:
  Faults(World& world, const Scenario& scenario, Oracle& oracle, std::vector<Host*> hosts);

  // Calls and the cluster block fail from now on, and what is down is started.
  void begin();
  // Now. May be on any thread, of a host's process too; waits for nothing.
  void strike(const Op& op);
  // No fault from now on, and nothing of them is left.
  void heal();
  void wait_until_all_serve();
  // A process with a copy of a node's data is about to join, or has.
  void copy_joins(const Host& copy);
  // For good.
  void stop_all();

  const std::map<OpKind, uint64_t>& fired() const { return fired_; }
  // No fault that it is struck with keeps it from answering, or did just now.
  bool is_well(const Host& host) const;

 private:
  static constexpr int64_t kSuperviseMs = 250;
  // What a node has done without the cluster knowing of it (design note 006): a quarter of a lease,
  // and what faults of the cluster block add.
  static constexpr int64_t kUnpublishedNs = 10'000'000'000;
  // How long a node may be without its lease after a fault.
  static constexpr int64_t kTroubleNs = 10'000'000'000;

  // What a node's data directory is, where it is not the one that the node served from last.
  enum class Data : uint8_t {
    kNewest,
    kGone,
    kSetBack,
    kOvertaken,  // the node's process ran when another one on a copy took its name
    kAccepted,   // the node was refused, and is started with accept_data_loss until it serves
  };
  struct HostState {
    bool down = false;  // to be left as it is until the time
    int64_t down_until_ns = 0;
    int64_t trouble_until_ns = 0;              // with it, or just over
    int64_t kept_from_answering_until_ns = 0;  // likewise, by other than its data
    int64_t paused_until_ns = 0;
    bool disk_failed = false;  // writes of its process fail until the store is opened again
    Data data = Data::kNewest;
    int64_t lost_from_ns = 0;  // what was acknowledged since then, until then, it may lack
    int64_t lost_until_ns = 0;
    int64_t served_ns = 0;  // when it was last seen taking writes, and could publish them
    // Process that a copy has served in the place of. It serves on only until it notices.
    const Process* replaced = nullptr;
    int64_t accepted_from_ns = 0;  // an operator takes a while; it is refused again and again
  };

  // faults.cc: what is over with its end.
  void crash(const Op& op);
  void black_out(const Op& op);
  int64_t random_hours_ns();
  void pause(const Op& op);
  void slow_down(size_t host, int64_t until_ns);
  void jump_clock(const Op& op);
  void fail_disk(const Op& op);
  static bool disk_fails(Host& host);
  // faults_damage.cc: what stays.
  void lose_data(const Op& op);
  void set_data_back(const Op& op);
  void copy_data(const Op& op);
  void run_copy(size_t host, Host& copy, int64_t until_ns);
  void copy_serves(size_t host, int64_t from_ns);
  void overtake(size_t host, int64_t from_ns);
  void damage_archives(const Op& op);
  void later(const Op& op, std::function<void()> undo);
  void supervise();
  void judge_end(size_t host);
  void judge_start(size_t host);
  void start(size_t host);
  void hold_down(size_t host, int64_t ms);

  World& world_;
  const Scenario& scenario_;
  Oracle& oracle_;
  const std::vector<Host*> hosts_;
  Random random_;
  std::vector<HostState> states_;
  std::map<const Host*, int64_t> joining_;  // copies that have not joined, and when they were taken
  std::vector<Process*> paused_;
  std::map<OpKind, uint64_t> fired_;
  bool healed_ = false;
  bool stops_all_ = false;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_FAULTS_H_

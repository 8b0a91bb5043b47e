// The clients of a scenario: writers, who put, erase, get and import all the time, and operators,
// who each do one thing. What they are answered goes to the oracle.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_WORKLOAD_H_
#define SLUICE_TESTS_SIMULATION_WORLD_WORKLOAD_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/random.h"
#include "control/backup/documents.h"
#include "tests/simulation/world/oracle.h"
#include "tests/simulation/world/scenario.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

// To be used by threads of the harness; lives until the run ends.
class Workload {
 public:
  // `cluster` is written to, backed up and restored; kRestoreToOther restores into `other`.
  Workload(World& world, const Scenario& scenario, Oracle& oracle, std::string cluster,
           std::string other);

  // Those of the other cluster write keys of their own, from the first restore into it on.
  void start_writers();
  // In a client of its own; returns at once.
  void start_operator(const Op& op);
  // The calling process, if it is a client of this, or any one.
  void crash_client(const Op& op);
  // Waits until all have ended; false when they do not.
  bool finish(int64_t timeout_ms);

  // The oracle of the other cluster, which is told what is restored into it.
  void set_other(Oracle& oracle) { other_oracle_ = &oracle; }

  // What it comes to goes to the oracle; the status where there is no answer.
  absl::Status back_up(ClusterClient& client, const std::string& name);
  absl::Status restore(ClusterClient& client, const RestoreRequest& request,
                       Restored::End* end = nullptr);

  uint64_t backups_completed() const { return backups_completed_; }
  uint64_t backups_failed() const { return backups_failed_; }
  uint64_t restores_completed() const { return restores_completed_; }
  std::string describe_remaining() const;  // the clients that have not ended

 private:
  struct Client {
    Process* process;
    std::optional<size_t> writer;
    bool ended = false;
  };

  void start_writer(size_t writer);
  void start_other_writers();
  void start(const std::string& name, const std::string& cluster, std::optional<size_t> writer,
             World::ClientBody body);
  // Where a writer writes to.
  struct Place {
    ClusterClient& client;
    Oracle& oracle;
    char first;  // of all keys
  };
  std::string draw_key(const Place& place, Random& random) const;
  void write(const Place& place, size_t writer);
  void read(const Place& place, size_t reader);
  static void get(const Place& place, const std::string& key);
  static void put(const Place& place, Random& random, const std::string& key);
  static void erase(const Place& place, const std::string& key);
  void import(const Place& place, Random& random);
  void import_versions(const Place& place, Random& random);
  absl::Status restore_here(ClusterClient& client, const std::string& name,
                            const std::string& prefix);
  absl::Status restore_to_other(ClusterClient& client, const std::string& name);
  absl::Status operate(ClusterClient& client, const Op& op, const std::string& name);
  std::string name_for(const Op& op);
  bool read_content(const std::string& name, const std::string& uuid);
  std::vector<std::string> completed_backups() const;

  World& world_;
  const Scenario& scenario_;
  Oracle& oracle_;
  const std::string cluster_;
  const std::string other_;
  Oracle* other_oracle_ = nullptr;
  Random random_;
  std::deque<Client> clients_;  // all that ever were
  size_t clients_left_ = 0;
  bool stop_writers_ = false;
  bool others_write_ = false;
  std::map<std::string, Restored::Content> contents_;  // of archives, by UUID
  uint64_t backups_completed_ = 0;
  uint64_t backups_failed_ = 0;
  uint64_t restores_completed_ = 0;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_WORKLOAD_H_

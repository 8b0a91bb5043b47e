// What DESIGN promises of a cluster, checked against what its clients were told: ends the run where
// a promise is broken.
//
// I1 Every read returns the value of a write that is at least as new as each one acknowledged
//    before it began (or concurrent with it).
// I2 A completed backup holds each write acknowledged before it was requested, or a newer one; and
//    each acknowledged write stamped up to its cut, at its version or a newer one.
// I3 It holds nothing stamped above its cut.
// I4 After a completed restore the cluster holds every record of the archive, or a newer one.
// I5 Each completed backup that nobody deleted verifies.
// I6 Attempts of a backup never fall, its states follow each other as states.h has it, and each
//    attempt has one coordinator.
// I7 What a restore with failures has not brought is on its lists.
// I8 Everything ends; once all is healed, a read, a write, a backup, its verification and a restore
//    succeed at once.
// I9 Nothing is reported as damaged that is not, by restores either, and no backup fails but by
//    faults.
// I10 A clean stop succeeds, and leaves no cut behind.
// I11 A node whose data directory is not the one that it served from last does not serve until that
//     is accepted.
// I12 Of one name there is one backup.
//
// What hardware did is excused where it must be, and only there. Data of one replica that is gone:
// writes acknowledged before count as unacknowledged (I1, I2). Archives of a host that were
// changed: a backup may fail its verification, which names a part of that host; one that verifies
// is held to all of the above. A node that is a copy for a while does not have its original's
// archives: what fails for that names the copy's directory, and is a backup that has no part there.
//
// Not thread-safe: to be called by threads of a run (simulation.h), which it never lets wait but in
// the checks that take a client.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_ORACLE_H_
#define SLUICE_TESTS_SIMULATION_WORLD_ORACLE_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/client/cluster_client.h"
#include "tests/simulation/world/history.h"
#include "tests/simulation/world/restored.h"
#include "tests/simulation/world/world.h"

namespace sluice::simulation {

class Oracle {
 public:
  // Of one cluster of the world.
  Oracle(World& world, std::string cluster, size_t replicas)
      : world_(world), cluster_(std::move(cluster)), history_(/*gets_settle=*/replicas % 2 == 1) {}

  History& history() { return history_; }
  // What is restored here are backups of that one's cluster.
  void restores_from(const Oracle& other) { archives_ = &other; }

  // --- What hardware did ---

  // What one replica was told between these times (both included) is not there any more.
  void data_lost(int64_t from_ns, int64_t until_ns) {
    history_.lost(from_ns, until_ns);
    restored_.lost();
  }
  // Its parts of these backups.
  void archives_damaged(const Host& host, const std::set<std::string>& backups) {
    for (const std::string& backup : backups) damaged_[backup].insert(host.name());
    exchanged_.clear();
  }

  // A copy of a host's data serves in its place, or may: who asks the node for a part is answered
  // from the copy's archive directory, which lacks what the host holds.
  void archives_elsewhere(Host& copy) { copies_.push_back(&copy); }

  // Whether the store of one of its hosts takes no writes because of its disk, from now on. What a
  // get returns then may stand on fewer replicas than others ask, for what is there stays readable.
  void disks_fail(bool fail) {
    disks_fail_ = fail;
    if (!fail) disks_failed_until_ns_ = now_ns();
  }

  // Parts of these backups, each of which the host has, are in the place of one another's or of
  // another host's. That has to be noticed, until archives are damaged again.
  void parts_exchanged(const std::set<std::string>& backups);

  // --- What clients were answered, at any time ---

  // I9: a failure that faults excuse, none of which is damage.
  void answered(const absl::Status& status, std::string_view what) const;
  // The same, of something that reads a backup.
  void answered_by_archives(const absl::Status& status, std::string_view backup,
                            std::string_view what) const;
  // I1, of a get that began then.
  void answered_get(const std::string& key, const absl::StatusOr<std::string>& value,
                    int64_t begin_ns);
  // Of a backup requested then.
  void answered_backup(const BackupView& backup, int64_t begin_ns);
  void answered_verification(std::string_view backup, const VerifyResult& verified) const;
  void answered_restore(std::string_view backup, const RestoreOutcome& restore) const;
  // Of restores from another cluster into this one.
  Restored& restored() { return restored_; }

  // --- Once all is healed ---

  void check_reads(ClusterClient& client) const;
  // Every completed backup that the cluster lists; and that this one is among them.
  void check_backups(ClusterClient& client, std::string_view last) const;
  void check_heads() const;
  // Of a host whose node has stopped.
  void check_stopped(Host& host) const;

 private:
  void check_backup(ClusterClient& client, const BackupView& backup) const;
  void check_versions(const std::string& backup, uint64_t cut,
                      const std::map<std::string, Record>& content) const;
  void check_restored(ClusterClient& client,
                      const std::map<std::string, std::string>& records) const;
  bool is_damage(std::string_view backup, std::string_view text) const;
  bool is_elsewhere(std::string_view backup, std::string_view text) const;
  void check_name(const std::string& head_key) const;
  void check_reason(const std::string& backup, std::string_view reason) const;

  World& world_;
  const std::string cluster_;
  History history_;
  Restored restored_;
  const Oracle* archives_ = this;
  struct Requested {
    int64_t begin_ns;
    int64_t end_ns;
  };
  std::map<std::string, Requested> requested_;  // completed backups, by UUID
  // Hosts whose part was damaged, by the backup's name.
  std::map<std::string, std::set<std::string>, std::less<>> damaged_;
  std::set<std::string> exchanged_;  // UUIDs of completed backups
  bool disks_fail_ = false;
  int64_t disks_failed_until_ns_ = 0;
  std::vector<Host*> copies_;  // that have answered in the place of their originals
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_ORACLE_H_

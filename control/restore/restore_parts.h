// The parts of one restore at work: those whose folders this process reads go through an exchange
// of its own, each other one is sent by the node that holds it, all at once. Confined to one
// thread; runs further ones.
#ifndef SLUICE_CONTROL_RESTORE_RESTORE_PARTS_H_
#define SLUICE_CONTROL_RESTORE_RESTORE_PARTS_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/peers/cluster_connection.h"
#include "control/proto/sluice.pb.h"
#include "control/restore/restore_runner.h"
#include "control/restore/restore_store.h"
#include "control/restore/results.h"

namespace sluice {

// What the folder of one part holds; `part` empty: of any part.
ArchivePartId part_id(const RestoreHead& head, const std::string& part);

// Of what another node says of its part: DATA_LOSS for a digest that does not decode, and for slots
// that neither an archive nor a cluster of so many slots has.
absl::Status check_result(const v1::RestorePartResult& result, uint32_t cluster_slots);

// The cluster that holds an archive.
class SourceCluster {
 public:
  // `url` empty: the restore's own cluster.
  static absl::StatusOr<std::unique_ptr<SourceCluster>> open(ClusterConnection& own,
                                                             const std::string& url);
  ClusterConnection& connection() { return other_ == nullptr ? own_ : *other_; }

 private:
  explicit SourceCluster(ClusterConnection& own) : own_(own) {}

  ClusterConnection& own_;
  std::unique_ptr<ClusterConnection> other_;
};

class RestoreParts {
 public:
  struct Options {
    size_t arena_bytes = 0;
    RestoreCallback progress;
    // Called now and then with what there is to store of it; must be quick.
    RestoreCallback store;
  };
  struct Work {
    bool retry = false;
    bool dry_run = false;
    bool check = false;
    std::set<uint32_t> check_slots;
  };
  // How one job ended: one or more parts.
  struct Ended {
    std::vector<std::string> parts;
    std::string list;  // generation of their retry lists
    absl::Status status;
    v1::RestorePartResult result;
  };
  RestoreParts(ClusterConnection& cluster, Options options)
      : cluster_(cluster), options_(std::move(options)) {}

  // The first error, when all have ended.
  absl::Status run(const RestoreHead& head, const Work& work, std::vector<Ended>* ended);

 private:
  // `together`: the parts whose directories this process reads.
  absl::Status run_here(const RestoreHead& head, const std::vector<std::string>& folders,
                        const std::vector<std::string>& together, const Work& work, Ended* ended);
  absl::Status run_there(const RestoreHead& head, const RestoreSource& source,
                         const std::vector<std::string>& together, const Work& work, Ended* ended);
  std::string next_list(const RestoreHead& head);
  void report(const std::string& part, uint64_t done, uint64_t total);
  RestoreProgress sum() const SLUICE_REQUIRES(mutex_);

  ClusterConnection& cluster_;
  const Options options_;
  Mutex mutex_;
  uint64_t calls_ SLUICE_GUARDED_BY(mutex_) = 0;
  size_t jobs_ SLUICE_GUARDED_BY(mutex_) = 0;
  // By part: bytes that it is done with, and of how many.
  std::map<std::string, std::pair<uint64_t, uint64_t>> passed_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_RESTORE_RESTORE_PARTS_H_

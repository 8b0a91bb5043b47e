// The archive parts of this node: where a reference leads, who reads them now, and their removal.
// The archive directory may hold anything else as well (parts of other nodes where it is shared,
// copies, a dead node's disk): nothing in it is touched that is not of this node and its cluster.
// Thread-safe.
#ifndef SLUICE_CONTROL_BACKUP_LOCAL_ARCHIVES_H_
#define SLUICE_CONTROL_BACKUP_LOCAL_ARCHIVES_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/peers/node_context.h"
#include "control/proto/common.pb.h"
#include "dataplane/archive/part_identity.h"

namespace sluice {

class LocalArchives {
 public:
  explicit LocalArchives(const NodeContext& context) : context_(context) {}

  // While it lives, the part is not removed. That the directory holds the part is for the reader to
  // compare: it opens the files.
  class Reading {
   public:
    Reading(LocalArchives& archives, ArchivePartId id, std::string directory, std::string purpose)
        : archives_(archives),
          id_(std::move(id)),
          directory_(std::move(directory)),
          purpose_(std::move(purpose)) {}
    ~Reading() { archives_.end_reading(id_.backup, purpose_); }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    const ArchivePartId& id() const { return id_; }
    const std::string& directory() const { return directory_; }

   private:
    LocalArchives& archives_;
    const ArchivePartId id_;
    const std::string directory_;
    const std::string purpose_;
  };
  // `purpose`: "a restore". INVALID_ARGUMENT for what names no part; FAILED_PRECONDITION for a part
  // of another node or cluster, and while the part is being removed.
  absl::StatusOr<std::unique_ptr<Reading>> read(const v1::ArchiveReference& reference,
                                                std::string_view purpose);

  // Whether the part is there. DATA_LOSS saying what is there instead; FAILED_PRECONDITION naming
  // who reads it.
  absl::StatusOr<bool> check(const v1::ArchiveReference& reference);

  // This node's part of the backup, as remove_part(). FAILED_PRECONDITION while it is being read;
  // UNAVAILABLE where the archive directory itself is not there.
  absl::Status remove(const std::string& backup_name, const ArchivePartId& id, Removable what);

 private:
  absl::StatusOr<ArchivePartId> own_id(const v1::ArchiveReference& reference) const;
  absl::StatusOr<std::string> directory_of(const std::string& backup_name) const;
  absl::Status check_idle_locked(const ArchivePartId& id) const SLUICE_REQUIRES(mutex_);
  void end_reading(const std::string& backup, const std::string& purpose);

  const NodeContext& context_;
  Mutex removal_ SLUICE_ACQUIRED_BEFORE(mutex_);  // one removal at a time
  Mutex mutex_;
  std::map<std::string, std::multiset<std::string>> readers_
      SLUICE_GUARDED_BY(mutex_);                              // by backup: purposes
  std::set<std::string> removing_ SLUICE_GUARDED_BY(mutex_);  // backups
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_BACKUP_LOCAL_ARCHIVES_H_

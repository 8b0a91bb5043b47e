// Which records of an archive a restore takes, and what they become in the cluster. Pure.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_MAPPING_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_MAPPING_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {

struct RestoreMapping {
  std::string prefix;  // only keys that begin with it
  bool renames = false;
  std::string renamed;  // where it renames: what takes the prefix's place
  // Where not the default: the version of every record but tombstones, in place of the archive's.
  // It is above all that was written before the restore began, so these records win over it; and
  // below all that is written later.
  Version restamp;

  bool restamps() const { return restamp != Version(); }
  // Whether blocks of the archive cannot be sent as they are.
  bool repacks() const { return renames || restamps() || !prefix.empty(); }
  bool takes(std::string_view key) const { return key.starts_with(prefix); }
  // The prefix of the keys in the cluster.
  const std::string& target_prefix() const { return renames ? renamed : prefix; }
  // Of a key that it takes. INVALID_ARGUMENT where the name would be empty or too long.
  absl::Status name(std::string_view key, std::string* into) const {
    into->assign(renames ? renamed : std::string_view());
    into->append(key.substr(renames ? prefix.size() : 0));
    if (!into->empty() && into->size() <= kMaxKeyBytes) return absl::OkStatus();
    return invalid_argument("a key of {} bytes has {} under its other name: 1 to {} are possible",
                            key.size(), into->size(), kMaxKeyBytes);
  }
  RecordSummary summary(RecordSummary archived) const {
    if (restamps() && !archived.tombstone) archived.version = restamp;
    return archived;
  }
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_MAPPING_H_

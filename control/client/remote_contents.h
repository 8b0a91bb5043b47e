// A backup whose parts a cluster's nodes hold.
#ifndef SLUICE_CONTROL_CLIENT_REMOTE_CONTENTS_H_
#define SLUICE_CONTROL_CLIENT_REMOTE_CONTENTS_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "control/contents/backup_contents.h"
#include "control/peers/cluster_connection.h"

namespace sluice {

// Of a completed backup, by name or UUID. The connection outlives it. A holder that breaks off, is
// late, or has cut a slow reader off is asked for what follows.
absl::StatusOr<std::unique_ptr<BackupContents>> open_remote_contents(ClusterConnection& cluster,
                                                                     std::string_view backup,
                                                                     const TreeChoice& choice = {});

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_REMOTE_CONTENTS_H_

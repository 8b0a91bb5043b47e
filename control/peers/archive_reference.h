// How the identity of an archive part travels: v1::ArchiveReference, used by every call that opens,
// checks or removes a part.
#ifndef SLUICE_CONTROL_PEERS_ARCHIVE_REFERENCE_H_
#define SLUICE_CONTROL_PEERS_ARCHIVE_REFERENCE_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "control/proto/common.pb.h"
#include "dataplane/archive/part_identity.h"

namespace sluice {

v1::ArchiveReference make_reference(const ArchivePartId& id, std::string_view backup_name);
// INVALID_ARGUMENT unless it names cluster, backup and node, and its digest is whole or left out.
absl::StatusOr<ArchivePartId> id_of(const v1::ArchiveReference& reference);

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_ARCHIVE_REFERENCE_H_

#include "control/peers/archive_reference.h"

#include "base/bytes.h"
#include "base/status.h"

namespace sluice {

v1::ArchiveReference make_reference(const ArchivePartId& id, std::string_view backup_name) {
  v1::ArchiveReference reference;
  reference.set_cluster(id.cluster);
  reference.set_backup(id.backup);
  reference.set_node(id.node);
  reference.set_name(backup_name.data(), backup_name.size());
  if (id.manifest_digest != Digest128()) {
    ByteWriter out(reference.mutable_manifest_digest());
    out.put(id.manifest_digest.low);
    out.put(id.manifest_digest.high);
  }
  return reference;
}

absl::StatusOr<ArchivePartId> id_of(const v1::ArchiveReference& reference) {
  ArchivePartId id{reference.cluster(), reference.backup(), reference.node(), {}};
  if (id.cluster.empty() || id.backup.empty() || id.node.empty()) {
    return invalid_argument("an archive part is named by cluster, backup and node");
  }
  if (reference.manifest_digest().empty()) return id;
  ByteReader in{std::string_view(reference.manifest_digest())};
  if (!in.get(&id.manifest_digest.low) || !in.get(&id.manifest_digest.high) || !in.done()) {
    return invalid_argument("a manifest digest of {} bytes: 16 expected",
                            reference.manifest_digest().size());
  }
  return id;
}

}  // namespace sluice

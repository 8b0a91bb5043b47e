// Puts anything in the place of one of a cluster block's documents, and has the block read by all
// that read it: as it is, and as the content of a whole document of that place's format. The first
// byte chooses the document. What cannot be read is an error that names a key.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/backup/backup_store.h"
#include "control/cluster_block/stored_document.h"
#include "control/membership/membership.h"
#include "control/membership/table_store.h"
#include "control/proto/documents.pb.h"
#include "control/restore/restore_jobs.h"
#include "control/restore/restore_store.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/stored_documents.h"

namespace {

using namespace sluice;
using namespace sluice::testing;

struct Stored {
  std::unique_ptr<ClusterBlock> block = make_stored_documents();
  std::vector<ClusterEntry> entries = block->list("")->entries;
};

Stored& stored() {
  static Stored made;
  return made;
}

// An error of a document names its key, or the prefix of several.
void check(const absl::Status& status, std::string_view place) {
  require_readable(status);
  if (status.code() != absl::StatusCode::kDataLoss) return;
  require(message_of(status).find(place) != std::string_view::npos);
}

void read_members(ClusterBlock& block) {
  if (const auto cluster = load_cluster(block); cluster.ok()) {
    require(cluster->slot_bits >= 1 && cluster->slot_bits <= 20 && cluster->replicas >= 1);
  } else {
    check(cluster.status(), kClusterKey);
  }
  check(list_members(block).status(), "n");
  check(find_member(block, kStoredNode).status(), kStoredNode);
}

void read_tables(ClusterBlock& block) {
  check(load_table(block).status(), "table/");
  check(load_table(block, 1).status(), "table/");
}

void read_backup(ClusterBlock& block) {
  check(list_backups(block).status(), "backup");
  const auto found = load_backup(block, kStoredBackupName);
  check(found.status(), "backup");
  (void)load_backup(block, kStoredBackup);
  check(load_progress(block, kStoredBackup).status(), kStoredBackup);
  check(load_progress_of(block, kStoredBackup, kStoredNode).status(), kStoredBackup);
  check(load_targets(block, kStoredBackup).status(), kStoredBackup);
  check(load_parts(block, kStoredBackup).status(), kStoredBackup);
  check(load_part(block, kStoredBackup, kStoredNode).status(), kStoredBackup);
  require(load_holders(block, kStoredBackup).ok());
  if (!found.ok()) return;
  check(load_plan(block, found->head).status(), kStoredBackup);
  check(load_plan_of(block, found->head, kStoredNode).status(), kStoredBackup);
  const auto details = load_details(block, found->head);
  check(details.status(), kStoredBackup);
  if (!details.ok()) return;
  v1::BackupDetails message;
  put(*details, &message);
  require(details_of(message).stages == details->stages);
}

void read_restore(ClusterBlock& block) {
  check(list_restores(block).status(), "restores/");
  const auto found = load_restore(block, kStoredRestore);
  check(found.status(), "restores/");
  if (!found.ok() || found->revision == 0) return;
  // What is taken can be stored again, and is the same then.
  const std::string encoded = encode(found->head);
  require(block.put(restore_head_key(kStoredRestore), encoded).ok());
  const auto again = load_restore(block, kStoredRestore);
  require(again.ok() && encode(again->head) == encoded);
  const auto progress = load_progress(block, fence_of(*found), kStoredPart);
  check(progress.status(), kStoredRestore);
  if (progress.ok()) {
    for (const auto& [slot, durable] : progress->slots()) {
      require(slot >> kMaxSlotBits == 0);
      for (const uint32_t holder : durable.holders) (void)progress->store(holder).node.size();
    }
  }
  check(load_failed_units(block, found->head, kStoredPart).status(), kStoredRestore);
  check(load_position(block, found->head).status(), kStoredRestore);
  const auto views = view_restores(block);
  check(views.status(), kStoredRestore);
  if (!views.ok()) return;
  for (const RestoreView& view : *views) {
    require(!view.seconds_left.has_value() || *view.seconds_left >= 0);
  }
}

// What does not decode is left out.
void read_orphans(ClusterBlock& block) {
  const auto orphans = list_orphans(block);
  require(orphans.ok());
  for (const OrphanedPart& orphan : *orphans) require(forget_orphan(block, orphan).ok());
}

void read_all(const ClusterEntry& place, std::string_view document) {
  ClusterBlock& block = *stored().block;
  if (!block.put(place.key, document).ok()) return;  // larger than a document may be
  if (place.key.starts_with("restore")) {
    read_restore(block);
  } else if (place.key.starts_with("backup")) {
    read_backup(block);
  } else if (place.key.starts_with("orphans")) {
    read_orphans(block);
  } else if (place.key.starts_with("table")) {
    read_tables(block);
  } else {
    read_members(block);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const ClusterEntry& place = stored().entries[data[0] % stored().entries.size()];
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  read_all(place, body);
  v1::StoredDocument whole;
  // Any message keeps what it does not know: the body goes through as it is.
  v1::StoredDocument any;
  if (whole.ParseFromString(place.value) && any.ParseFromString(body)) {
    read_all(place, encode_document(whole.format(), any));
  }
  require(stored().block->put(place.key, place.value).ok());
  return 0;
}

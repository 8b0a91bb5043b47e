#include "tests/fuzz/stored_documents.h"

#include "control/backup/backup_deletion.h"
#include "control/backup/backup_details.h"
#include "control/backup/backup_store.h"
#include "control/backup/documents.h"
#include "control/cluster_block/memory_cluster_block.h"
#include "control/membership/documents.h"
#include "control/membership/membership.h"
#include "control/membership/table_store.h"
#include "control/restore/restore_store.h"
#include "tests/fuzz/oracle.h"

namespace sluice::testing {
namespace {

void put_members(ClusterBlock& block) {
  ClusterInfo cluster;
  cluster.uuid = "00000000-0000-4000-8000-000000000000";
  cluster.slot_bits = 4;
  cluster.replicas = 2;
  require(create_cluster(block, cluster).ok());
  TableInput table;
  table.slot_bits = cluster.slot_bits;
  table.replicas = cluster.replicas;
  for (const char* name : {"n1", "n2", "n3"}) {
    NodeInfo node;
    node.name = name;
    node.number = static_cast<uint32_t>(table.members.size()) + 1;
    node.store_id = "store";
    node.control_address = "127.0.0.1:7001";
    node.data_address = "127.0.0.1:7002";
    node.driver = "tcp";
    node.incarnation = 1;
    table.members.push_back({node.name, node.number, 1, ""});
    require(block.put(node_key(name), encode(node)).ok());
    require(block.put(live_key(name), encode(LiveInfo{"i", "store", 1, 17, "lock"})).ok());
    require(block
                .put(store_key(name),
                     encode(StoreInfo{"store", 1, "token", 2, 3, "lock", "process", 4, true}))
                .ok());
  }
  const auto made = compute_table(nullptr, table);
  require(made.ok() && publish_table(block, made->table).ok());
}

void put_backup(ClusterBlock& block) {
  BackupHead head;
  head.uuid = kStoredBackup;
  head.name = kStoredBackupName;
  head.state = BackupState::kEnabled;
  head.coordinator = kStoredNode;
  head.slot_bits = 4;
  head.cut = 77;
  head.epoch = 1;
  head.parts = 2;
  head.plan_attempt = head.attempt;
  const std::vector<std::string> chunks =
      encode_plan(some_plan(), kStoredBackup, head.plan_attempt);
  head.plan_chunks = static_cast<uint32_t>(chunks.size());
  for (uint32_t i = 0; i < head.plan_chunks; ++i) {
    require(block.put(backup_plan_key(kStoredBackup, head.plan_attempt, i), chunks[i]).ok());
  }
  require(create_backup(block, head).ok());
  NodeProgress progress;
  progress.node = kStoredNode;
  progress.attempt = head.attempt;
  progress.stages = {{kStoredNode, DataStage::kWire, 1, 2, 3, 4}};
  require(store_progress(block, kStoredBackup, progress).ok());
  auto changes = part_changes(block, kStoredBackup, {{"n1", "/a"}, {"n3", "/b"}});
  require(changes.ok());
  changes->push_back(stages_put(kStoredBackup, progress.stages));
  require(block.commit(*changes).ok());
  const auto targets = targets_put(kStoredBackup, {"n1", "n3"});
  require(targets.ok() && block.commit(*targets).ok());
}

void put_restore(ClusterBlock& block) {
  RestoreHead head;
  head.id = kStoredRestore;
  head.backup = kStoredBackup;
  head.name = kStoredBackupName;
  head.attempt = 1;
  head.driven = true;
  head.progress = 1;
  head.lists = {{kStoredPart, "1"}};
  head.sources = {{"n1", "n1", ""}};
  head.mapping = {"docs/", true, "copy/", {77, 3}};
  head.on_conflict = OnConflict::kArchive;
  head.delete_extra = true;
  const auto revision = block.put(restore_head_key(kStoredRestore), encode(head));
  require(revision.ok());
  const RestoreFence fence = fence_of({head, *revision});
  DurableSlots slots;
  slots.add({1, 1, {}, {{"n1", "store"}, {"n2", "store"}}});
  slots.add({2, 1, {5, 2, 0}, {{"n1", "store"}}});
  require(store_progress(block, fence, kStoredPart, 0, encode_progress(slots, 0)).ok());
  require(store_failed_units(block, system_clock(), fence, kStoredPart, "1",
                             {{kStoredPart, 3, 0, 2, "n2", "it is gone", false, 4, 1}})
              .ok());
  require(store_position(block, fence, {"restoring", 1, 2, 3, 4}).ok());
}

// A part of a backup that is gone.
void put_orphan(ClusterBlock& block) {
  BackupHead head;
  head.uuid = "00000000-0000-4000-8000-000000000003";
  head.name = "gone";
  head.deleting = true;
  head.state = BackupState::kCancelled;
  require(abandon_part(block, head, kStoredNode, 7).ok());
}

}  // namespace

Plan some_plan() {
  Plan plan;
  for (const char* name : {"n1", "n2", "n3"}) {
    plan.nodes.push_back({name, 1e9, 2e9});
    plan.loads.push_back({1, 2, 3});
  }
  plan.targets = {0, 2};
  for (uint32_t s = 0; s < 6; ++s) {
    SlotPlan slot;
    slot.slot = s;
    slot.agreed = s % 3 != 0;
    slot.target = s % 2 * 2;
    slot.first_copy = static_cast<uint32_t>(plan.copies.size());
    slot.copies = 2;
    plan.copies.push_back({0, s});
    plan.copies.push_back({1, s});
    if (slot.agreed) slot.expected.records = s;
    ++(slot.agreed ? plan.slots_agreed : plan.slots_divergent);
    plan.slots.push_back(slot);
  }
  return plan;
}

std::unique_ptr<ClusterBlock> make_stored_documents() {
  auto block = make_memory_cluster_block();
  put_members(*block);
  put_backup(*block);
  put_restore(*block);
  put_orphan(*block);
  return block;
}

}  // namespace sluice::testing

#include "control/backup/documents.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "base/status.h"
#include "control/backup/backup_store.h"
#include "control/backup/plan_reader.h"
#include "control/cluster_block/memory_cluster_block.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

BackupHead some_head(const std::string& name = "nightly") {
  BackupHead head;
  head.uuid = make_uuid();
  head.name = name;
  head.coordinator = "n1";
  head.attempt = 2;
  head.cut = UINT64_MAX;
  head.epoch = 5;
  head.slot_bits = 12;
  head.makespan_s = 1.25;
  head.lower_bound_s = 1;
  head.totals = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, {11, 12, 13}};
  head.parts = 3;
  head.manifest_digest = {1, 2};
  head.created_ms = 17;
  head.changed_ms = -1;
  head.elapsed_ms = 18;
  head.error = "bad \"thing\"\n";
  return head;
}

Plan some_plan(uint32_t slots, uint32_t nodes = 3) {
  Random random(1);
  Plan plan;
  for (uint32_t n = 0; n < nodes; ++n) {
    plan.nodes.push_back({"n" + std::to_string(n), 1e6 / (n + 3), 1e9 / 7});
    plan.loads.push_back({n, n + 1, n + 2});
  }
  plan.targets = {0, 2};
  for (uint32_t s = 0; s < slots; ++s) {
    SlotPlan slot;
    slot.slot = 2 * s;
    slot.agreed = s % 7 != 0;
    slot.target = s % 2 * 2;
    slot.first_copy = static_cast<uint32_t>(plan.copies.size());
    slot.copies = 3;
    for (uint32_t n = 0; n < 3; ++n) plan.copies.push_back({n, random.next()});
    if (slot.agreed) {
      slot.sender = s % 3;
      slot.expected = {{random.next(), random.next()}, random.next(), 1, 2};
      ++plan.slots_agreed;
    } else {
      ++plan.slots_divergent;
    }
    plan.slots.push_back(slot);
  }
  plan.makespan_s = 0.1;
  plan.lower_bound_s = 1.0 / 3;
  plan.slots_empty = 4;
  return plan;
}

std::vector<std::string> keys_for(const std::vector<std::string>& chunks) {
  std::vector<std::string> keys;
  for (uint32_t i = 0; i < chunks.size(); ++i) keys.push_back(backup_plan_key("u", 1, i));
  return keys;
}

TEST(ScheduleDocuments, RoundTrip) {
  const BackupHead head = some_head();
  const auto decoded = decode_backup_head(backup_head_key(head.uuid), encode(head));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, head);
  NodeProgress progress;
  progress.node = "n1";
  progress.attempt = 3;
  progress.source_state = BackupState::kSent;
  progress.target_state = BackupState::kConsolidated;
  progress.sent_slots = 1;
  progress.repeated_bytes = 8;
  progress.dropped_bytes = 9;
  progress.divergence = {1, 2, 3};
  progress.stages = {{"n3", DataStage::kScan, 1, 2, 3, 0}, {"n3", DataStage::kDisk, 4, 50, 6, 7}};
  progress.error = "x";
  EXPECT_EQ(*decode_node_progress(backup_progress_key("u", "n1"), encode(progress)), progress);
}

TEST(ScheduleDocuments, HostileInputIsDataLossNamingTheKey) {
  const BackupHead head = some_head();
  const std::string key = backup_head_key(head.uuid);
  const std::string good = encode(head);
  for (size_t i = 0; i < good.size(); ++i) {
    const absl::Status status = decode_backup_head(key, good.substr(0, i)).status();
    ASSERT_TRUE(absl::IsDataLoss(status)) << i;
    ASSERT_NE(message_of(status).find(key), std::string_view::npos) << status;
  }
  // Whole, and wrong.
  const auto refuses = [&](const char* what, const auto& change) {
    v1::BackupDocument document;
    ASSERT_TRUE(decode_document(key, good, "sluice.backup.5", &document).ok());
    change(document);
    const absl::Status status =
        decode_backup_head(key, encode_document("sluice.backup.5", document)).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << what;
    EXPECT_NE(message_of(status).find(key), std::string_view::npos) << status;
  };
  refuses("state", [](auto& document) { document.set_state("planing"); });
  refuses("name", [](auto& document) { document.set_name("../x"); });
  refuses("uuid", [](auto& document) { document.set_uuid(make_uuid()); });
  refuses("digest", [](auto& document) { document.set_manifest_digest("short"); });
  refuses("deleting", [](auto& document) { document.set_deleting(true); });
  refuses("time", [](auto& document) { document.set_makespan_s(NAN); });
  // Of another format, and of a later one.
  EXPECT_TRUE(absl::IsDataLoss(decode_backup_head(key, encode(NodeProgress())).status()));
  const absl::Status later =
      decode_backup_head(key, encode_document("sluice.backup.6", v1::BackupDocument())).status();
  EXPECT_NE(
      message_of(later).find("has format 'sluice.backup.6', this build reads 'sluice.backup.5'"),
      std::string_view::npos)
      << later;
  // Any changed byte is noticed.
  for (size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = static_cast<char>(changed[i] ^ 4);
    EXPECT_FALSE(decode_backup_head(key, changed).ok()) << i;
  }
  Random random(2);
  for (int i = 0; i < 3000; ++i) {
    std::string noisy = good;
    for (int k = 0; k < 3; ++k)
      noisy[random.below(noisy.size())] = static_cast<char>(random.next());
    decode_backup_head(key, noisy).IgnoreError();  // must not crash
  }
}

TEST(ScheduleDocuments, BackupNames) {
  for (const std::string& name :
       std::vector<std::string>{"a", "Nightly-2024.01_x", std::string(128, 'x')}) {
    EXPECT_TRUE(check_backup_name(name).ok());
  }
  for (const std::string& name :
       std::vector<std::string>{"", ".", "-x", "a/b", "a b", std::string(129, 'x'), make_uuid()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(check_backup_name(name)));
  }
}

// As a coordinator does, in more commits.
void store_plan(ClusterBlock& block, const Plan& plan, BackupHead* head) {
  const PlanChunks chunks = cut_plan(head->uuid, head->attempt, plan);
  for (const auto* ops : {&chunks.before_head, &chunks.with_head}) {
    for (const ClusterOp& op : *ops) ASSERT_TRUE(block.commit({op}).ok());
  }
  head->plan_chunks = chunks.count;
  head->plan_attempt = head->attempt;
}

TEST(PlanDocument, RoundTripsInChunks) {
  for (const uint32_t slots : {0u, 1u, 20'000u}) {
    Plan plan = some_plan(slots);
    SlotPlan tree;
    tree.slot = tree_slot(3, 5);
    tree.agreed = tree.told = true;
    tree.expected.records = 7;
    tree.expected.bytes = 8;
    tree.first_copy = static_cast<uint32_t>(plan.copies.size());
    tree.copies = 1;
    plan.copies.push_back({1, 9});
    plan.slots.push_back(tree);
    ++plan.slots_agreed;
    const auto chunks = encode_plan(plan, "u", 1);
    if (slots == 20000) {
      EXPECT_GT(chunks.size(), 3u);
    }
    for (const std::string& chunk : chunks) EXPECT_LT(chunk.size(), kMaxScheduleChunkBytes);
    const auto decoded = decode_plan("u", 1, keys_for(chunks), chunks);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, plan);
  }
  Plan wide = some_plan(10, 20'000);
  for (uint32_t n = 3; n < 20'000; ++n) wide.targets.push_back(n);
  wide.fan = 3;
  wide.largest_fan_in = 2;
  wide.largest_fan_out = 1;
  const auto chunks = encode_plan(wide, "u", 1);
  for (const std::string& chunk : chunks) EXPECT_LT(chunk.size(), kMaxScheduleChunkBytes);
  EXPECT_EQ(*decode_plan("u", 1, keys_for(chunks), chunks), wide);
}

// A node reads few chunks, and finds all that it sends and receives in them.
TEST(PlanDocument, ANodeReadsItsPart) {
  Random random(6);
  Plan plan;
  for (uint32_t n = 0; n < 300; ++n) {
    plan.nodes.push_back({"n" + std::to_string(n), 1, 1});
    plan.loads.push_back({});
    plan.targets.push_back(n);
  }
  for (uint32_t s = 0; s < 20'000; ++s) {
    SlotPlan slot;
    slot.slot = s;
    slot.agreed = s % 50 != 0;
    slot.target = static_cast<uint32_t>(random.below(300));
    slot.first_copy = static_cast<uint32_t>(plan.copies.size());
    slot.copies = 3;
    // Mostly its target sends it.
    for (uint32_t c = 0; c < 3; ++c) plan.copies.push_back({(slot.target + c * 7) % 300, 1000 + s});
    if (slot.agreed) {
      slot.sender = s % 20 == 1 ? 1 : 0;
      slot.expected.records = 1;
      ++plan.slots_agreed;
    } else {
      ++plan.slots_divergent;
    }
    plan.slots.push_back(slot);
  }
  const auto block = make_memory_cluster_block();
  BackupHead head = some_head();
  auto stored = create_backup(*block, head);
  ASSERT_TRUE(stored.ok()) << stored.status();
  store_plan(*block, plan, &head);
  EXPECT_EQ(*load_plan(*block, head), plan);
  for (const uint32_t node : {0u, 5u, 150u, 299u}) {
    const auto part = load_plan_of(*block, head, plan.nodes[node].name);
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_EQ(part->nodes, plan.nodes);
    EXPECT_LT(part->slots.size(), plan.slots.size() / 2);
    for (const SlotPlan& slot : plan.slots) {
      const auto senders = plan.senders_of(slot);
      if (slot.target != node && std::none_of(senders.begin(), senders.end(),
                                              [&](const PlanCopy& c) { return c.node == node; })) {
        continue;
      }
      const SlotPlan* own = part->find(slot.slot);
      ASSERT_NE(own, nullptr) << slot.slot;
      EXPECT_EQ(own->target, slot.target);
      const auto copies = plan.copies_of(slot);
      const auto own_copies = part->copies_of(*own);
      EXPECT_TRUE(std::equal(copies.begin(), copies.end(), own_copies.begin(), own_copies.end()));
    }
  }
  EXPECT_TRUE(load_plan_of(*block, head, "a stranger")->slots.empty());
}

TEST(PlanDocument, HostileInputIsDataLossNamingTheKey) {
  const auto chunks = encode_plan(some_plan(12'000), "u", 1);
  ASSERT_GT(chunks.size(), 2u);
  const auto keys = keys_for(chunks);
  const auto refused = [&](const std::vector<std::string>& changed, const std::string& named) {
    const absl::Status status = decode_plan("u", 1, keys_for(changed), changed).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_NE(message_of(status).find(named), std::string_view::npos) << status;
  };
  auto swapped = chunks;
  std::swap(swapped[0], swapped[1]);
  refused(swapped, keys[0]);
  auto shorter = chunks;
  shorter.pop_back();
  refused(shorter, keys[0]);
  auto garbage = chunks;
  garbage[1] = "garbage";
  refused(garbage, keys[1]);
  auto repeated = chunks;
  repeated[2] = repeated[1];
  refused(repeated, keys[2]);
  EXPECT_TRUE(absl::IsDataLoss(decode_plan("u", 2, keys, chunks).status()));
  EXPECT_TRUE(absl::IsDataLoss(decode_plan("v", 1, keys, chunks).status()));
  EXPECT_TRUE(absl::IsDataLoss(decode_plan("u", 1, {}, {}).status()));

  const auto small = encode_plan(some_plan(8), "u", 1);
  ASSERT_EQ(small.size(), 1u);
  const auto refuses = [&](const char* what, const auto& change) {
    SCOPED_TRACE(what);
    v1::PlanChunk chunk;
    ASSERT_TRUE(decode_document(keys[0], small[0], kPlanFormat, &chunk).ok());
    change(chunk);
    refused({encode_document(kPlanFormat, chunk)}, keys[0]);
  };
  // Slots are sent to it.
  refuses("no target", [](auto& chunk) { chunk.mutable_nodes(0)->set_is_target(false); });
  refuses("no target", [](auto& chunk) { chunk.mutable_slots(1)->set_target(3); });
  refuses("no sender",
          [](auto& chunk) { chunk.mutable_slots(2)->mutable_agreed()->set_sender(3); });
  refuses("not agreed", [](auto& chunk) { chunk.mutable_slots(2)->clear_agreed(); });
  refuses("no digest",
          [](auto& chunk) { chunk.mutable_slots(2)->mutable_agreed()->set_sum("short"); });
  refuses("slot twice", [](auto& chunk) { chunk.mutable_slots(1)->set_slot(0); });
  refuses("tree's, with a digest", [](auto& chunk) { chunk.mutable_slots(1)->set_slot(1 << 20); });
  refuses("no tree's",
          [](auto& chunk) { chunk.mutable_slots(2)->mutable_agreed()->set_told(true); });
  refuses("copy twice",
          [](auto& chunk) { chunk.mutable_slots(1)->mutable_copies(1)->set_node(0); });
  refuses("no node", [](auto& chunk) { chunk.mutable_slots(1)->mutable_copies(1)->set_node(9); });
  refuses("no copies", [](auto& chunk) { chunk.mutable_slots(1)->clear_copies(); });
  refuses("no rate", [](auto& chunk) { chunk.mutable_nodes(0)->set_send_rate(0); });
  refuses("no rate", [](auto& chunk) { chunk.mutable_nodes(1)->set_receive_rate(INFINITY); });
  refuses("counts", [](auto& chunk) { chunk.mutable_summary()->set_slots_agreed(7); });
  refuses("chunks", [](auto& chunk) { chunk.mutable_summary()->set_node_chunks(2); });
  refuses("summary", [](auto& chunk) { chunk.clear_summary(); });
  refuses("chunk", [](auto& chunk) { chunk.mutable_nodes(0)->add_slot_chunks(1); });
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string noisy = small[0];
    noisy[random.below(noisy.size())] = static_cast<char>(random.next());
    decode_plan("u", 1, {keys[0]}, {noisy}).IgnoreError();  // must not crash
  }
}

TEST(BackupStore, ABackupsLife) {
  const auto block = make_memory_cluster_block();
  BackupHead head = some_head();
  auto stored = create_backup(*block, head);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_TRUE(absl::IsAlreadyExists(create_backup(*block, some_head()).status()));
  EXPECT_EQ(load_backup(*block, "nightly")->head, head);
  EXPECT_EQ(load_backup(*block, head.uuid)->head, head);
  EXPECT_TRUE(absl::IsNotFound(load_backup(*block, "other").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(load_plan(*block, head).status()));

  const Plan plan = some_plan(60'000);
  const PlanChunks chunks = cut_plan(head.uuid, head.attempt, plan);
  EXPECT_EQ(chunks.count, chunks.before_head.size()) << "all of it fits into the head's commit";
  store_plan(*block, plan, &head);
  head.state = BackupState::kEnabled;
  StoredBackup stale = *stored;
  ASSERT_TRUE(update_backup(*block, *stored, head).ok());
  EXPECT_EQ(*load_plan(*block, head), plan);
  EXPECT_TRUE(absl::IsAborted(update_backup(*block, stale, head)));
  BackupHead jump = head;
  jump.state = BackupState::kCompleted;
  EXPECT_TRUE(absl::IsFailedPrecondition(update_backup(*block, *stored, jump)));
  BackupHead older = head;
  older.attempt = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(update_backup(*block, *stored, older)));

  NodeProgress progress;
  progress.node = "n1";
  progress.attempt = 2;
  progress.sent_slots = 5;
  ASSERT_TRUE(store_progress(*block, head.uuid, progress).ok());
  progress.attempt = 1;
  EXPECT_TRUE(absl::IsAborted(store_progress(*block, head.uuid, progress)));
  EXPECT_EQ(load_progress(*block, head.uuid)->at(0).sent_slots, 5u);

  head.state = BackupState::kFailed;
  ASSERT_TRUE(update_backup(*block, *stored, head).ok());
  head.state = BackupState::kEnabled;
  EXPECT_TRUE(absl::IsFailedPrecondition(update_backup(*block, *stored, head)));
  head.attempt = 3;
  EXPECT_TRUE(update_backup(*block, *stored, head).ok());
  progress.attempt = 2;
  EXPECT_TRUE(absl::IsAborted(store_progress(*block, head.uuid, progress)));

  ASSERT_TRUE(erase_backup(*block, head.uuid).ok());
  EXPECT_TRUE(absl::IsNotFound(erase_backup(*block, head.uuid)));
  EXPECT_TRUE(block->list("")->entries.empty());
}

// Until the head names it, nothing of a small plan is stored.
TEST(BackupStore, ASmallPlanIsStoredWithItsHead) {
  const auto block = make_memory_cluster_block();
  BackupHead head = some_head();
  auto stored = create_backup(*block, head);
  ASSERT_TRUE(stored.ok()) << stored.status();
  const Plan plan = some_plan(3000);
  const PlanChunks chunks = cut_plan(head.uuid, head.attempt, plan);
  EXPECT_EQ(chunks.count, chunks.with_head.size());
  EXPECT_TRUE(chunks.before_head.empty());
  store_plan(*block, plan, &head);
  EXPECT_EQ(*load_plan(*block, head), plan);
}

TEST(BackupStore, OneDamagedHeadDoesNotHideTheOthers) {
  const auto block = make_memory_cluster_block();
  BackupHead first = some_head("first");
  first.created_ms = 2;
  BackupHead second = some_head("second");
  second.created_ms = 1;
  ASSERT_TRUE(create_backup(*block, first).ok());
  ASSERT_TRUE(create_backup(*block, second).ok());
  const std::string bad = make_uuid();
  ASSERT_TRUE(block->put(backup_head_key(bad), "{}").ok());
  const auto list = list_backups(*block);
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->backups.size(), 2u);
  EXPECT_EQ(list->backups[0].head.name, "second");
  ASSERT_EQ(list->unreadable.size(), 1u);
  EXPECT_NE(message_of(list->unreadable[0].status).find(bad), std::string_view::npos);
  EXPECT_EQ(list->unreadable[0].uuid, bad);
  EXPECT_EQ(list->unreadable[0].name, "");
  ASSERT_TRUE(block->put(backup_head_key(first.uuid), "{}").ok());
  const auto both = list_backups(*block);
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->unreadable.size(), 2u);
  EXPECT_EQ(*find_backup(*block, "first"), first.uuid);
  EXPECT_EQ(*find_backup(*block, first.uuid), first.uuid);
  EXPECT_TRUE(absl::IsNotFound(find_backup(*block, "third").status()));
  for (const UnreadableBackup& each : both->unreadable) {
    EXPECT_EQ(each.name, each.uuid == first.uuid ? "first" : "");
  }
  ASSERT_TRUE(erase_backup(*block, first.uuid).ok());
  ASSERT_TRUE(erase_backup(*block, bad).ok());
  EXPECT_TRUE(list_backups(*block)->unreadable.empty());
}

TEST(States, NamesAndTransitions) {
  using enum BackupState;
  const std::vector<BackupState> all{kPlanning,     kEnabled,   kSent,   kCopyCompleted,
                                     kConsolidated, kCompleted, kFailed, kCancelled};
  const std::vector<std::string> names{"planning",     "enabled",   "sent",   "copy_completed",
                                       "consolidated", "completed", "failed", "cancelled"};
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(name_of(all[i]), names[i]);
    EXPECT_EQ(backup_state_named(names[i]), all[i]);
    EXPECT_TRUE(is_legal(all[i], all[i]));
  }
  EXPECT_EQ(backup_state_named("Enabled"), std::nullopt);
  for (size_t i = 0; i + 1 < 6; ++i) EXPECT_TRUE(is_legal(all[i], all[i + 1]));
  for (size_t i = 0; i < 6; ++i) {
    for (size_t j = i + 2; j < 6; ++j) EXPECT_FALSE(is_legal(all[i], all[j]));
  }
  for (const BackupState terminal : {kCompleted, kCancelled}) {
    for (const BackupState to : all) EXPECT_EQ(is_legal(terminal, to), to == terminal);
  }
  EXPECT_TRUE(is_legal(kSent, kEnabled));
  EXPECT_TRUE(is_legal(kFailed, kEnabled));
  EXPECT_FALSE(is_legal(kFailed, kSent));
  EXPECT_FALSE(is_legal(kConsolidated, kEnabled));
  const absl::Status status = check_transition(kCompleted, kPlanning);
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_NE(message_of(status).find("completed to planning"), std::string_view::npos);
}

}  // namespace
}  // namespace sluice

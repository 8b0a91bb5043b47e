#include "control/backup/documents.h"

#include <cmath>

#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/stored_document.h"
#include "control/membership/documents.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

constexpr char kHeadFormat[] = "sluice.backup.5";
constexpr char kProgressFormat[] = "sluice.progress.2";
constexpr int kMaxStagesOfNode = 64;

void put(const Divergence& divergence, v1::Divergence* to) {
  to->set_stale(divergence.stale);
  to->set_missing(divergence.missing);
  to->set_conflicting(divergence.conflicting);
}

Divergence divergence_of(const v1::Divergence& from) {
  return {from.stale(), from.missing(), from.conflicting()};
}

void put(const BackupTotals& totals, v1::BackupTotals* to) {
  to->set_records(totals.records);
  to->set_bytes(totals.bytes);
  to->set_wire_bytes(totals.wire_bytes);
  to->set_local_bytes(totals.local_bytes);
  to->set_repeated_bytes(totals.repeated_bytes);
  to->set_dropped_bytes(totals.dropped_bytes);
  to->set_slots(totals.slots);
  to->set_slots_agreed(totals.slots_agreed);
  to->set_slots_divergent(totals.slots_divergent);
  to->set_slots_empty(totals.slots_empty);
  put(totals.divergence, to->mutable_divergence());
}

BackupTotals totals_of(const v1::BackupTotals& from) {
  BackupTotals totals;
  totals.records = from.records();
  totals.bytes = from.bytes();
  totals.wire_bytes = from.wire_bytes();
  totals.local_bytes = from.local_bytes();
  totals.repeated_bytes = from.repeated_bytes();
  totals.dropped_bytes = from.dropped_bytes();
  totals.slots = from.slots();
  totals.slots_agreed = from.slots_agreed();
  totals.slots_divergent = from.slots_divergent();
  totals.slots_empty = from.slots_empty();
  totals.divergence = divergence_of(from.divergence());
  return totals;
}

v1::BackupDocument to_document(const BackupHead& head) {
  v1::BackupDocument document;
  document.set_uuid(head.uuid);
  document.set_name(head.name);
  document.set_state(std::string(name_of(head.state)));
  document.set_coordinator(head.coordinator);
  document.set_attempt(head.attempt);
  document.set_cut(head.cut);
  document.set_epoch(head.epoch);
  document.set_slot_bits(head.slot_bits);
  document.set_plan_chunks(head.plan_chunks);
  document.set_plan_attempt(head.plan_attempt);
  document.set_makespan_s(head.makespan_s);
  document.set_lower_bound_s(head.lower_bound_s);
  put(head.totals, document.mutable_totals());
  document.set_parts(head.parts);
  document.set_manifest_digest(digest_bytes(head.manifest_digest));
  document.set_deleting(head.deleting);
  document.set_created_ms(head.created_ms);
  document.set_changed_ms(head.changed_ms);
  document.set_elapsed_ms(head.elapsed_ms);
  document.set_error(head.error);
  return document;
}

// All but the fields that can be wrong.
BackupHead head_of(const v1::BackupDocument& from) {
  BackupHead head;
  head.uuid = from.uuid();
  head.name = from.name();
  head.coordinator = from.coordinator();
  head.attempt = from.attempt();
  head.cut = from.cut();
  head.epoch = from.epoch();
  head.slot_bits = from.slot_bits();
  head.plan_chunks = from.plan_chunks();
  head.plan_attempt = from.plan_attempt();
  head.makespan_s = from.makespan_s();
  head.lower_bound_s = from.lower_bound_s();
  head.totals = totals_of(from.totals());
  head.parts = from.parts();
  head.deleting = from.deleting();
  head.created_ms = from.created_ms();
  head.changed_ms = from.changed_ms();
  head.elapsed_ms = from.elapsed_ms();
  head.error = from.error();
  return head;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

// Who looks a backup up by its UUID must never find one that is only called so.
bool looks_like_uuid(std::string_view name) {
  if (name.size() != 36) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = name[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (dash ? c != '-' : !hex) return false;
  }
  return true;
}

}  // namespace

std::string backup_head_key(std::string_view uuid) {
  return fmt::format("{}{}", kBackupsPrefix, uuid);
}
std::string backup_name_key(std::string_view name) {
  return fmt::format("{}{}", kBackupNamesPrefix, name);
}
std::string backup_folder_key(std::string_view uuid) { return fmt::format("backup/{}/", uuid); }
std::string backup_plan_key(std::string_view uuid, uint64_t attempt, uint32_t chunk) {
  return fmt::format("{}plan/{:010}/{:05}", backup_folder_key(uuid), attempt, chunk);
}
std::string backup_progress_prefix(std::string_view uuid) {
  return backup_folder_key(uuid) + "progress/";
}
std::string backup_progress_key(std::string_view uuid, std::string_view node) {
  return backup_progress_prefix(uuid).append(node);
}

absl::Status check_backup_name(std::string_view name) {
  if (looks_like_uuid(name)) {
    return invalid_argument("backup name '{}': a name must not look like a UUID", name);
  }
  bool good = !name.empty() && name.size() <= 128 && name[0] != '.' && name[0] != '-';
  for (const char c : name) good = good && is_name_character(c);
  if (good) return absl::OkStatus();
  return invalid_argument(
      "backup name '{}': a name has 1 to 128 of the characters A-Z a-z 0-9 . _ - and begins with "
      "neither dot nor dash",
      printable(name));
}

Divergence& Divergence::operator+=(const Divergence& other) {
  stale += other.stale;
  missing += other.missing;
  conflicting += other.conflicting;
  return *this;
}

std::string encode(const BackupHead& head) {
  return encode_document(kHeadFormat, to_document(head));
}

absl::StatusOr<BackupHead> decode_backup_head(std::string_view key, std::string_view bytes) {
  v1::BackupDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(key, bytes, kHeadFormat, &document));
  const auto damaged = [&](std::string_view what) { return damaged_document(key, what); };
  BackupHead head = head_of(document);
  const auto state = backup_state_named(document.state());
  if (!state.has_value()) return damaged("unknown state");
  head.state = *state;
  if (!read_digest(document.manifest_digest(), &head.manifest_digest)) {
    return damaged("the manifest digest has the wrong length");
  }
  if (!std::isfinite(head.makespan_s) || !std::isfinite(head.lower_bound_s)) {
    return damaged("the plan's times are not finite");
  }
  if (key != backup_head_key(head.uuid)) return damaged("it belongs to another backup");
  if (head.deleting && head.state != BackupState::kCancelled) {
    return damaged("marked as being deleted, but not cancelled");
  }
  if (!check_backup_name(head.name).ok()) return damaged("invalid backup name");
  return head;
}

std::string encode(const NodeProgress& progress) {
  v1::ProgressDocument document;
  document.set_node(progress.node);
  document.set_attempt(progress.attempt);
  document.set_source_state(std::string(name_of(progress.source_state)));
  document.set_target_state(std::string(name_of(progress.target_state)));
  document.set_sent_slots(progress.sent_slots);
  document.set_sent_bytes(progress.sent_bytes);
  document.set_local_bytes(progress.local_bytes);
  document.set_done_slots(progress.done_slots);
  document.set_done_bytes(progress.done_bytes);
  document.set_received_bytes(progress.received_bytes);
  document.set_repeated_bytes(progress.repeated_bytes);
  document.set_dropped_bytes(progress.dropped_bytes);
  document.set_records(progress.records);
  put(progress.divergence, document.mutable_divergence());
  put(progress.stages, document.mutable_stages());
  for (const std::string& tree : progress.trees) document.add_trees()->ParseFromString(tree);
  document.set_changed_ms(progress.changed_ms);
  document.set_error(progress.error);
  return encode_document(kProgressFormat, document);
}

absl::StatusOr<NodeProgress> decode_node_progress(std::string_view key, std::string_view bytes) {
  v1::ProgressDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(key, bytes, kProgressFormat, &document));
  const auto source = backup_state_named(document.source_state());
  const auto target = backup_state_named(document.target_state());
  if (!source.has_value() || !target.has_value()) {
    return damaged_document(key, "unknown state");
  }
  if (document.stages_size() > kMaxStagesOfNode) {
    return damaged_document(key, "too many stages");
  }
  if (document.trees_size() > static_cast<int>(kMaxTreesOfNode)) {
    return damaged_document(key, "too many trees");
  }
  NodeProgress progress;
  progress.node = document.node();
  progress.attempt = document.attempt();
  progress.source_state = *source;
  progress.target_state = *target;
  progress.sent_slots = document.sent_slots();
  progress.sent_bytes = document.sent_bytes();
  progress.local_bytes = document.local_bytes();
  progress.done_slots = document.done_slots();
  progress.done_bytes = document.done_bytes();
  progress.received_bytes = document.received_bytes();
  progress.repeated_bytes = document.repeated_bytes();
  progress.dropped_bytes = document.dropped_bytes();
  progress.records = document.records();
  progress.divergence = divergence_of(document.divergence());
  progress.stages = stages_of(document.stages());
  for (const v1::BackupTree& tree : document.trees()) {
    progress.trees.push_back(tree.SerializeAsString());
  }
  progress.changed_ms = document.changed_ms();
  progress.error = document.error();
  if (!key.ends_with("/" + progress.node)) {
    return damaged_document(key, "it belongs to another node");
  }
  return progress;
}

}  // namespace sluice

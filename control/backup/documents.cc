#include "control/backup/documents.h"

#include <cmath>

#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/json_document.h"

namespace sluice {
namespace {

constexpr char kHeadFormat[] = "sluice.backup.3";
constexpr char kProgressFormat[] = "sluice.progress.1";
constexpr size_t kMaxList = 4096;
constexpr size_t kMaxText = 4096;

nlohmann::json to_json(const Divergence& divergence) {
  return {{"stale", divergence.stale},
          {"missing", divergence.missing},
          {"conflicting", divergence.conflicting}};
}

// One unsigned number of a nested object.
template <typename T>
bool read_member(const nlohmann::json& json, const char* name, T* value) {
  const auto found = json.find(name);
  return found != json.end() && JsonDocument::read(*found, value);
}

bool read_divergence(const nlohmann::json& json, Divergence* divergence) {
  return json.is_object() && read_member(json, "stale", &divergence->stale) &&
         read_member(json, "missing", &divergence->missing) &&
         read_member(json, "conflicting", &divergence->conflicting);
}

bool read_stages(const nlohmann::json& json, std::vector<StageReport>* stages) {
  if (!json.is_array() || json.size() > kMaxList) return false;
  for (const nlohmann::json& each : json) {
    StageReport& stage = stages->emplace_back();
    if (!each.is_object() || !read_member(each, "node", &stage.node) ||
        !read_member(each, "stage", &stage.stage) || !read_member(each, "bytes", &stage.bytes) ||
        !read_member(each, "busy_ms", &stage.busy_ms) ||
        !read_member(each, "wait_ms", &stage.wait_ms) ||
        !read_member(each, "system_calls", &stage.system_calls)) {
      return false;
    }
  }
  return true;
}

nlohmann::json to_json(const std::vector<StageReport>& stages) {
  nlohmann::json list = nlohmann::json::array();
  for (const StageReport& stage : stages) {
    list.push_back({{"node", stage.node},
                    {"stage", stage.stage},
                    {"bytes", stage.bytes},
                    {"busy_ms", stage.busy_ms},
                    {"wait_ms", stage.wait_ms},
                    {"system_calls", stage.system_calls}});
  }
  return list;
}

bool read_totals(const nlohmann::json& json, BackupTotals* totals) {
  return json.is_object() && read_member(json, "records", &totals->records) &&
         read_member(json, "bytes", &totals->bytes) &&
         read_member(json, "wire_bytes", &totals->wire_bytes) &&
         read_member(json, "local_bytes", &totals->local_bytes) &&
         read_member(json, "slots", &totals->slots) &&
         read_member(json, "slots_agreed", &totals->slots_agreed) &&
         read_member(json, "slots_divergent", &totals->slots_divergent) &&
         read_member(json, "slots_empty", &totals->slots_empty) && json.contains("divergence") &&
         read_divergence(json["divergence"], &totals->divergence) && json.contains("stages") &&
         read_stages(json["stages"], &totals->stages);
}

bool read_element(const nlohmann::json& json, PlannedNode* node) {
  return json.is_object() && read_member(json, "name", &node->name) &&
         read_member(json, "send_bytes", &node->send_bytes) &&
         read_member(json, "receive_bytes", &node->receive_bytes);
}

bool read_element(const nlohmann::json& json, ArchivePart* part) {
  return json.is_object() && read_member(json, "node", &part->node) &&
         read_member(json, "path", &part->path);
}

bool read_element(const nlohmann::json& json, std::string* text) {
  return JsonDocument::read(json, text) && text->size() <= kMaxText;
}

template <typename T>
void get_list(JsonDocument& document, const char* name, std::vector<T>* values) {
  const nlohmann::json* json = document.field(name);
  if (json == nullptr) return;
  if (!json->is_array() || json->size() > kMaxList) {
    document.fail_field(name, "is no list, or too long");
    return;
  }
  for (const nlohmann::json& element : *json) {
    if (read_element(element, &values->emplace_back())) continue;
    document.fail_field(name, "has a malformed element");
    return;
  }
}

void get_state(JsonDocument& document, const char* name, BackupState* state) {
  std::string text;
  document.get(name, &text);
  if (!document.status().ok()) return;
  const auto found = backup_state_named(text);
  if (!found) {
    document.fail_field(name, "is no state");
    return;
  }
  *state = *found;
}

void get_divergence(JsonDocument& document, Divergence* divergence) {
  const nlohmann::json* json = document.field("divergence");
  if (json != nullptr && !read_divergence(*json, divergence)) {
    document.fail_field("divergence", "is malformed");
  }
}

void get_digest(JsonDocument& document, const char* name, Digest128* digest) {
  std::string text;
  document.get(name, &text);
  if (document.status().ok() && !Digest128::from_hex(text, digest)) {
    document.fail_field(name, "is no digest");
  }
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

nlohmann::json planned_json(const BackupHead& head) {
  nlohmann::json planned = nlohmann::json::array();
  for (const PlannedNode& node : head.planned) {
    planned.push_back({{"name", node.name},
                       {"send_bytes", node.send_bytes},
                       {"receive_bytes", node.receive_bytes}});
  }
  return planned;
}

nlohmann::json archives_json(const BackupHead& head) {
  nlohmann::json archives = nlohmann::json::array();
  for (const ArchivePart& part : head.archives) {
    archives.push_back({{"node", part.node}, {"path", part.path}});
  }
  return archives;
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
  const BackupTotals& totals = head.totals;
  return dump_json({{"format", kHeadFormat},
                    {"uuid", head.uuid},
                    {"name", head.name},
                    {"state", name_of(head.state)},
                    {"coordinator", head.coordinator},
                    {"attempt", head.attempt},
                    {"cut", head.cut},
                    {"epoch", head.epoch},
                    {"slot_bits", head.slot_bits},
                    {"sources", head.sources},
                    {"targets", head.targets},
                    {"plan_chunks", head.plan_chunks},
                    {"plan_attempt", head.plan_attempt},
                    {"makespan_s", head.makespan_s},
                    {"lower_bound_s", head.lower_bound_s},
                    {"planned", planned_json(head)},
                    {"totals",
                     {{"records", totals.records},
                      {"bytes", totals.bytes},
                      {"wire_bytes", totals.wire_bytes},
                      {"local_bytes", totals.local_bytes},
                      {"slots", totals.slots},
                      {"slots_agreed", totals.slots_agreed},
                      {"slots_divergent", totals.slots_divergent},
                      {"slots_empty", totals.slots_empty},
                      {"divergence", to_json(totals.divergence)},
                      {"stages", to_json(totals.stages)}}},
                    {"archives", archives_json(head)},
                    {"manifest_digest", head.manifest_digest.to_hex()},
                    {"deleting", head.deleting},
                    {"created_ms", head.created_ms},
                    {"changed_ms", head.changed_ms},
                    {"elapsed_ms", head.elapsed_ms},
                    {"error", head.error}});
}

absl::StatusOr<BackupHead> decode_backup_head(std::string_view key, std::string_view document) {
  JsonDocument json(key, document, kHeadFormat);
  BackupHead head;
  json.get("uuid", &head.uuid);
  json.get("name", &head.name);
  get_state(json, "state", &head.state);
  json.get("coordinator", &head.coordinator);
  json.get("attempt", &head.attempt);
  json.get("cut", &head.cut);
  json.get("epoch", &head.epoch);
  json.get("slot_bits", &head.slot_bits);
  get_list(json, "sources", &head.sources);
  get_list(json, "targets", &head.targets);
  json.get("plan_chunks", &head.plan_chunks);
  json.get("plan_attempt", &head.plan_attempt);
  json.get("makespan_s", &head.makespan_s);
  json.get("lower_bound_s", &head.lower_bound_s);
  get_list(json, "planned", &head.planned);
  const nlohmann::json* totals = json.field("totals");
  if (totals != nullptr && !read_totals(*totals, &head.totals)) {
    json.fail_field("totals", "is malformed");
  }
  get_list(json, "archives", &head.archives);
  get_digest(json, "manifest_digest", &head.manifest_digest);
  json.get("deleting", &head.deleting);
  json.get("created_ms", &head.created_ms);
  json.get("changed_ms", &head.changed_ms);
  json.get("elapsed_ms", &head.elapsed_ms);
  json.get("error", &head.error);
  if (json.status().ok() && key != backup_head_key(head.uuid)) {
    json.fail("it is that of another backup");
  }
  if (json.status().ok() && head.deleting && head.state != BackupState::kCancelled) {
    json.fail_field("deleting", "is set in a state other than cancelled");
  }
  if (json.status().ok() && !check_backup_name(head.name).ok()) {
    json.fail_field("name", "is no backup's name");
  }
  SLUICE_RETURN_IF_ERROR(json.status());
  return head;
}

const StageReport* bottleneck_of(const std::vector<StageReport>& stages) {
  const auto busiest = std::max_element(
      stages.begin(), stages.end(), [](const StageReport& a, const StageReport& b) {
        return std::pair(a.busy_share(), a.busy_ms) < std::pair(b.busy_share(), b.busy_ms);
      });
  return busiest == stages.end() || busiest->busy_ms == 0 ? nullptr : &*busiest;
}

std::string encode(const NodeProgress& progress) {
  return dump_json({{"format", kProgressFormat},
                    {"node", progress.node},
                    {"attempt", progress.attempt},
                    {"source_state", name_of(progress.source_state)},
                    {"target_state", name_of(progress.target_state)},
                    {"sent_slots", progress.sent_slots},
                    {"sent_bytes", progress.sent_bytes},
                    {"local_bytes", progress.local_bytes},
                    {"done_slots", progress.done_slots},
                    {"done_bytes", progress.done_bytes},
                    {"received_bytes", progress.received_bytes},
                    {"records", progress.records},
                    {"divergence", to_json(progress.divergence)},
                    {"stages", to_json(progress.stages)},
                    {"changed_ms", progress.changed_ms},
                    {"error", progress.error}});
}

absl::StatusOr<NodeProgress> decode_node_progress(std::string_view key, std::string_view document) {
  JsonDocument json(key, document, kProgressFormat);
  NodeProgress progress;
  json.get("node", &progress.node);
  json.get("attempt", &progress.attempt);
  get_state(json, "source_state", &progress.source_state);
  get_state(json, "target_state", &progress.target_state);
  json.get("sent_slots", &progress.sent_slots);
  json.get("sent_bytes", &progress.sent_bytes);
  json.get("local_bytes", &progress.local_bytes);
  json.get("done_slots", &progress.done_slots);
  json.get("done_bytes", &progress.done_bytes);
  json.get("received_bytes", &progress.received_bytes);
  json.get("records", &progress.records);
  get_divergence(json, &progress.divergence);
  const nlohmann::json* stages = json.field("stages");
  if (stages != nullptr && !read_stages(*stages, &progress.stages)) {
    json.fail_field("stages", "is malformed");
  }
  json.get("changed_ms", &progress.changed_ms);
  json.get("error", &progress.error);
  if (json.status().ok() && !key.ends_with("/" + progress.node)) {
    json.fail("it is that of another node");
  }
  SLUICE_RETURN_IF_ERROR(json.status());
  return progress;
}

}  // namespace sluice

#include "control/backup/plan_reader.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/status.h"
#include "control/backup/documents.h"
#include "control/cluster_block/json_document.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr size_t kMaxPlanNodes = kMaxTableMembers;
constexpr size_t kMaxPlanCopies = 64;  // of one slot

template <typename T>
bool read_at(const nlohmann::json& row, size_t index, T* value) {
  return index < row.size() && JsonDocument::read(row[index], value);
}

bool read_node(const nlohmann::json& row, Plan& plan, std::vector<std::vector<uint32_t>>& lists) {
  PlanNode node;
  NodeLoad load;
  uint32_t is_target = 0;
  if (!row.is_array() || row.size() != 8 || !read_at(row, 0, &node.name) ||
      !read_at(row, 1, &is_target) || !read_at(row, 2, &node.send_rate) ||
      !read_at(row, 3, &node.receive_rate) || !read_at(row, 4, &load.send_bytes) ||
      !read_at(row, 5, &load.receive_bytes) || !read_at(row, 6, &load.local_bytes)) {
    return false;
  }
  std::vector<uint32_t> chunks;
  if (!row[7].is_array()) return false;
  for (const nlohmann::json& number : row[7]) {
    uint32_t chunk = 0;
    if (!JsonDocument::read(number, &chunk) || chunk >= kMaxPlanChunks) return false;
    chunks.push_back(chunk);
  }
  if (is_target > 1) return false;
  if (node.send_rate <= 0 || node.receive_rate <= 0 || node.name.size() > 255) return false;
  if (plan.nodes.size() == kMaxPlanNodes) return false;
  if (is_target == 1) plan.targets.push_back(static_cast<uint32_t>(plan.nodes.size()));
  plan.nodes.push_back(std::move(node));
  plan.loads.push_back(load);
  lists.push_back(std::move(chunks));
  return true;
}

bool read_copies(const nlohmann::json& list, SlotPlan& slot, Plan& plan) {
  if (!list.is_array() || list.empty() || list.size() > kMaxPlanCopies) return false;
  slot.first_copy = static_cast<uint32_t>(plan.copies.size());
  slot.copies = static_cast<uint32_t>(list.size());
  for (const nlohmann::json& pair : list) {
    PlanCopy held;
    if (!pair.is_array() || pair.size() != 2 || !read_at(pair, 0, &held.node) ||
        !read_at(pair, 1, &held.bytes) || held.node >= plan.nodes.size()) {
      return false;
    }
    for (uint32_t i = slot.first_copy; i < plan.copies.size(); ++i) {
      if (plan.copies[i].node == held.node) return false;
    }
    plan.copies.push_back(held);
  }
  return true;
}

bool read_slot(const nlohmann::json& row, Plan& plan) {
  SlotPlan slot;
  uint32_t agreed = 0;
  if (!row.is_array() || row.size() < 5 || !read_at(row, 0, &slot.slot) ||
      !read_at(row, 1, &agreed) || !read_at(row, 2, &slot.target) ||
      !read_at(row, 3, &slot.sender) || !read_copies(row[4], slot, plan)) {
    return false;
  }
  slot.agreed = agreed == 1;
  if (agreed > 1 || row.size() != (slot.agreed ? 9u : 5u)) return false;
  if (slot.slot >= uint32_t{1} << kMaxSlotBits || slot.target >= plan.nodes.size()) return false;
  if (slot.sender >= slot.copies || (!slot.agreed && slot.sender != 0)) return false;
  if (slot.agreed) {
    std::string sum;
    SlotDigest& digest = slot.expected;
    if (!read_at(row, 5, &sum) || !Digest128::from_hex(sum, &digest.sum) ||
        !read_at(row, 6, &digest.records) || !read_at(row, 7, &digest.tombstones) ||
        !read_at(row, 8, &digest.bytes)) {
      return false;
    }
  }
  plan.slots.push_back(slot);
  return true;
}

// What the first chunk says of the whole.
void read_summary(JsonDocument& json, Plan& plan) {
  json.get("fan", &plan.fan);
  json.get("largest_fan_out", &plan.largest_fan_out);
  json.get("largest_fan_in", &plan.largest_fan_in);
  json.get("slots_empty", &plan.slots_empty);
  json.get("slots_agreed", &plan.slots_agreed);
  json.get("slots_divergent", &plan.slots_divergent);
  json.get("makespan_s", &plan.makespan_s);
  json.get("lower_bound_s", &plan.lower_bound_s);
}

void read_rows(JsonDocument& json, const char* name,
               const std::function<bool(const nlohmann::json&)>& read) {
  const nlohmann::json* rows = json.field(name);
  if (rows == nullptr) return;
  if (!rows->is_array()) {
    json.fail_field(name, "is not a list");
    return;
  }
  if (!std::all_of(rows->begin(), rows->end(), read)) json.fail_field(name, "has a malformed row");
}

// Chunks have slots in the order of their targets.
void sort_slots(Plan& plan) {
  std::sort(plan.slots.begin(), plan.slots.end(),
            [](const SlotPlan& a, const SlotPlan& b) { return a.slot < b.slot; });
  std::vector<PlanCopy> copies;
  copies.reserve(plan.copies.size());
  for (SlotPlan& slot : plan.slots) {
    const auto own = plan.copies_of(slot);
    slot.first_copy = static_cast<uint32_t>(copies.size());
    copies.insert(copies.end(), own.begin(), own.end());
  }
  plan.copies = std::move(copies);
}

}  // namespace

PlanReader::PlanReader(std::string backup, uint64_t attempt, uint32_t chunks)
    : backup_(std::move(backup)), attempt_(attempt), chunks_(chunks) {}

absl::Status PlanReader::read(uint32_t chunk, const std::string& key, const std::string& text) {
  if (chunks_ > kMaxPlanChunks)
    return data_loss("the plan of backup {} has {} chunks", backup_, chunks_);
  if (text.size() > kMaxScheduleChunkBytes) {
    return data_loss("document at key '{}' is damaged: it is too long", key);
  }
  if (first_key_.empty()) first_key_ = key;
  JsonDocument json(key, text, kPlanFormat);
  std::string backup;
  uint64_t attempt = 0;
  uint64_t number = 0;
  uint64_t count = 0;
  json.get("backup", &backup);
  json.get("attempt", &attempt);
  json.get("chunk", &number);
  json.get("chunks", &count);
  if (backup != backup_ || attempt != attempt_ || number != chunk || count != chunks_) {
    json.fail("it is another part of a plan than it has to be");
  }
  if (chunk == 0) {
    read_summary(json, plan_);
    json.get("node_chunks", &node_chunks_);
    if (node_chunks_ < 1 || node_chunks_ > chunks_)
      json.fail_field("node_chunks", "is out of range");
  }
  read_rows(json, "nodes",
            [&](const nlohmann::json& row) { return read_node(row, plan_, lists_); });
  read_rows(json, "slots", [&](const nlohmann::json& row) { return read_slot(row, plan_); });
  return json.status();
}

std::vector<uint32_t> PlanReader::chunks_of(std::string_view node) const {
  const int index = plan_.find_node(node);
  std::vector<uint32_t> chunks;
  if (index < 0 || node_chunks_ == chunks_) return chunks;
  for (const uint32_t number : lists_[static_cast<size_t>(index)]) {
    if (node_chunks_ + number < chunks_) chunks.push_back(node_chunks_ + number);
  }
  return chunks;
}

absl::StatusOr<Plan> PlanReader::take(bool whole) {
  sort_slots(plan_);
  const auto same_slot = [](const SlotPlan& a, const SlotPlan& b) { return a.slot == b.slot; };
  const auto is_sent_to_target = [&](const SlotPlan& slot) {
    return std::binary_search(plan_.targets.begin(), plan_.targets.end(), slot.target);
  };
  const auto agreed = static_cast<size_t>(std::count_if(
      plan_.slots.begin(), plan_.slots.end(), [](const SlotPlan& slot) { return slot.agreed; }));
  const bool complete =
      agreed == plan_.slots_agreed && plan_.slots.size() - agreed == plan_.slots_divergent;
  if (std::adjacent_find(plan_.slots.begin(), plan_.slots.end(), same_slot) == plan_.slots.end() &&
      std::all_of(plan_.slots.begin(), plan_.slots.end(), is_sent_to_target) &&
      (complete || !whole)) {
    return std::move(plan_);
  }
  return data_loss("document at key '{}' is damaged: its rows are not what it says of them",
                   first_key_);
}

absl::StatusOr<Plan> decode_plan(std::string_view backup, uint64_t attempt,
                                 const std::vector<std::string>& keys,
                                 const std::vector<std::string>& chunks) {
  if (keys.size() != chunks.size() || chunks.empty()) {
    return data_loss("the plan of backup {} has {} chunks", backup, chunks.size());
  }
  PlanReader reader(std::string(backup), attempt, static_cast<uint32_t>(chunks.size()));
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    SLUICE_RETURN_IF_ERROR(reader.read(i, keys[i], chunks[i]));
  }
  return reader.take(true);
}

}  // namespace sluice

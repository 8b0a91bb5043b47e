// A plan as JSON chunks. Each is {"format", "backup", "attempt", "chunk", "chunks", "fan",
// "largest_fan_out", "largest_fan_in", "slots_empty", "slots_agreed", "slots_divergent",
// "makespan_s", "lower_bound_s" (of which the first chunk's alone are read), "nodes": [node...],
// "slots": [slot...]} with rows
//   node: [name, 1 if a target, send_rate, receive_rate, send_bytes, receive_bytes, local_bytes]
//   slot: [slot, 1 if agreed, target, sender, [[node, bytes]...], digest sum, records, tombstones,
//   bytes]  (the last four if agreed)
// Nodes come first; a node is named by its place among them.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/status.h"
#include "control/backup/documents.h"
#include "control/cluster_block/json_document.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr char kPlanFormat[] = "sluice.plan.2";
// Leaves room for the numbers that surround the rows.
constexpr size_t kRowBytes = size_t{500} << 10;
constexpr size_t kMaxPlanNodes = kMaxTableMembers;
constexpr size_t kMaxPlanCopies = 64;  // of one slot
constexpr size_t kMaxPlanChunks = 4096;

struct Rows {
  std::string nodes;
  std::string slots;
  size_t bytes() const { return nodes.size() + slots.size(); }
};

void add_row(std::vector<Rows>& chunks, std::string Rows::*list, const std::string& row) {
  if (chunks.empty() || chunks.back().bytes() + row.size() + 1 > kRowBytes) chunks.emplace_back();
  std::string& text = chunks.back().*list;
  if (!text.empty()) text.push_back(',');
  text += row;
}

std::string slot_row(const Plan& plan, const SlotPlan& slot) {
  std::string row =
      fmt::format("[{},{},{},{},[", slot.slot, slot.agreed ? 1 : 0, slot.target, slot.sender);
  for (const PlanCopy& held : plan.copies_of(slot)) {
    fmt::format_to(std::back_inserter(row), "[{},{}],", held.node, held.bytes);
  }
  if (row.back() == ',') row.pop_back();
  row += "]";
  if (slot.agreed) {
    const SlotDigest& digest = slot.expected;
    fmt::format_to(std::back_inserter(row), ",\"{}\",{},{},{}", digest.sum.to_hex(), digest.records,
                   digest.tombstones, digest.bytes);
  }
  return row + "]";
}

template <typename T>
bool read_at(const nlohmann::json& row, size_t index, T* value) {
  return index < row.size() && JsonDocument::read(row[index], value);
}

bool read_node(const nlohmann::json& row, Plan& plan) {
  PlanNode node;
  NodeLoad load;
  uint32_t is_target = 0;
  if (!row.is_array() || row.size() != 7 || !read_at(row, 0, &node.name) ||
      !read_at(row, 1, &is_target) || !read_at(row, 2, &node.send_rate) ||
      !read_at(row, 3, &node.receive_rate) || !read_at(row, 4, &load.send_bytes) ||
      !read_at(row, 5, &load.receive_bytes) || !read_at(row, 6, &load.local_bytes)) {
    return false;
  }
  if (is_target > 1) return false;
  if (node.send_rate <= 0 || node.receive_rate <= 0 || node.name.size() > 255) return false;
  if (plan.nodes.size() == kMaxPlanNodes) return false;
  if (is_target == 1) plan.targets.push_back(static_cast<uint32_t>(plan.nodes.size()));
  plan.nodes.push_back(std::move(node));
  plan.loads.push_back(load);
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
  if (!plan.slots.empty() && slot.slot <= plan.slots.back().slot) return false;
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

void read_rows(JsonDocument& json, const char* name, bool (*read)(const nlohmann::json&, Plan&),
               Plan& plan) {
  const nlohmann::json* rows = json.field(name);
  if (rows == nullptr) return;
  if (!rows->is_array()) {
    json.fail_field(name, "is no list");
    return;
  }
  for (const nlohmann::json& row : *rows) {
    if (read(row, plan)) continue;
    json.fail_field(name, "has a malformed row");
    return;
  }
}

absl::Status check_whole(const Plan& plan, const std::string& key) {
  uint32_t agreed = 0;
  for (const SlotPlan& slot : plan.slots) agreed += slot.agreed ? 1 : 0;
  const auto is_sent_to_target = [&](const SlotPlan& slot) {
    return std::binary_search(plan.targets.begin(), plan.targets.end(), slot.target);
  };
  if (agreed == plan.slots_agreed && plan.slots.size() - agreed == plan.slots_divergent &&
      std::all_of(plan.slots.begin(), plan.slots.end(), is_sent_to_target)) {
    return absl::OkStatus();
  }
  return data_loss("document at key '{}' is damaged: its rows are not what it says of them", key);
}

}  // namespace

std::vector<std::string> encode_plan(const Plan& plan, std::string_view backup, uint64_t attempt) {
  std::vector<uint8_t> is_target(plan.nodes.size());
  for (const uint32_t target : plan.targets) is_target[target] = 1;
  std::vector<Rows> rows(1);
  for (size_t n = 0; n < plan.nodes.size(); ++n) {
    const PlanNode& node = plan.nodes[n];
    const NodeLoad load = n < plan.loads.size() ? plan.loads[n] : NodeLoad{};
    add_row(rows, &Rows::nodes,
            fmt::format("[{},{},{},{},{},{},{}]", dump_json(node.name), is_target[n],
                        dump_json(node.send_rate), dump_json(node.receive_rate), load.send_bytes,
                        load.receive_bytes, load.local_bytes));
  }
  for (const SlotPlan& slot : plan.slots) add_row(rows, &Rows::slots, slot_row(plan, slot));
  const std::string summary = fmt::format(
      "\"fan\":{},\"largest_fan_out\":{},\"largest_fan_in\":{},\"slots_empty\":{},\"slots_agreed\":"
      "{},\"slots_divergent\":{},\"makespan_"
      "s\":{},"
      "\"lower_bound_s\":{}",
      plan.fan, plan.largest_fan_out, plan.largest_fan_in, plan.slots_empty, plan.slots_agreed,
      plan.slots_divergent, dump_json(plan.makespan_s), dump_json(plan.lower_bound_s));
  std::vector<std::string> chunks;
  for (size_t i = 0; i < rows.size(); ++i) {
    chunks.push_back(
        fmt::format("{{\"format\":\"{}\",\"backup\":{},\"attempt\":{},\"chunk\":{},\"chunks\":{},{}"
                    ",\"nodes\":[{}],"
                    "\"slots\":[{}]}}",
                    kPlanFormat, dump_json(std::string(backup)), attempt, i, rows.size(), summary,
                    rows[i].nodes, rows[i].slots));
  }
  return chunks;
}

absl::StatusOr<Plan> decode_plan(std::string_view backup, uint64_t attempt,
                                 const std::vector<std::string>& keys,
                                 const std::vector<std::string>& chunks) {
  if (keys.size() != chunks.size() || chunks.empty() || chunks.size() > kMaxPlanChunks) {
    return data_loss("the plan of backup {} has {} chunks", backup, chunks.size());
  }
  Plan plan;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (chunks[i].size() > kMaxScheduleChunkBytes) {
      return data_loss("document at key '{}' is damaged: it is too long", keys[i]);
    }
    JsonDocument json(keys[i], chunks[i], kPlanFormat);
    std::string of_backup;
    uint64_t of_attempt = 0;
    uint64_t chunk = 0;
    uint64_t count = 0;
    json.get("backup", &of_backup);
    json.get("attempt", &of_attempt);
    json.get("chunk", &chunk);
    json.get("chunks", &count);
    if (of_backup != backup || of_attempt != attempt || chunk != i || count != chunks.size()) {
      json.fail("it is another part of a plan than it has to be");
    }
    if (i == 0) read_summary(json, plan);
    read_rows(json, "nodes", read_node, plan);
    read_rows(json, "slots", read_slot, plan);
    SLUICE_RETURN_IF_ERROR(json.status());
  }
  SLUICE_RETURN_IF_ERROR(check_whole(plan, keys[0]));
  return plan;
}

}  // namespace sluice

// A plan as JSON chunks; plan_reader.h has the format.
#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/status.h"
#include "control/backup/documents.h"
#include "control/backup/plan_reader.h"
#include "control/cluster_block/json_document.h"

namespace sluice {
namespace {

// Leaves room for the numbers that surround the rows.
constexpr size_t kRowBytes = size_t{500} << 10;
// Of chunks with slots, where a plan has several: what a node reads in vain is little.
constexpr size_t kSlotRowBytes = size_t{64} << 10;

struct Rows {
  std::string nodes;
  std::string slots;
  size_t bytes() const { return nodes.size() + slots.size(); }
};

void append_row(std::string& text, const std::string& row) {
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

// Chunks with slots, and which of them each node needs.
struct SlotChunks {
  std::vector<std::string> texts;
  std::vector<std::vector<uint32_t>> of_node;
  size_t bytes = 0;
};

SlotChunks encode_slots(const Plan& plan, size_t chunk_bytes) {
  std::vector<uint32_t> order(plan.slots.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return plan.slots[a].target < plan.slots[b].target;
  });
  SlotChunks chunks;
  chunks.of_node.resize(plan.nodes.size());
  for (const uint32_t i : order) {
    const SlotPlan& slot = plan.slots[i];
    const std::string row = slot_row(plan, slot);
    if (chunks.texts.empty() || chunks.texts.back().size() + row.size() + 1 > chunk_bytes) {
      chunks.texts.emplace_back();
    }
    append_row(chunks.texts.back(), row);
    chunks.bytes += row.size() + 1;
    const auto number = static_cast<uint32_t>(chunks.texts.size() - 1);
    const auto needs = [&](uint32_t node) {
      auto& list = chunks.of_node[node];
      if (list.empty() || list.back() != number) list.push_back(number);
    };
    needs(slot.target);
    for (const PlanCopy& sent : plan.senders_of(slot)) needs(sent.node);
  }
  return chunks;
}

std::vector<std::string> node_rows(const Plan& plan, const SlotChunks& slots) {
  std::vector<uint8_t> is_target(plan.nodes.size());
  for (const uint32_t target : plan.targets) is_target[target] = 1;
  std::vector<std::string> rows;
  for (size_t n = 0; n < plan.nodes.size(); ++n) {
    const PlanNode& node = plan.nodes[n];
    const NodeLoad load = n < plan.loads.size() ? plan.loads[n] : NodeLoad{};
    rows.push_back(fmt::format("[{},{},{},{},{},{},{},[{}]]", dump_json(node.name), is_target[n],
                               dump_json(node.send_rate), dump_json(node.receive_rate),
                               load.send_bytes, load.receive_bytes, load.local_bytes,
                               fmt::join(slots.of_node[n], ",")));
  }
  return rows;
}

// All in one chunk, or chunks with nodes and then chunks with slots.
std::vector<Rows> rows_of(const Plan& plan, uint32_t* node_chunks) {
  SlotChunks slots = encode_slots(plan, kRowBytes);
  if (slots.texts.size() > 1) slots = encode_slots(plan, kSlotRowBytes);
  std::vector<std::string> nodes = node_rows(plan, slots);
  size_t bytes = slots.bytes;
  for (const std::string& row : nodes) bytes += row.size() + 1;
  std::vector<Rows> chunks(1);
  for (const std::string& row : nodes) {
    if (chunks.back().bytes() + row.size() + 1 > kRowBytes) chunks.emplace_back();
    append_row(chunks.back().nodes, row);
  }
  *node_chunks = static_cast<uint32_t>(chunks.size());
  if (bytes <= kRowBytes && slots.texts.size() <= 1) {
    if (!slots.texts.empty()) chunks.back().slots = std::move(slots.texts[0]);
    return chunks;
  }
  for (std::string& text : slots.texts) chunks.push_back({"", std::move(text)});
  return chunks;
}

}  // namespace

std::vector<std::string> encode_plan(const Plan& plan, std::string_view backup, uint64_t attempt) {
  uint32_t node_chunks = 0;
  const std::vector<Rows> rows = rows_of(plan, &node_chunks);
  const std::string summary = fmt::format(
      "\"fan\":{},\"largest_fan_out\":{},\"largest_fan_in\":{},\"slots_empty\":{},"
      "\"slots_agreed\":{},\"slots_divergent\":{},\"makespan_s\":{},\"lower_bound_s\":{},"
      "\"node_chunks\":{}",
      plan.fan, plan.largest_fan_out, plan.largest_fan_in, plan.slots_empty, plan.slots_agreed,
      plan.slots_divergent, dump_json(plan.makespan_s), dump_json(plan.lower_bound_s), node_chunks);
  std::vector<std::string> chunks;
  for (size_t i = 0; i < rows.size(); ++i) {
    chunks.push_back(
        fmt::format("{{\"format\":\"{}\",\"backup\":{},\"attempt\":{},\"chunk\":{},\"chunks\":{},{}"
                    ",\"nodes\":[{}],\"slots\":[{}]}}",
                    kPlanFormat, dump_json(std::string(backup)), attempt, i, rows.size(), summary,
                    rows[i].nodes, rows[i].slots));
  }
  return chunks;
}

}  // namespace sluice

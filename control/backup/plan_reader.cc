#include "control/backup/plan_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status.h"
#include "control/backup/documents.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr size_t kMaxPlanNodes = kMaxTableMembers;
constexpr int kMaxPlanCopies = 64;  // of one slot

bool read_node(const v1::PlanChunk::Node& from, Plan& plan,
               std::vector<std::vector<uint32_t>>& lists) {
  const bool good = std::isfinite(from.send_rate()) && from.send_rate() > 0 &&
                    std::isfinite(from.receive_rate()) && from.receive_rate() > 0 &&
                    from.name().size() <= 255 && plan.nodes.size() < kMaxPlanNodes &&
                    std::all_of(from.slot_chunks().begin(), from.slot_chunks().end(),
                                [](uint32_t chunk) { return chunk < kMaxPlanChunks; });
  if (!good) return false;
  if (from.is_target()) plan.targets.push_back(static_cast<uint32_t>(plan.nodes.size()));
  plan.nodes.push_back({from.name(), from.send_rate(), from.receive_rate()});
  plan.loads.push_back({from.send_bytes(), from.receive_bytes(), from.local_bytes()});
  lists.emplace_back(from.slot_chunks().begin(), from.slot_chunks().end());
  return true;
}

bool read_copies(const v1::PlanChunk::Slot& from, SlotPlan& slot, Plan& plan) {
  if (from.copies().empty() || from.copies_size() > kMaxPlanCopies) return false;
  slot.first_copy = static_cast<uint32_t>(plan.copies.size());
  slot.copies = static_cast<uint32_t>(from.copies_size());
  for (const auto& copy : from.copies()) {
    if (copy.node() >= plan.nodes.size()) return false;
    for (uint32_t i = slot.first_copy; i < plan.copies.size(); ++i) {
      if (plan.copies[i].node == copy.node()) return false;
    }
    plan.copies.push_back({copy.node(), copy.bytes()});
  }
  return true;
}

bool read_slot(const v1::PlanChunk::Slot& from, Plan& plan) {
  SlotPlan slot;
  slot.slot = from.slot();
  slot.target = from.target();
  slot.agreed = from.has_agreed();
  if (!slot.agreed && tree_number_of(slot.slot) != 0) return false;
  if (slot.target >= plan.nodes.size()) return false;
  if (!read_copies(from, slot, plan)) return false;
  if (slot.agreed) {
    const v1::PlanChunk::Agreed& agreed = from.agreed();
    slot.sender = agreed.sender();
    SlotDigest& digest = slot.expected;
    slot.told = agreed.told();
    if (slot.told != (tree_number_of(slot.slot) != 0)) return false;
    if (slot.told && slot.copies != 1) return false;
    if (slot.sender >= slot.copies) return false;
    if (!slot.told && !read_digest(agreed.sum(), &digest.sum)) return false;
    digest.records = agreed.records();
    digest.tombstones = agreed.tombstones();
    digest.bytes = agreed.bytes();
  }
  plan.slots.push_back(slot);
  return true;
}

// What the first chunk says of the whole. Returns how many chunks have nodes.
uint32_t read_summary(const v1::PlanChunk::Summary& from, Plan& plan) {
  plan.fan = from.fan();
  plan.largest_fan_out = from.largest_fan_out();
  plan.largest_fan_in = from.largest_fan_in();
  plan.slots_empty = from.slots_empty();
  plan.slots_agreed = from.slots_agreed();
  plan.slots_divergent = from.slots_divergent();
  plan.makespan_s = from.makespan_s();
  plan.lower_bound_s = from.lower_bound_s();
  return from.node_chunks();
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
    return damaged_document(key, "it is too long");
  }
  if (first_key_.empty()) first_key_ = key;
  v1::PlanChunk stored;
  SLUICE_RETURN_IF_ERROR(decode_document(key, text, kPlanFormat, &stored));
  if (stored.backup() != backup_ || stored.attempt() != attempt_ || stored.chunk() != chunk ||
      stored.chunks() != chunks_) {
    return damaged_document(key, "it is a different part of a plan than expected");
  }
  if (chunk == 0) {
    node_chunks_ = read_summary(stored.summary(), plan_);
    if (node_chunks_ < 1 || node_chunks_ > chunks_ || !std::isfinite(plan_.makespan_s) ||
        !std::isfinite(plan_.lower_bound_s)) {
      return damaged_document(key, "a number in the summary is out of range");
    }
  }
  const auto is_missing = [&](uint32_t number) {
    return number > 0 && number >= chunks_ - node_chunks_;
  };
  for (const auto& node : stored.nodes()) {
    if (std::any_of(node.slot_chunks().begin(), node.slot_chunks().end(), is_missing)) {
      return damaged_document(key, "a node refers to a chunk beyond the end of the plan");
    }
    if (!read_node(node, plan_, lists_)) return damaged_document(key, "malformed node");
  }
  for (const auto& slot : stored.slots()) {
    if (!read_slot(slot, plan_)) return damaged_document(key, "malformed slot");
  }
  return absl::OkStatus();
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
  return damaged_document(first_key_, "the slots do not match the summary");
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

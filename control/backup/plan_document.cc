// A plan as stored chunks; plan_reader.h reads them.
#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/status.h"
#include "control/backup/documents.h"
#include "control/backup/plan_reader.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

// Leaves room for what surrounds nodes and slots.
constexpr size_t kChunkBytes = size_t{500} << 10;
// Of chunks with slots, where a plan has several: what a node reads in vain is little.
constexpr size_t kSlotChunkBytes = size_t{64} << 10;
constexpr size_t kFieldBytes = 6;  // tag and length of an element, at most

void put_slot(const Plan& plan, const SlotPlan& slot, v1::PlanChunk::Slot* to) {
  to->set_slot(slot.slot);
  to->set_target(slot.target);
  for (const PlanCopy& held : plan.copies_of(slot)) {
    auto* copy = to->add_copies();
    copy->set_node(held.node);
    copy->set_bytes(held.bytes);
  }
  if (!slot.agreed) return;
  auto* agreed = to->mutable_agreed();
  agreed->set_sender(slot.sender);
  agreed->set_told(slot.told);
  if (!slot.told) agreed->set_sum(digest_bytes(slot.expected.sum));
  agreed->set_records(slot.expected.records);
  agreed->set_tombstones(slot.expected.tombstones);
  agreed->set_bytes(slot.expected.bytes);
}

// Appends an element to the last of the chunks, or to a new one where it has no room.
class Chunks {
 public:
  explicit Chunks(size_t chunk_bytes) : chunk_bytes_(chunk_bytes) {}
  template <typename Element>
  void add(Element element,
           google::protobuf::RepeatedPtrField<Element>* (v1::PlanChunk::*elements)()) {
    const size_t bytes = element.ByteSizeLong() + kFieldBytes;
    if (chunks_.empty() || filled_ + bytes > chunk_bytes_) {
      chunks_.emplace_back();
      filled_ = 0;
    }
    filled_ += bytes;
    all_bytes_ += bytes;
    *(chunks_.back().*elements)()->Add() = std::move(element);
  }
  size_t size() const { return chunks_.size(); }
  size_t bytes() const { return all_bytes_; }
  std::vector<v1::PlanChunk>& list() { return chunks_; }

 private:
  size_t chunk_bytes_;
  std::vector<v1::PlanChunk> chunks_;
  size_t filled_ = 0;  // of the last one
  size_t all_bytes_ = 0;
};

// Chunks with slots, and which of them each node needs.
struct SlotChunks {
  Chunks chunks;
  std::vector<std::vector<uint32_t>> of_node;
};

SlotChunks slot_chunks(const Plan& plan, size_t chunk_bytes) {
  std::vector<uint32_t> order(plan.slots.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return plan.slots[a].target < plan.slots[b].target;
  });
  SlotChunks result{Chunks(chunk_bytes), std::vector<std::vector<uint32_t>>(plan.nodes.size())};
  for (const uint32_t i : order) {
    const SlotPlan& slot = plan.slots[i];
    v1::PlanChunk::Slot stored;
    put_slot(plan, slot, &stored);
    result.chunks.add(std::move(stored), &v1::PlanChunk::mutable_slots);
    const auto number = static_cast<uint32_t>(result.chunks.size() - 1);
    const auto needs = [&](uint32_t node) {
      auto& list = result.of_node[node];
      if (list.empty() || list.back() != number) list.push_back(number);
    };
    needs(slot.target);
    for (const PlanCopy& sent : plan.senders_of(slot)) needs(sent.node);
  }
  return result;
}

Chunks node_chunks(const Plan& plan, const SlotChunks& slots) {
  std::vector<uint8_t> is_target(plan.nodes.size());
  for (const uint32_t target : plan.targets) is_target[target] = 1;
  Chunks chunks(kChunkBytes);
  for (size_t n = 0; n < plan.nodes.size(); ++n) {
    const PlanNode& node = plan.nodes[n];
    const NodeLoad load = n < plan.loads.size() ? plan.loads[n] : NodeLoad{};
    v1::PlanChunk::Node stored;
    stored.set_name(node.name);
    stored.set_is_target(is_target[n] != 0);
    stored.set_send_rate(node.send_rate);
    stored.set_receive_rate(node.receive_rate);
    stored.set_send_bytes(load.send_bytes);
    stored.set_receive_bytes(load.receive_bytes);
    stored.set_local_bytes(load.local_bytes);
    for (const uint32_t chunk : slots.of_node[n]) stored.add_slot_chunks(chunk);
    chunks.add(std::move(stored), &v1::PlanChunk::mutable_nodes);
  }
  return chunks;
}

// All in one, or chunks with nodes and then chunks with slots.
std::vector<v1::PlanChunk> cut(const Plan& plan, uint32_t* with_nodes) {
  SlotChunks slots = slot_chunks(plan, kChunkBytes);
  if (slots.chunks.size() > 1) slots = slot_chunks(plan, kSlotChunkBytes);
  Chunks nodes = node_chunks(plan, slots);
  std::vector<v1::PlanChunk> chunks = std::move(nodes.list());
  if (chunks.empty()) chunks.emplace_back();
  *with_nodes = static_cast<uint32_t>(chunks.size());
  if (nodes.bytes() + slots.chunks.bytes() <= kChunkBytes && slots.chunks.size() <= 1) {
    if (slots.chunks.size() == 1)
      chunks.back().mutable_slots()->Swap(slots.chunks.list().front().mutable_slots());
    return chunks;
  }
  std::move(slots.chunks.list().begin(), slots.chunks.list().end(), std::back_inserter(chunks));
  return chunks;
}

}  // namespace

std::vector<std::string> encode_plan(const Plan& plan, std::string_view backup, uint64_t attempt) {
  uint32_t with_nodes = 0;
  std::vector<v1::PlanChunk> chunks = cut(plan, &with_nodes);
  v1::PlanChunk::Summary* summary = chunks.front().mutable_summary();
  summary->set_fan(plan.fan);
  summary->set_largest_fan_out(plan.largest_fan_out);
  summary->set_largest_fan_in(plan.largest_fan_in);
  summary->set_slots_empty(plan.slots_empty);
  summary->set_slots_agreed(plan.slots_agreed);
  summary->set_slots_divergent(plan.slots_divergent);
  summary->set_makespan_s(plan.makespan_s);
  summary->set_lower_bound_s(plan.lower_bound_s);
  summary->set_node_chunks(with_nodes);
  std::vector<std::string> documents;
  for (size_t i = 0; i < chunks.size(); ++i) {
    v1::PlanChunk& chunk = chunks[i];
    chunk.set_backup(backup.data(), backup.size());
    chunk.set_attempt(attempt);
    chunk.set_chunk(static_cast<uint32_t>(i));
    chunk.set_chunks(static_cast<uint32_t>(chunks.size()));
    documents.push_back(encode_document(kPlanFormat, chunk));
  }
  return documents;
}

}  // namespace sluice

// The part of ServingService that is about records.
#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/status.h"
#include "control/peers/rpc.h"
#include "control/records/clock_monitor.h"
#include "control/service/request_limits.h"
#include "control/service/serving_service.h"

namespace sluice {

namespace {

constexpr int64_t kClientBudgetWaitMs = 5'000;

absl::Status cannot_coordinate(const std::string& node, const absl::Status& why) {
  return unavailable("{} takes no writes: {}", node, message_of(why));
}

absl::Status check_item(const v1::WriteRequest::Item& item) {
  if (item.key().empty() || item.key().size() > kMaxKeyBytes) {
    return invalid_argument("key of {} bytes: 1 to {}", item.key().size(), kMaxKeyBytes);
  }
  if (item.value().size() > kMaxValueBytes) {
    return invalid_argument("value of {} bytes: at most {}", item.value().size(), kMaxValueBytes);
  }
  if (item.tombstone() && !item.value().empty()) {
    return invalid_argument("a deletion with a value of {} bytes", item.value().size());
  }
  return absl::OkStatus();
}

void fill(const absl::Status& status, v1::WriteReply::Result* result) {
  result->set_code(static_cast<uint32_t>(status.code()));
  if (!status.ok()) result->set_reason(std::string(message_of(status).substr(0, 1000)));
}

absl::Status check_slots(uint32_t first, uint32_t slots, uint32_t there_are) {
  if (first <= there_are && slots <= there_are - first) return absl::OkStatus();
  return invalid_argument("slots {} and {} on: there are {}", first, slots, there_are);
}

}  // namespace

absl::Status ServingService::stamp(IncomingCall&, const v1::StampRequest& request,
                                   v1::Version* reply) {
  // The write comes next, and this node cannot take it. The client goes to the next node.
  if (const absl::Status writable = context_.store->writable(); !writable.ok()) {
    return cannot_coordinate(context_.name, writable);
  }
  SLUICE_RETURN_IF_ERROR(check_count("slots", request.slots_size()));
  if (request.slots_size() == 0) return invalid_argument("a version for no slot");
  for (const uint32_t slot : request.slots()) {
    SLUICE_RETURN_IF_ERROR(check_slots(slot, 1, context_.cluster().slots()));
  }
  const absl::StatusOr<Version> version = stamps_.stamp(
      {request.slots().data(), static_cast<size_t>(request.slots_size())}, request.after());
  if (absl::IsUnavailable(version.status())) return version.status();
  if (!version.ok()) return cannot_coordinate(context_.name, version.status());
  reply->set_stamp(version->stamp);
  reply->set_node(version->node);
  return absl::OkStatus();
}

absl::Status ServingService::write(IncomingCall&, const v1::WriteRequest& request,
                                   v1::WriteReply* reply) {
  SLUICE_RETURN_IF_ERROR(check_count("records", request.items_size()));
  SLUICE_ASSIGN_OR_RETURN(const auto share,
                          budget_.take(request.ByteSizeLong(), kClientBudgetWaitMs));
  const Version version{request.version().stamp(), request.version().node()};
  if (version.stamp == 0) {
    return invalid_argument("a write without a version: ask a node for one");
  }
  std::vector<WriteItem> items;
  std::vector<int> positions;
  std::unordered_set<std::string_view> keys;
  for (int i = 0; i < request.items_size(); ++i) {
    const auto& item = request.items(i);
    auto* result = reply->add_results();
    absl::Status refused = check_item(item);
    if (refused.ok() && !keys.insert(item.key()).second) {
      refused = invalid_argument("a key comes twice in one request");
    }
    if (!refused.ok()) {
      fill(refused, result);
      continue;
    }
    items.push_back({item.key(), item.value(), item.tombstone()});
    positions.push_back(i);
  }
  const std::vector<WriteResult> written = writes_.write(items, version);
  for (size_t i = 0; i < positions.size(); ++i) {
    fill(written[i].status, reply->mutable_results(positions[i]));
    reply->set_as_of(std::max(reply->as_of(), written[i].as_of));
  }
  return absl::OkStatus();
}

absl::Status ServingService::get(IncomingCall&, const v1::GetRequest& request,
                                 v1::GetReply* reply) {
  if (request.key().empty() || request.key().size() > kMaxKeyBytes) {
    return invalid_argument("key of {} bytes: 1 to {}", request.key().size(), kMaxKeyBytes);
  }
  SLUICE_ASSIGN_OR_RETURN(auto record, reads_.get(request.key()));
  if (record.has_value() && !record->tombstone) {
    reply->set_found(true);
    reply->set_value(std::move(record->value));
  }
  return absl::OkStatus();
}

absl::Status ServingService::count(IncomingCall& call, const v1::CountRequest& request,
                                   v1::CountReply* reply) {
  SLUICE_RETURN_IF_ERROR(
      check_slots(request.first_slot(), request.slots(), context_.cluster().slots()));
  SLUICE_RETURN_IF_ERROR(check_key_length("a prefix", request.prefix().size()));
  SLUICE_ASSIGN_OR_RETURN(const uint64_t count,
                          reads_.count(request.first_slot(), request.slots(), request.prefix(),
                                       [&] { return stopping_ || call.cancelled(); }));
  reply->set_count(count);
  return absl::OkStatus();
}

absl::Status ServingService::export_slots(IncomingCall& call, const v1::ExportRequest& request,
                                          PageSink<v1::ExportPage>* pages) {
  SLUICE_RETURN_IF_ERROR(
      check_slots(request.first_slot(), request.slots(), context_.cluster().slots()));
  SLUICE_RETURN_IF_ERROR(check_key_length("a prefix", request.prefix().size()));
  SLUICE_RETURN_IF_ERROR(check_key_length("a place to begin after", request.after().size()));
  const auto stopped = [&] { return stopping_ || call.cancelled(); };
  for (uint32_t i = 0; i < request.slots(); ++i) {
    const uint32_t slot = request.first_slot() + i;
    v1::ExportPage page;
    page.set_slot(slot);
    size_t bytes = 0;
    const auto visit = [&](std::string_view key, std::string value) -> absl::Status {
      auto* item = page.add_items();
      item->set_key(key.data(), key.size());
      if (request.has_value_bytes() && value.size() > request.value_bytes())
        value.resize(request.value_bytes());
      bytes += key.size() + value.size();
      item->set_value(std::move(value));
      if (bytes < kBatchBytes) return absl::OkStatus();
      if (stopped()) return cancelled("the node stops, or the client went away");
      SLUICE_RETURN_IF_ERROR(pages->write(page));
      page.clear_items();
      bytes = 0;
      return absl::OkStatus();
    };
    const std::string after = i == 0 ? request.after() : std::string();
    SLUICE_RETURN_IF_ERROR(
        reads_.visit_slot({slot, request.prefix(), after}, visit, stopped).status());
    page.set_slot_done(true);
    SLUICE_RETURN_IF_ERROR(pages->write(page));
  }
  return absl::OkStatus();
}

absl::Status ServingService::status(IncomingCall&, const v1::Empty&, v1::StatusReply* reply) {
  const auto snapshot = context_.directory->snapshot();
  reply->set_name(context_.name);
  reply->set_epoch(snapshot->epoch());
  const ClockMonitor::View clocks = context_.clock_monitor->view();
  reply->set_clock_offset_ms(clocks.offset_ms);
  reply->set_stamps_ahead_ms(static_cast<uint64_t>(clocks.stamps_ahead_ms));
  if (const absl::Status writable = context_.store->writable(); !writable.ok()) {
    reply->set_writes(absl::IsResourceExhausted(writable) ? v1::WRITES_DISK_FULL
                                                          : v1::WRITES_READ_ONLY);
  }
  if (snapshot->table == nullptr) return absl::OkStatus();
  const int self = snapshot->table->find_member(context_.name);
  uint64_t slots = 0, records = 0, bytes = 0;
  for (uint32_t slot = 0; slot < snapshot->table->slots(); ++slot) {
    if (self < 0 || !snapshot->table->holds(slot, static_cast<uint32_t>(self))) continue;
    const SlotDigest digest = context_.store->digest(slot);
    ++slots;
    records += digest.records;
    bytes += digest.bytes;
  }
  reply->set_slots(slots);
  reply->set_records(records);
  reply->set_bytes(bytes);
  return absl::OkStatus();
}

}  // namespace sluice

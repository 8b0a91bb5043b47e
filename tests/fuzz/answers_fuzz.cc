// Feeds the readers of other nodes' answers anything, as gRPC would hand them on. The first byte
// chooses the answer, the second one how it was asked for; a stream's pages are the chunks of a
// PlanReply.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/checksum.h"
#include "control/client/export_reader.h"
#include "control/peers/rpc.h"
#include "control/peers/stage_report.h"
#include "control/records/slot_cursor.h"
#include "control/restore/restore_parts.h"
#include "control/restore/restore_proof.h"
#include "tests/control/peers/scripted_link.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_names;
using sluice::testing::require_readable;

constexpr char kNode[] = "n2";
// Half of all keys are of each slot.
constexpr uint32_t kSlotBits = 1;

Script script_of(std::string_view bytes, uint8_t how) {
  Script script;
  v1::PlanReply pages;
  if (pages.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    script.pages = {pages.chunks().begin(), pages.chunks().end()};
  }
  if ((how & 1) != 0) script.end = {grpc::StatusCode::UNAVAILABLE, "went away"};
  return script;
}

std::string prefix_of(uint8_t how) { return (how & 2) != 0 ? "a" : ""; }

void require_record(const RecordSummary& summary) {
  require(summary.value_bytes <= (summary.tombstone ? 0 : kMaxValueBytes));
}

void read_scan(std::string_view bytes, uint8_t how) {
  Script script = script_of(bytes, how);
  const SlotRange range{0, prefix_of(how), (how & 4) != 0 ? "ab" : ""};
  const bool values = (how & 8) != 0;
  const auto cursor = open_remote_cursor(scripted_node(script), range, values, {});
  std::string last = range.after;
  for (;;) {
    const auto more = cursor->next();
    require_names(more.status(), kNode);
    if (!more.ok() || !*more) return;
    require(cursor->key() > last && cursor->key().starts_with(range.prefix) &&
            cursor->key().size() <= kMaxKeyBytes);
    last = cursor->key();
    require_record(cursor->summary());
    if (!values && !cursor->summary().tombstone) continue;  // another call
    RecordSummary summary;
    const auto value = cursor->value(&summary);
    require(value.ok() && summary == cursor->summary() && value->size() == summary.value_bytes);
    require(summary.tombstone || xxh3_128(*value) == summary.value_digest);
  }
}

void read_export(std::string_view bytes, uint8_t how) {
  Script script = script_of(bytes, how);
  const std::string prefix = prefix_of(how);
  uint32_t slot = 0;
  std::string last;
  uint64_t records = 0;
  const ClusterClient::RecordCallback callback = [&](std::string_view key, std::string_view value) {
    require(key.size() <= kMaxKeyBytes && value.size() <= kMaxValueBytes &&
            key.starts_with(prefix));
    const uint32_t of = slot_of(key, kSlotBits);
    require(of > slot || (of == slot && key > last));
    slot = of;
    last = key;
    ++records;
    return absl::OkStatus();
  };
  ExportReader reader(kSlotBits, prefix, callback);
  const auto node = scripted_node(script);
  for (int streams = 0; streams < 3 && !reader.done() && reader.failed().ok(); ++streams) {
    bool progress = false;
    const grpc::Status status = reader.read_from(*node, 1'000, 1'000, &progress);
    // A stream without an error has come to the end of what it was asked for.
    require(!status.ok() || reader.done() || !reader.failed().ok());
  }
  require_names(reader.failed(), kNode);
  require(reader.totals().records == records);
}

void read_record(std::string_view bytes) {
  v1::ReadReply reply;
  if (!reply.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const auto record = record_of(kNode, "a", reply);
  require_names(record.status(), kNode);
  if (!record.ok() || !record->has_value()) return;
  require((*record)->key == "a");
  require_record((*record)->view().summary());
}

void read_digests(std::string_view bytes, uint8_t how) {
  const auto digests = decode_digests(bytes, how);
  require_readable(digests.status());
  require(!digests.ok() || (digests->size() == how && encode_digests(*digests) == bytes));
}

void read_result(std::string_view bytes, uint8_t how) {
  v1::RestorePartResult result;
  if (!result.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const absl::Status checked = check_result(result, 1u << kSlotBits);
  require_readable(checked);
  const std::vector<StageReport> stages = stages_of(result.stages());
  StageReports again;
  put(stages, &again);
  require(stages_of(again).size() == stages.size());
  if (!checked.ok()) return;
  for (const uint32_t slot : archive_slots_of({{how & 1, kNode}}, kSlotBits, result.slot_bits())) {
    require(slot >> result.slot_bits() == 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  switch (data[0] % 5) {
    case 0:
      read_scan(bytes, data[1]);
      break;
    case 1:
      read_export(bytes, data[1]);
      break;
    case 2:
      read_record(bytes);
      break;
    case 3:
      read_digests(bytes, data[1]);
      break;
    default:
      read_result(bytes, data[1]);
      break;
  }
  return 0;
}

// Records as JSON lines: {"key": "...", "value": "..."}, with key_b64 and value_b64 (base64) in
// place of what is not valid UTF-8.
#ifndef SLUICE_CONTROL_CLI_JSONL_H_
#define SLUICE_CONTROL_CLI_JSONL_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tree/record_stream.h"

namespace sluice {

// A value of 64 MiB in base64 with its key, and room to spare for escapes.
inline constexpr size_t kMaxJsonLineBytes = size_t{96} << 20;

struct JsonRecord {
  std::string key;
  std::string value;
};
// INVALID_ARGUMENT with why, for what is not one object with exactly one of key and key_b64 and
// exactly one of value and value_b64, all strings, within the limits of records. Other fields are
// ignored.
absl::StatusOr<JsonRecord> parse_json_record(std::string_view line);
// One line with its newline. A function of the record alone: equal records make equal lines.
std::string format_json_record(std::string_view key, std::string_view value);

// Reads lines from a file descriptor until its end; empty lines are skipped. Stops at the first
// line that is malformed or too long with INVALID_ARGUMENT naming its number; lines before it were
// put. `totals` is right in every case.
absl::Status import_jsonl(int fd, RecordSink& sink, StreamProgress& progress, SinkTotals* totals);

struct JsonlExportTotals {
  uint64_t records = 0;
  uint64_t bytes = 0;  // keys and values
};
// All records of the prefix by ascending key bytes. What does not fit into memory is sorted in
// files without names in `temporary_folder`.
absl::StatusOr<JsonlExportTotals> export_jsonl(
    RecordSource& source, std::string_view prefix, const std::string& temporary_folder,
    StreamProgress& progress, const std::function<absl::Status(std::string_view)>& write);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_JSONL_H_

// Feeds the reader of JSON lines anything.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "control/cli/jsonl.h"
#include "dataplane/block/record.h"
#include "tests/fuzz/oracle.h"

using namespace sluice;
using sluice::testing::require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto record = parse_json_record({reinterpret_cast<const char*>(data), size});
  sluice::testing::require_readable(record.status());
  if (!record.ok()) {
    require(record.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  require(!record->key.empty() && record->key.size() <= kMaxKeyBytes &&
          record->value.size() <= kMaxValueBytes);
  // Equal records make equal lines.
  const std::string line = format_json_record(record->key, record->value);
  require(line.ends_with('\n') && line.find('\n') + 1 == line.size());
  const auto again = parse_json_record(std::string_view(line).substr(0, line.size() - 1));
  require(again.ok() && again->key == record->key && again->value == record->value);
  return 0;
}

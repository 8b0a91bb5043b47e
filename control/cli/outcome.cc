#include "control/cli/outcome.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "control/cli/standard_streams.h"

namespace sluice {
namespace {

bool numeric(std::string_view cell) {
  return cell.find_first_not_of("0123456789.,-") == std::string_view::npos;
}

}  // namespace

int exit_code_of(const absl::Status& status) {
  if (status.ok()) return kExitDone;
  return absl::IsDataLoss(status) ? kExitDataBad : kExitFailed;
}

Outcome failure(const absl::Status& status) {
  Outcome outcome;
  outcome.code = exit_code_of(status);
  outcome.error = message_of(status);
  return outcome;
}

int print_outcome(const Outcome& outcome, bool json) {
  absl::Status written;
  if (json) {
    Json fields = outcome.fields;
    if (outcome.code != kExitDone) {
      fields["error"] = outcome.error;
      fields["code"] = outcome.code;
    }
    written = write_stdout(fields.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    written = write_stdout(outcome.text);
  }
  if (outcome.code != kExitDone && !outcome.error.empty()) {
    print_stderr("sluice: {}\n", outcome.error);
  }
  if (!written.ok()) {
    if (!stdout_reader_gone()) print_stderr("sluice: {}\n", message_of(written));
    return outcome.code == kExitDone ? kExitFailed : outcome.code;
  }
  return outcome.code;
}

void add_bytes(Json& object, const std::string& name, std::string_view bytes) {
  if (is_utf8(bytes)) {
    object[name] = std::string(bytes);
  } else {
    object[name + "_b64"] = base64_encode(bytes);
  }
}

Json failures_json(const StreamFailures& failures) {
  Json list = Json::array();
  for (const StreamFailure& failure : failures.first) {
    list.push_back({{"path", printable(failure.path, 8192)}, {"reason", failure.reason}});
  }
  return list;
}

std::string TextTable::str() const {
  const size_t columns = rows_[0].size();
  std::vector<size_t> widths(columns, 0);
  std::vector<bool> right(columns, rows_.size() > 1);
  for (size_t row = 0; row < rows_.size(); ++row) {
    for (size_t column = 0; column < columns; ++column) {
      widths[column] = std::max(widths[column], rows_[row][column].size());
      if (row > 0 && !numeric(rows_[row][column])) right[column] = false;
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t column = 0; column < columns; ++column) {
      const std::string padding(widths[column] - row[column].size(), ' ');
      line += right[column] ? padding + row[column] : row[column] + padding;
      line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string human_count(uint64_t number) {
  std::string digits = std::to_string(number);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string counted(uint64_t number, std::string_view noun) {
  return fmt::format("{} {}{}", human_count(number), noun, number == 1 ? "" : "s");
}

std::string human_seconds(double seconds) {
  if (seconds < 10) return fmt::format("{:.2f} s", seconds);
  const auto whole = static_cast<uint64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

}  // namespace sluice

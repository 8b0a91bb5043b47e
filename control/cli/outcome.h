// What a command ends with, and how that is printed.
#ifndef SLUICE_CONTROL_CLI_OUTCOME_H_
#define SLUICE_CONTROL_CLI_OUTCOME_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/status.h"
#include "tree/record_stream.h"

namespace sluice {

using Json = nlohmann::ordered_json;

enum ExitCode {
  kExitDone = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitDataBad = 3,        // data failed a check: corrupt, or not what it should be
  kExitRetriesRemain = 4,  // done, but records remain on the retry list
};

struct Outcome {
  int code = kExitDone;
  Json fields = Json::object();  // what --json prints
  std::string text;              // what is printed otherwise: empty, or lines with their newlines
  std::string error;             // for a code other than kExitDone: what happened and what to do
};

// DATA_LOSS is kExitDataBad, everything else kExitFailed.
int exit_code_of(const absl::Status& status);
Outcome failure(const absl::Status& status);
template <typename... Args>
Outcome usage_error(fmt::format_string<Args...> format, Args&&... args) {
  Outcome outcome;
  outcome.code = kExitUsage;
  outcome.error = fmt::format(format, std::forward<Args>(args)...);
  return outcome;
}

// Text to stdout, or exactly one JSON object with --json (with "error" and "code" unless all is
// well); errors to stderr. Returns the exit code.
int print_outcome(const Outcome& outcome, bool json);

// Adds "NAME": bytes when they are UTF-8, "NAME_b64" otherwise.
void add_bytes(Json& object, const std::string& name, std::string_view bytes);
Json failures_json(const StreamFailures& failures);

// A table for humans: columns as wide as needed; those whose cells are all numbers to the right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string str() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// "1.5 GiB".
std::string human_bytes(double bytes);
// "1,234,567".
std::string human_count(uint64_t number);
// "1 record", "1,234 records".
std::string counted(uint64_t number, std::string_view noun);
// "12 s", "3 min 05 s".
std::string human_seconds(double seconds);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_OUTCOME_H_

// What fuzz entry points demand of what a parser takes, and of how it refuses the rest.
#ifndef SLUICE_TESTS_FUZZ_ORACLE_H_
#define SLUICE_TESTS_FUZZ_ORACLE_H_

#include <cstdlib>
#include <string_view>

#include "base/status.h"
#include "base/text.h"

namespace sluice::testing {

// Longer than any message of its own words; a message that repeats its whole input is longer still.
inline constexpr size_t kMaxErrorBytes = 4096;

inline void require(bool holds) {
  if (!holds) std::abort();
}

// An error goes to logs and terminals: one line of text, and short, whatever the input was.
inline void require_readable(const absl::Status& status) {
  if (status.ok()) return;
  const std::string_view message = message_of(status);
  require(!message.empty() && message.size() <= kMaxErrorBytes && is_utf8(message));
  for (const char c : message) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

// It says as well what it is about.
inline void require_names(const absl::Status& status, std::string_view subject) {
  require_readable(status);
  require(status.ok() || message_of(status).find(subject) != std::string_view::npos);
}

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_FUZZ_ORACLE_H_

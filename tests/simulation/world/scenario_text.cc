#include "tests/simulation/world/scenario_text.h"

#include <fmt/format.h>

#include <charconv>
#include <sstream>
#include <type_traits>

#include "base/status.h"

namespace sluice::simulation {
namespace {

constexpr std::string_view kOpName = "op";

// Calls visit(name, field) for each.
template <typename AnyScenario, typename Visit>
void visit_fields(AnyScenario& scenario, const Visit& visit) {
  visit("seed", scenario.seed);
  visit("nodes", scenario.shape.nodes);
  visit("replicas", scenario.shape.replicas);
  visit("slot_bits", scenario.shape.slot_bits);
  visit("lease_ms", scenario.shape.lease_ms);
  visit("other_nodes", scenario.other.nodes);
  visit("other_replicas", scenario.other.replicas);
  visit("other_slot_bits", scenario.other.slot_bits);
  visit("writers", scenario.writers);
  visit("readers", scenario.readers);
  visit("other_writers", scenario.other_writers);
  visit("keys", scenario.keys);
  visit("longest_pause_ms", scenario.longest_pause_ms);
  visit("lasts_ms", scenario.lasts_ms);
  visit("calls_lost", scenario.calls.lost);
  visit("calls_broken", scenario.calls.broken);
  visit("calls_delayed", scenario.calls.delayed);
  visit("calls_delayed_from_writers", scenario.calls.delayed_from_writers);
  visit("block_fails", scenario.block.fails);
  visit("block_fails_after", scenario.block.fails_after);
  visit("block_fails_late", scenario.block.fails_late);
  visit("preempted_steps", scenario.preempted_steps);
}

template <typename AnyOp, typename Visit>
void visit_op(AnyOp& op, const Visit& visit) {
  visit("at_ms", op.at_ms);
  visit("cluster", op.cluster);
  visit("host", op.host);
  visit("other", op.other);
  visit("lasts_ms", op.lasts_ms);
  visit("trigger", op.trigger);
  visit("count", op.count);
  visit("state", op.state);
  visit("backup", op.backup);
}

template <typename T>
std::string text_of(const T& value) {
  if constexpr (std::is_enum_v<T>) {
    return fmt::format("{}", static_cast<int>(value));
  } else {
    return fmt::format("{}", value);
  }
}

template <typename T>
bool parse(std::string_view text, T* value) {
  if constexpr (std::is_enum_v<T>) {
    int number = 0;
    if (!parse(text, &number)) return false;
    *value = static_cast<T>(number);
    return true;
  } else {
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *value);
    return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  }
}

bool parse_op(std::istringstream& words, Op* op) {
  std::string name;
  words >> name;
  size_t kind = 0;
  while (kind < static_cast<size_t>(OpKind::kCount) && name_of(static_cast<OpKind>(kind)) != name) {
    ++kind;
  }
  if (kind == static_cast<size_t>(OpKind::kCount)) return false;
  op->kind = static_cast<OpKind>(kind);
  bool valid = true;
  visit_op(*op, [&](std::string_view field, auto& value) {
    std::string word;
    words >> word;
    const size_t equals = word.find('=');
    valid = valid && word.substr(0, equals) == field && equals != word.npos &&
            parse(std::string_view(word).substr(equals + 1), &value);
  });
  return valid && op->trigger < Op::Trigger::kCount && op->state <= BackupState::kCancelled;
}

}  // namespace

std::string scenario_text(const Scenario& scenario) {
  std::string text;
  visit_fields(scenario, [&](std::string_view name, const auto& value) {
    text += fmt::format("{} {}\n", name, text_of(value));
  });
  for (const Op& op : scenario.ops) {
    text += fmt::format("{} {}", kOpName, name_of(op.kind));
    visit_op(op, [&](std::string_view name, const auto& value) {
      text += fmt::format(" {}={}", name, text_of(value));
    });
    text += '\n';
  }
  return text;
}

absl::StatusOr<Scenario> parse_scenario(std::string_view text) {
  Scenario scenario;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    bool valid = false;
    if (name == kOpName) {
      scenario.ops.emplace_back();
      valid = parse_op(words, &scenario.ops.back());
      if (valid && is_fault(scenario.ops.back().kind)) {
        const Op& op = scenario.ops.back();
        const size_t nodes = op.cluster == 0 ? scenario.shape.nodes : scenario.other.nodes;
        valid = op.cluster <= 1 && op.host < nodes && op.other < nodes;
      }
    } else {
      std::string word;
      words >> word;
      visit_fields(scenario, [&](std::string_view field, auto& value) {
        if (field == name) valid = parse(word, &value);
      });
    }
    if (!valid) return invalid_argument("not a line of a scenario: '{}'", line);
  }
  return scenario;
}

}  // namespace sluice::simulation

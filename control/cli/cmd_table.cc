// sluice nodes, sluice table.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>

#include "control/cli/command.h"
#include "control/table/table.h"

namespace sluice {
namespace {

struct TableArguments {
  std::vector<std::string> add;
  std::vector<std::string> remove;
  std::vector<std::string> weight;
  std::vector<std::string> rack;
};

// n2 before n10.
bool name_before(const std::string& a, const std::string& b) {
  return strverscmp(a.c_str(), b.c_str()) < 0;
}

// The offset of a node's clock, where it is more than the cluster makes good without a word.
std::string clock_text(int64_t offset_ms, int64_t allowed_ms) {
  if (std::abs(offset_ms) <= allowed_ms) return "ok";
  return fmt::format("{:.1f} s {}", static_cast<double>(std::abs(offset_ms)) / 1000,
                     offset_ms > 0 ? "ahead" : "behind");
}

// "95.4 work: ingest"; an operator's needs no reason.
std::string weight_text(const NodeView& view) {
  const Bottleneck& from = view.weight_from;
  std::string text = fmt::format("{:.6g} {}", view.weight, weight_from_name(from.from));
  if (from.from != WeightFrom::kOperator) text += fmt::format(": {}", from.what);
  return text;
}

// Bytes a second, and how each is known; null where it is not.
Json rates_json(const MeasuredRates& rates) {
  const auto known = [](double rate) { return rate > 0 ? Json(rate) : Json(nullptr); };
  Json json;
  Json from;
  for (const auto& [name, member] : kNamedRates) {
    const MeasuredRate& each = rates.*member;
    json[name] = known(each.rate);
    if (each.rate > 0) {
      from[name] = weight_from_name(each.work_seconds > 0 ? WeightFrom::kWork : WeightFrom::kProbe);
    }
  }
  json["limit"] = known(rates.limit);
  json["free_bytes"] = rates.free_bytes;
  json["from"] = from.is_null() ? Json::object() : from;
  return json;
}

Outcome nodes(const Invocation& invocation) {
  return with_client(invocation, [&](ClusterClient& client) {
    auto views = client.nodes();
    if (!views.ok()) return failure(views.status());
    std::sort(views->begin(), views->end(),
              [](const NodeView& a, const NodeView& b) { return name_before(a.name, b.name); });
    Outcome outcome;
    outcome.fields["nodes"] = Json::array();
    TextTable table(
        {"node", "state", "weight", "rack", "slots", "records", "bytes", "clock", "address"});
    for (const NodeView& view : *views) {
      const auto known_ms = [&](int64_t ms) { return view.reached ? Json(ms) : Json(nullptr); };
      outcome.fields["nodes"].push_back({{"name", view.name},
                                         {"state", name_of(view.state)},
                                         {"weight", view.weight},
                                         {"weight_from", weight_from_name(view.weight_from.from)},
                                         {"bounded_by", view.weight_from.what},
                                         {"rates", rates_json(view.rates)},
                                         {"rack", view.rack},
                                         {"slots", view.slots},
                                         {"records", view.records},
                                         {"bytes", view.bytes},
                                         {"reached", view.reached},
                                         {"clock_offset_ms", known_ms(view.clock_offset_ms)},
                                         {"stamps_ahead_ms", known_ms(view.stamps_ahead_ms)},
                                         {"address", view.control_address},
                                         {"data_address", view.data_address},
                                         {"driver", view.driver},
                                         {"archive_folder", view.archive_folder},
                                         {"pid", view.process}});
      const bool known = view.reached;
      table.add(
          {view.name, std::string(name_of(view.state)), weight_text(view), view.rack,
           human_count(view.slots), known ? human_count(view.records) : "?",
           known ? human_bytes(static_cast<double>(view.bytes)) : "?",
           known ? clock_text(view.clock_offset_ms, client.cluster().max_clock_offset_ms) : "?",
           view.control_address});
    }
    outcome.text = table.str();
    return outcome;
  });
}

// Bytes held by name. Of a table that is only planned: what its copies would hold, at the present
// average for a copy.
Outcome describe(const DistributionTable& table, const std::vector<NodeView>& views, bool planned) {
  std::map<std::string, uint64_t> bytes;
  uint64_t all_bytes = 0;
  uint64_t all_slots = 0;
  for (const NodeView& view : views) {
    bytes[view.name] = view.bytes;
    if (!view.reached) continue;
    all_bytes += view.bytes;
    all_slots += view.slots;
  }
  const double per_copy =
      all_slots == 0 ? 0 : static_cast<double>(all_bytes) / static_cast<double>(all_slots);
  Outcome outcome;
  outcome.fields["slots"] = table.slots();
  outcome.fields["replicas"] = table.replicas();
  outcome.fields["epoch"] = table.epoch();
  outcome.fields["imbalance"] = imbalance(table);
  outcome.fields["moved"] = 0;
  outcome.fields["moved_minimum"] = 0;
  outcome.fields["nodes"] = Json::array();
  const std::vector<uint32_t> copies = table.copies();
  const std::vector<double> ideal = table.ideal_copies();
  TextTable text({"node", "weight", "rack", "slots", "ideal", "bytes"});
  std::vector<size_t> order(table.members().size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return name_before(table.members()[a].name, table.members()[b].name);
  });
  for (const size_t i : order) {
    const TableMember& member = table.members()[i];
    const uint64_t held =
        planned ? static_cast<uint64_t>(per_copy * copies[i]) : bytes[member.name];
    outcome.fields["nodes"].push_back({{"name", member.name},
                                       {"weight", member.weight},
                                       {"rack", member.rack},
                                       {"slots", copies[i]},
                                       {"bytes", held},
                                       {"ideal", ideal[i]}});
    text.add({member.name, fmt::format("{:.6g}", member.weight), member.rack,
              human_count(copies[i]), fmt::format("{:.2f}", ideal[i]),
              human_bytes(static_cast<double>(held))});
  }
  outcome.text =
      fmt::format("{} slots, {} replicas each, epoch {}, imbalance {:.4f}\n{}", table.slots(),
                  table.replicas(), table.epoch(), imbalance(table), text.str());
  return outcome;
}

Outcome show(const Invocation& invocation) {
  return with_client(invocation, [&](ClusterClient& client) {
    const auto table = client.table();
    if (!table.ok()) return failure(table.status());
    const auto views = client.nodes();
    if (!views.ok()) return failure(views.status());
    return describe(*table, *views, false);
  });
}

// NAME=W of one option, each name once; false with the error otherwise.
bool parse_changes(const std::vector<std::string>& texts, const char* option,
                   std::map<std::string, double>* changes, Outcome* error) {
  for (const std::string& text : texts) {
    std::string name;
    std::string value;
    double weight = 0;
    if (!split_assignment(text, &name, &value) || !parse_weight(value, &weight)) {
      *error = usage_error("{} {}: NAME=WEIGHT with a positive number", option, text);
      return false;
    }
    if (!changes->emplace(name, weight).second) {
      *error = usage_error("{}: '{}' twice", option, name);
      return false;
    }
  }
  return true;
}

// The members after the change; an unknown or doubled name is the caller's mistake.
bool change_members(const TableArguments& arguments, std::vector<TableMember>* members,
                    Outcome* error) {
  std::map<std::string, double> added;
  std::map<std::string, double> weights;
  if (!parse_changes(arguments.add, "--add", &added, error)) return false;
  if (!parse_changes(arguments.weight, "--weight", &weights, error)) return false;
  const auto find = [&](const std::string& name) {
    return std::find_if(members->begin(), members->end(),
                        [&](const TableMember& m) { return m.name == name; });
  };
  uint32_t number = 0;
  for (const TableMember& member : *members) number = std::max(number, member.number);
  for (const auto& [name, weight] : weights) {
    const auto member = find(name);
    if (member == members->end()) {
      *error = usage_error("--weight: no node '{}' in the table", name);
      return false;
    }
    member->weight = weight;
  }
  for (const std::string& name : arguments.remove) {
    const auto member = find(name);
    if (member == members->end()) {
      *error = usage_error("--remove: no node '{}' in the table", name);
      return false;
    }
    members->erase(member);
  }
  for (const auto& [name, weight] : added) {
    if (find(name) != members->end()) {
      *error = usage_error("--add: '{}' is in the table already; change it with --weight", name);
      return false;
    }
    members->push_back({name, ++number, weight, ""});
  }
  for (const std::string& text : arguments.rack) {
    const size_t equals = text.find('=');
    const auto member = find(text.substr(0, equals));
    if (equals == std::string::npos || member == members->end()) {
      *error = usage_error("--rack {}: NAME=RACK with a node of the table or of --add", text);
      return false;
    }
    member->rack = text.substr(equals + 1);
  }
  return true;
}

Outcome plan(const Invocation& invocation, const TableArguments& arguments) {
  return with_client(invocation, [&](ClusterClient& client) {
    const auto table = client.table();
    if (!table.ok()) return failure(table.status());
    std::vector<TableMember> members = table->members();
    Outcome error;
    if (!change_members(arguments, &members, &error)) return error;
    const auto change =
        compute_table(&*table, {members, table->replicas(), table->slot_bits(), table->seed()});
    if (!change.ok()) return failure(change.status());
    const auto views = client.nodes();
    if (!views.ok()) return failure(views.status());
    Outcome outcome = describe(change->table, *views, true);
    outcome.fields["moved"] = change->moved;
    outcome.fields["moved_minimum"] = change->moved_minimum;
    outcome.text += fmt::format("{} copies of slots would move; {} is the least possible\n",
                                change->moved, change->moved_minimum);
    return outcome;
  });
}

void add_repeated(CLI::App* command, const char* name, std::vector<std::string>* into,
                  const char* type, const char* about) {
  command->add_option(name, *into, about)->allow_extra_args(false)->type_name(type);
}

}  // namespace

void register_table(CLI::App& app, Invocation& invocation) {
  CLI::App* nodes_command = add_command(
      app, "nodes", "List the nodes: state, weight, and the copies they hold", "sluice nodes");
  nodes_command->callback(
      [&invocation] { invocation.run = [&invocation] { return nodes(invocation); }; });

  CLI::App* table = add_command(
      app, "table", "The distribution table: which nodes hold which slots", "sluice table show");
  table->require_subcommand(1, 1);
  CLI::App* show_command =
      add_command(*table, "show", "Each node's share beside its ideal share (in copies of slots)",
                  "sluice table show");
  show_command->callback(
      [&invocation] { invocation.run = [&invocation] { return show(invocation); }; });
  const auto arguments = std::make_shared<TableArguments>();
  CLI::App* plan_command =
      add_command(*table, "plan", "What a change of nodes or weights would move, without doing it",
                  "sluice table plan --add n6=2 --remove n1 --weight n2=0.5");
  add_repeated(plan_command, "--add", &arguments->add, "NAME=W",
               "A new node and its weight; may be repeated");
  add_repeated(plan_command, "--remove", &arguments->remove, "NAME",
               "A node that leaves; may be repeated");
  add_repeated(plan_command, "--weight", &arguments->weight, "NAME=W",
               "Another weight of a node; may be repeated");
  add_repeated(plan_command, "--rack", &arguments->rack, "NAME=R",
               "The rack of a node; may be repeated");
  plan_command->callback([&invocation, arguments] {
    invocation.run = [&invocation, arguments] { return plan(invocation, *arguments); };
  });
}

}  // namespace sluice

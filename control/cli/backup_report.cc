#include "control/cli/backup_report.h"

#include <algorithm>

#include "base/text.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

Json plan_json(const PlanView& plan) {
  Json nodes = Json::array();
  for (const PlannedNode& node : plan.nodes) {
    nodes.push_back({{"name", node.name},
                     {"send_bytes", node.send_bytes},
                     {"receive_bytes", node.receive_bytes}});
  }
  return {{"makespan_s", plan.makespan_s},
          {"lower_bound_s", plan.lower_bound_s},
          {"nodes", std::move(nodes)}};
}

std::string plan_text(const PlanView& plan) {
  if (plan.nodes.empty()) return "";
  TextTable table({"node", "sends", "receives"});
  for (const PlannedNode& node : plan.nodes) {
    table.add({node.name, human_bytes(static_cast<double>(node.send_bytes)),
               human_bytes(static_cast<double>(node.receive_bytes))});
  }
  return fmt::format("plan: {} at the least {}\n{}", human_seconds(plan.makespan_s),
                     human_seconds(plan.lower_bound_s), table.str());
}

Json paths_json(const std::vector<TreeView::Path>& paths) {
  Json list = Json::array();
  for (const TreeView::Path& path : paths) list.push_back(path.path);
  return list;
}

Json trees_json(const std::vector<TreeView>& trees) {
  Json list = Json::array();
  for (const TreeView& tree : trees) {
    list.push_back({{"name", tree.name},
                    {"node", tree.node},
                    {"files", tree.files},
                    {"directories", tree.directories},
                    {"links", tree.links},
                    {"specials", tree.specials},
                    {"bytes", tree.bytes},
                    {"sent_bytes", tree.sent_bytes},
                    {"read_bytes", tree.read_bytes},
                    {"changed_while_read", paths_json(tree.changed_paths)},
                    {"changed", tree.changed},
                    {"vanished", tree.vanished},
                    {"failed", tree.failed},
                    {"failed_paths", paths_json(tree.failed_paths)},
                    {"skipped", tree.skipped}});
  }
  return list;
}

std::string trees_text(const std::vector<TreeView>& trees) {
  std::string text;
  for (const TreeView& tree : trees) {
    text += fmt::format("  tree {} of {}: {}, {}; {} read, {} sent\n", tree.name, tree.node,
                        counted(tree.files, "file"), human_bytes(static_cast<double>(tree.bytes)),
                        human_bytes(static_cast<double>(tree.read_bytes)),
                        human_bytes(static_cast<double>(tree.sent_bytes)));
    const auto paths = [&](const char* what, uint64_t count,
                           const std::vector<TreeView::Path>& first) {
      if (count == 0) return;
      text += fmt::format("    {} {}:\n", human_count(count), what);
      for (const TreeView::Path& path : first) {
        text += fmt::format("      {}: {}\n", path.path, path.why);
      }
      if (count > first.size()) text += fmt::format("      and {} more\n", count - first.size());
    };
    paths("changed while they were read, and are as they were read last", tree.changed,
          tree.changed_paths);
    paths("could not be read", tree.failed, tree.failed_paths);
    if (tree.vanished > 0) {
      text +=
          fmt::format("    {} were removed while the tree was read\n", human_count(tree.vanished));
    }
  }
  return text;
}

}  // namespace

std::string bottleneck_text(const std::vector<StageReport>& stages) {
  const StageReport* const stage = bottleneck_of(stages);
  if (stage == nullptr) return {};
  return fmt::format("{} of {}, {:.0f}% busy", name_of(stage->stage), stage->node,
                     100 * stage->busy_share());
}

void add_stages(const std::vector<StageReport>& stages, Json* json) {
  (*json)["stages"] = Json::array();
  for (const StageReport& stage : stages) {
    (*json)["stages"].push_back({{"node", stage.node},
                                 {"stage", name_of(stage.stage)},
                                 {"bytes", stage.bytes},
                                 {"busy_s", static_cast<double>(stage.busy_ms) / 1000},
                                 {"wait_s", static_cast<double>(stage.wait_ms) / 1000},
                                 {"system_calls", stage.system_calls}});
  }
  (*json)["bottleneck"] = bottleneck_text(stages);
}

Json backup_json(const BackupView& view) {
  Json json;
  json["backup"] = view.backup;
  json["uuid"] = view.uuid;
  json["state"] = name_of(view.state);
  if (!view.reason.empty()) json["reason"] = view.reason;
  if (view.deleting) json["deleting"] = true;
  json["coordinator"] = view.coordinator;
  json["dry_run"] = view.dry_run;
  json["cut"] = view.cut;
  json["cut_time"] = static_cast<double>(Version::stamp_ms(view.cut)) / 1000;
  json["records"] = view.records;
  json["bytes"] = view.bytes;
  json["wire_bytes"] = view.wire_bytes;
  json["local_bytes"] = view.local_bytes;
  json["repeated_bytes"] = view.repeated_bytes;
  json["dropped_bytes"] = view.dropped_bytes;
  json["slots"] = view.slots;
  json["slots_agreed"] = view.slots_agreed;
  json["slots_divergent"] = view.slots_divergent;
  json["divergence"] = {{"stale", view.divergence.stale},
                        {"missing", view.divergence.missing},
                        {"conflicting", view.divergence.conflicting}};
  json["seconds"] = view.seconds;
  add_stages(view.stages, &json);
  json["trees"] = trees_json(view.trees);
  json["archives"] = Json::array();
  for (const ArchivePlace& place : view.archives) {
    json["archives"].push_back({{"node", place.node}, {"path", place.path}});
  }
  json["plan"] = plan_json(view.plan);
  return json;
}

std::string backup_text(const BackupView& view) {
  std::string text = fmt::format("backup {}: {}\n", view.backup, name_of(view.state));
  if (!view.reason.empty()) text += fmt::format("  because: {}\n", view.reason);
  text +=
      fmt::format("  {}, {}; {} sent, {} of it within a node; {} ({}/s)\n",
                  counted(view.records, "record"), human_bytes(static_cast<double>(view.bytes)),
                  human_bytes(static_cast<double>(view.wire_bytes)),
                  human_bytes(static_cast<double>(view.local_bytes)), human_seconds(view.seconds),
                  human_bytes(static_cast<double>(view.bytes) / std::max(view.seconds, 1e-3)));
  text += fmt::format("  {} slots: {} agreed, {} divergent", view.slots, view.slots_agreed,
                      view.slots_divergent);
  if (view.slots_divergent > 0) {
    text +=
        fmt::format(" ({} copies of records stale, {} missing, {} conflicting)",
                    view.divergence.stale, view.divergence.missing, view.divergence.conflicting);
  }
  text += "\n";
  if (const std::string bottleneck = bottleneck_text(view.stages); !bottleneck.empty()) {
    text += fmt::format("  bounded by {}\n", bottleneck);
  }
  text += trees_text(view.trees);
  for (const ArchivePlace& place : view.archives)
    text += fmt::format("  {}: {}\n", place.node, place.path);
  return text + plan_text(view.plan);
}

namespace {

Json problems_json(const std::vector<VerifyProblem>& problems) {
  Json list = Json::array();
  for (const VerifyProblem& problem : problems) {
    Json entry = {{"file", printable(problem.file, 8192)}, {"offset", problem.offset}};
    if (problem.slot >= 0) entry["slot"] = problem.slot;
    entry["reason"] = problem.reason;
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

Json verify_json(const VerifyResult& result) {
  Json json;
  json["blocks"] = result.blocks;
  json["bytes"] = result.bytes;
  json["bad"] = problems_json(result.bad);
  json["unreadable"] = problems_json(result.unreadable);
  return json;
}

Json restore_json(const RestoreOutcome& result) {
  Json json;
  json["restore"] = result.restore;
  json["state"] = name_of(result.state);
  if (!result.reason.empty()) json["reason"] = result.reason;
  json["records"] = result.records;
  json["bytes"] = result.bytes;
  json["written"] = result.written;
  json["kept_newer"] = result.kept_newer;
  json["kept_deleted"] = result.kept_deleted;
  json["restored_over"] = result.restored_over;
  json["deleted_extra"] = result.deleted_extra;
  json["retried"] = result.retried;
  json["failed"] = result.failed;
  json["failed_deletions"] = result.failed_deletions;
  json["seconds"] = result.seconds;
  json["nodes"] = Json::array();
  for (const RestoreNode& node : result.nodes) {
    json["nodes"].push_back(
        {{"name", node.name}, {"records", node.records}, {"bytes", node.bytes}});
  }
  add_stages(result.stages, &json);
  Json proof = {{"checked", result.proof.checked},     {"copies", result.proof.copies},
                {"equal", result.proof.equal},         {"newer", result.proof.newer},
                {"differing", result.proof.differing}, {"unreachable", result.proof.unreachable}};
  proof["first_differing"] = Json::array();
  for (const auto& difference : result.proof.first_differing) {
    proof["first_differing"].push_back({{"slot", difference.slot}, {"node", difference.node}});
  }
  json["proof"] = std::move(proof);
  json["bad"] = Json::array();
  for (const DamagedBlock& block : result.damaged) {
    json["bad"].push_back({{"slot", block.slot},
                           {"part", block.part},
                           {"reason", block.reason},
                           {"records", block.records}});
  }
  json["causes"] = Json::array();
  for (const RestoreCause& cause : result.causes) {
    json["causes"].push_back({{"node", cause.node},
                              {"damaged", cause.damaged},
                              {"records", cause.records},
                              {"deletions", cause.deletions},
                              {"reason", cause.reason}});
  }
  return json;
}

namespace {

std::string were(uint64_t count, const char* noun) {
  return fmt::format("{} {}", counted(count, noun), count == 1 ? "was" : "were");
}

// What a user who wanted to undo something has to know.
std::string conflicts_text(const RestoreOutcome& result) {
  std::string text;
  if (result.kept_deleted > 0) {
    text += fmt::format("  NOT RESTORED: {} deleted after the backup and stay deleted\n",
                        were(result.kept_deleted, "record"));
  }
  if (result.kept_newer > 0) {
    text += fmt::format("  NOT RESTORED: {} changed after the backup and stay as they are\n",
                        were(result.kept_newer, "record"));
  }
  if (result.kept_deleted + result.kept_newer > 0 && !result.undoes) {
    text += "  to roll back to the backup's state: --on-conflict archive\n";
  }
  if (result.restored_over > 0) {
    text +=
        fmt::format("  {} changed or deleted after the backup, and are as the backup has them\n",
                    were(result.restored_over, "record"));
  }
  if (result.deleted_extra > 0) {
    text += fmt::format("  {} deleted: the backup does not have them\n",
                        were(result.deleted_extra, "record"));
  }
  return text;
}

}  // namespace

std::string restore_text(const RestoreOutcome& result) {
  std::string text = fmt::format("restore {}: {}\n", result.restore, name_of(result.state));
  if (!result.reason.empty()) text += fmt::format("  because: {}\n", result.reason);
  text +=
      fmt::format("  {}, {} in {} ({}/s)\n", counted(result.records, "record"),
                  human_bytes(static_cast<double>(result.bytes)), human_seconds(result.seconds),
                  human_bytes(static_cast<double>(result.bytes) / std::max(result.seconds, 1e-3)));
  text +=
      fmt::format("  {} written, {} requests sent again, {} failed\n", human_count(result.written),
                  human_count(result.retried), human_count(result.failed));
  text += conflicts_text(result);
  if (const std::string bottleneck = bottleneck_text(result.stages); !bottleneck.empty()) {
    text += fmt::format("  bounded by {}\n", bottleneck);
  }
  if (!result.nodes.empty()) {
    TextTable table({"node", "records", "bytes"});
    for (const RestoreNode& node : result.nodes) {
      table.add(
          {node.name, human_count(node.records), human_bytes(static_cast<double>(node.bytes))});
    }
    text += table.str();
  }
  if (result.proof.checked) {
    text += fmt::format(
        "proof: {} of {} copies equal the archive, {} have all of it and newer or other records, "
        "{} "
        "differ, {} could not be asked\n",
        result.proof.equal, result.proof.copies, result.proof.newer, result.proof.differing,
        result.proof.unreachable);
  }
  return text;
}

}  // namespace sluice

#include "control/restore/restore_listing.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "base/status.h"
#include "control/peers/archive_reference.h"
#include "control/peers/rpc.h"
#include "control/restore/restore_parts.h"
#include "control/restore/restore_runner.h"

namespace sluice {

namespace {

// Reads the keys of some units, from whoever holds the archive.
absl::Status read_keys(ClusterConnection& cluster, const RestoreHead& head,
                       const RestoreSource& source, const std::vector<RestoreUnit>& units,
                       const UnitKeyVisitor& visitor) {
  const ArchivePartId id = part_id(head, source.part);
  if (source.node.empty()) return read_unit_keys(source.folder, id, units, visitor);
  SLUICE_ASSIGN_OR_RETURN(const auto holders, SourceCluster::open(cluster, head.source_cluster));
  SLUICE_ASSIGN_OR_RETURN(const auto peer, holders->connection().peers().find(source.node));
  v1::ReadUnitsRequest request;
  *request.mutable_archive() = make_reference(id, head.name);
  for (const RestoreUnit& unit : units) {
    auto* out = request.add_units();
    out->set_part(unit.part);
    out->set_slot(unit.slot);
    out->set_first_sequence(unit.first_sequence);
    out->set_blocks(unit.blocks);
  }
  grpc::ClientContext call;
  set_timeout(call, cluster.options().idle_timeout_ms);
  const auto reader = peer->serving().ReadUnits(&call, request);
  v1::UnitKeys page;
  absl::Status visited;
  while (visited.ok() && reader->Read(&page)) {
    if (page.unit() >= units.size() || page.keys_size() != page.deletions_size()) {
      visited = data_loss("{}: its answer breaks the protocol", source.node);
    }
    for (int i = 0; visited.ok() && i < page.keys_size(); ++i) {
      visited = visitor.key(page.unit(), page.keys(i), page.deletions(i));
    }
    if (visited.ok() && !page.problem().empty()) {
      visited = visitor.problem(page.unit(), data_loss("{}", page.problem()));
    }
  }
  if (!visited.ok()) peer->link().cancel(call);
  const grpc::Status status = reader->Finish();
  SLUICE_RETURN_IF_ERROR(visited);
  return from_peer(status, source.node);
}

// Lists one chunk of units.
absl::Status list_units(ClusterConnection& cluster, const RestoreHead& head,
                        const RestoreSource& source, const std::vector<RestoreUnit>& units,
                        const FailedCallback& visit) {
  std::vector<RestoreUnit> rest = units;  // what has not been listed
  std::vector<std::string> problems(units.size());
  std::vector<RestoreUnit> readable;
  std::vector<size_t> places;  // of the readable ones
  for (size_t i = 0; i < units.size(); ++i) {
    if (units[i].damaged) continue;
    readable.push_back(units[i]);
    places.push_back(i);
  }
  const auto entry_of = [&](const RestoreUnit& unit) {
    FailedRecord entry;
    entry.restore = head.id;
    entry.node = unit.node;
    entry.reason = unit.reason;
    entry.slot = unit.slot;
    entry.first_block = unit.first_sequence;
    entry.blocks = unit.blocks;
    return entry;
  };
  UnitKeyVisitor visitor;
  absl::Status visited;
  visitor.key = [&](size_t i, std::string_view key, bool deletion) -> absl::Status {
    if (!head.mapping.takes(key)) return absl::OkStatus();
    RestoreUnit& left = rest[places[i]];
    uint64_t& count = deletion ? left.deletions : left.records;
    if (count > 0) --count;
    FailedRecord entry = entry_of(units[places[i]]);
    // One that has no possible name is listed under the archive's.
    if (!head.mapping.name(key, &entry.key).ok()) entry.key = key;
    entry.records = deletion ? 0 : 1;
    entry.deletions = deletion ? 1 : 0;
    visited = visit(entry);
    return visited;
  };
  visitor.problem = [&](size_t i, const absl::Status& why) {
    problems[places[i]] = message_of(why);
    return absl::OkStatus();
  };
  if (!readable.empty()) {
    const absl::Status status = read_keys(cluster, head, source, readable, visitor);
    SLUICE_RETURN_IF_ERROR(visited);
    // What fails stays listed, even where its keys cannot be told.
    if (!status.ok()) {
      for (std::string& problem : problems) {
        if (problem.empty()) problem = message_of(status);
      }
    }
  }
  for (size_t i = 0; i < rest.size(); ++i) {
    if (rest[i].records + rest[i].deletions == 0) continue;
    FailedRecord entry = entry_of(units[i]);
    entry.records = rest[i].records;
    entry.deletions = rest[i].deletions;
    if (!problems[i].empty()) {
      entry.reason += fmt::format("; their keys cannot be read: {}", problems[i]);
    }
    SLUICE_RETURN_IF_ERROR(visit(entry));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FailedCounts> count_failed(ClusterBlock& block, const RestoreHead& head) {
  FailedCounts counts;
  std::map<std::pair<bool, std::string>, RestoreCause> causes;
  for (const RestoreList& list : head.lists) {
    SLUICE_RETURN_IF_ERROR(visit_failed_units(
        block, head, list.part, [&](const std::vector<RestoreUnit>& units) -> absl::Status {
          for (const RestoreUnit& unit : units) {
            ++counts.units;
            counts.records += unit.records;
            counts.deletions += unit.deletions;
            RestoreCause& cause = causes[{unit.damaged, unit.node}];
            if (cause.blocks == 0) cause = {unit.node, unit.damaged, 0, 0, 0, unit.reason};
            cause.records += unit.records;
            cause.deletions += unit.deletions;
            cause.blocks += unit.blocks;
            if (!unit.damaged) continue;
            ++counts.damaged_units;
            if (counts.damaged.size() < FailedCounts::kDamagedNamed) {
              counts.damaged.push_back(
                  {unit.slot, unit.node, unit.reason, unit.records, unit.deletions});
            }
          }
          return absl::OkStatus();
        }));
  }
  for (auto& [key, cause] : causes) counts.causes.push_back(std::move(cause));
  return counts;
}

absl::Status list_failed(ClusterConnection& cluster, const RestoreHead& head,
                         const FailedCallback& visit) {
  if (head.extra_left > 0) {
    FailedRecord extra;
    extra.restore = head.id;
    extra.reason = head.extra_reason;
    extra.deletions = head.extra_left;
    SLUICE_RETURN_IF_ERROR(visit(extra));
  }
  for (const RestoreList& list : head.lists) {
    const auto source =
        std::find_if(head.sources.begin(), head.sources.end(),
                     [&](const RestoreSource& each) { return each.part == list.part; });
    if (source == head.sources.end()) {
      return data_loss("restore {}: part {} has a retry list but no archive", head.id, list.part);
    }
    SLUICE_RETURN_IF_ERROR(visit_failed_units(
        cluster.block(), head, list.part, [&](const std::vector<RestoreUnit>& units) {
          return list_units(cluster, head, *source, units, visit);
        }));
  }
  return absl::OkStatus();
}

}  // namespace sluice

#include "control/backup/backup_trees.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/deadline.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "base/text.h"
#include "control/backup/documents.h"
#include "control/cluster_block/stored_document.h"
#include "control/job/job.h"
#include "control/peers/rpc.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr char kSourcesFormat[] = "sluice.sources.1";
constexpr char kTreesFormat[] = "sluice.trees.1";
constexpr int64_t kCallMs = 10'000;
constexpr int64_t kPollMs = 100;
constexpr int64_t kSayAfterMs = 2'000;
// Without an answer of a node that is live.
constexpr int64_t kPatienceMs = 60'000;
constexpr size_t kPathsOfTree = 10;
constexpr size_t kBytesOfPath = 200;

std::string sources_key(std::string_view uuid) { return backup_folder_key(uuid) + "sources"; }
std::string trees_key(std::string_view uuid) { return backup_folder_key(uuid) + "trees"; }

// A tree of a node.
struct Wanted {
  std::string name;
  std::string node;
  friend auto operator<=>(const Wanted&, const Wanted&) = default;
};

absl::StatusOr<FoundTree> found_in(const v1::LookAtTreesReply::Tree& reply, const Wanted& wanted,
                                   uint32_t number, uint32_t slot_bits) {
  FoundTree found;
  found.tree = reply.found();
  found.tree.set_number(number);
  found.tree.set_name(wanted.name);
  found.tree.set_node(wanted.node);
  for (const auto& shard : reply.shards()) {
    PublishedTreeSlot slot;
    slot.slot = tree_slot(number, shard.shard());
    if (shard.shard() >= uint32_t{1} << slot_bits) {
      return data_loss("node {} has shard {} of tree {}", wanted.node, shard.shard(), wanted.name);
    }
    slot.digest.records = shard.entries();
    slot.digest.bytes = shard.bytes();
    found.slots.push_back(slot);
  }
  return found;
}

}  // namespace

std::vector<ClusterOp> sources_put(std::string_view uuid, const BackupSources& sources) {
  if (sources.is_default()) return {};
  v1::BackupSources document;
  for (const std::string& tree : sources.trees) document.add_trees(tree);
  document.set_no_records(!sources.records);
  document.set_rescan(sources.rescan);
  return {ClusterOp::put(sources_key(uuid), encode_document(kSourcesFormat, document), 0)};
}

absl::StatusOr<BackupSources> load_sources(ClusterBlock& block, std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(sources_key(uuid)));
  BackupSources sources;
  if (!entry.has_value()) return sources;
  v1::BackupSources document;
  SLUICE_RETURN_IF_ERROR(decode_document(entry->key, entry->value, kSourcesFormat, &document));
  sources.trees.assign(document.trees().begin(), document.trees().end());
  sources.records = !document.no_records();
  sources.rescan = document.rescan();
  return sources;
}

ClusterOp trees_put(std::string_view uuid, const BackupTrees& trees) {
  v1::BackupTrees document;
  for (const v1::BackupTree& tree : trees) *document.add_trees() = tree;
  return ClusterOp::put(trees_key(uuid), encode_document(kTreesFormat, document));
}

absl::StatusOr<BackupTrees> load_trees(ClusterBlock& block, std::string_view uuid) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(trees_key(uuid)));
  BackupTrees trees;
  if (!entry.has_value()) return trees;
  v1::BackupTrees document;
  SLUICE_RETURN_IF_ERROR(decode_document(entry->key, entry->value, kTreesFormat, &document));
  for (const v1::BackupTree& tree : document.trees()) {
    const bool next = trees.empty() || tree.number() > trees.back().number();
    if (!next || tree.number() == 0 || tree.number() > kMaxTreeNumber) {
      return damaged_document(entry->key, "its trees are not numbered");
    }
    trees.push_back(tree);
  }
  return trees;
}

std::vector<ArchivedTree> archived_trees(const BackupTrees& trees) {
  std::vector<ArchivedTree> archived;
  for (const v1::BackupTree& tree : trees) {
    archived.push_back({tree.number(), tree.name(), tree.node()});
  }
  return archived;
}

void put(const TreeReport& report, v1::BackupTree* to) {
  to->set_files(report.files);
  to->set_directories(report.directories);
  to->set_links(report.links);
  to->set_specials(report.specials);
  to->set_bytes(report.bytes);
  to->set_skipped(report.sockets + report.excluded + report.other_file_systems + report.loops);
  to->set_read_bytes(report.bytes_read);
  to->set_changed(report.changed.count);
  to->set_vanished(report.vanished.count);
  to->set_failed(report.failed.count + report.unreadable.count);
  const auto add = [](const TreePaths& paths, auto* list) {
    for (const auto& [path, why] : paths.first) {
      if (static_cast<size_t>(list->size()) >= kPathsOfTree) return;
      auto* one = list->Add();
      one->set_path(printable(path, kBytesOfPath));
      one->set_why(printable(why, kBytesOfPath));
    }
  };
  add(report.changed, to->mutable_changed_paths());
  add(report.unreadable, to->mutable_failed_paths());
  add(report.failed, to->mutable_failed_paths());
}

absl::StatusOr<std::vector<FoundTree>> look_at_trees(
    const NodeContext& context, const std::string& backup, uint64_t attempt,
    const BackupSources& sources, const std::function<bool()>& stopped,
    const std::function<void(std::string)>& on_wait) {
  std::set<Wanted> all;
  std::set<std::string_view> missing(sources.trees.begin(), sources.trees.end());
  const auto snapshot = context.directory->snapshot();
  for (const Member& member : snapshot->members) {
    for (const std::string& name : member.info.trees) {
      const bool asked_for =
          sources.trees.empty() ||
          std::find(sources.trees.begin(), sources.trees.end(), name) != sources.trees.end();
      missing.erase(name);
      if (!asked_for) continue;
      if (member.live) {
        all.insert({name, member.info.name});
      } else {
        on_wait(fmt::format("node {} is down: its tree {} is not in this backup", member.info.name,
                            name));
      }
    }
  }
  if (!missing.empty()) {
    return not_found("no node has a tree {}", printable(*missing.begin()));
  }
  if (all.size() > kMaxTreeNumber) {
    return invalid_argument("{} trees; a backup has at most {}", all.size(), kMaxTreeNumber);
  }
  std::map<std::string, std::vector<const Wanted*>> by_node;
  std::map<Wanted, uint32_t> numbers;
  for (const Wanted& wanted : all) {
    numbers.emplace(wanted, static_cast<uint32_t>(numbers.size() + 1));
    by_node[wanted.node].push_back(&wanted);
  }
  Mutex mutex;
  std::vector<FoundTree> found;
  absl::Status failure;
  Deadline say(*context.clock, kSayAfterMs);
  std::map<std::string, Deadline> patience;
  for (const auto& [node, trees] : by_node)
    patience.emplace(node, Deadline(*context.clock, kPatienceMs));
  while (!by_node.empty()) {
    if (stopped()) return cancelled("cancelled");
    std::vector<std::string> nodes;
    nodes.reserve(by_node.size());
    for (const auto& [node, trees] : by_node) nodes.push_back(node);
    parallel_for(nodes.size(), [&](size_t i) {
      const std::string& node = nodes[i];
      const std::vector<const Wanted*>& trees = by_node.at(node);
      const auto peer = context.peers->find(node);
      grpc::ClientContext call;
      set_timeout(call, kCallMs);
      v1::LookAtTreesRequest request;
      request.set_backup(backup);
      request.set_attempt(attempt);
      request.set_rescan(sources.rescan);
      for (const Wanted* wanted : trees) request.add_names(wanted->name);
      v1::LookAtTreesReply reply;
      const grpc::Status status =
          peer.ok() ? (*peer)->peer().LookAtTrees(&call, request, &reply)
                    : grpc::Status(grpc::StatusCode::UNAVAILABLE, "no member any more");
      if (peer.ok()) (*peer)->note(status);
      const MutexLock lock(mutex);
      if (!status.ok()) {
        const bool again = is_transient(from_grpc(status)) && !patience.at(node).passed();
        if (!again && failure.ok()) failure = from_peer(status, node);
        return;
      }
      patience.at(node).restart();
      std::vector<FoundTree> of_node;
      for (const Wanted* wanted : trees) {
        const auto& replies = reply.trees();
        const auto at = std::find_if(replies.begin(), replies.end(),
                                     [&](const auto& one) { return one.name() == wanted->name; });
        if (at == replies.end()) {
          failure = not_found("node {} has no tree {} any more", node, wanted->name);
          return;
        }
        if (!at->done()) return;
        if (!at->error().empty()) {
          failure = failed_precondition("node {}: tree {}: {}", node, wanted->name, at->error());
          return;
        }
        auto one = found_in(*at, *wanted, numbers.at(*wanted), context.cluster().slot_bits);
        if (!one.ok()) {
          failure = one.status();
          return;
        }
        of_node.push_back(*std::move(one));
      }
      std::move(of_node.begin(), of_node.end(), std::back_inserter(found));
    });
    SLUICE_RETURN_IF_ERROR(failure);
    for (const FoundTree& one : found) by_node.erase(one.tree.node());
    if (by_node.empty()) break;
    if (say.left_ms() == 0) {
      on_wait(
          fmt::format("looking at trees of {} nodes ({})", by_node.size(), by_node.begin()->first));
      say.restart();
    }
    context.clock->sleep_ns(kPollMs * kMs);
  }
  std::sort(found.begin(), found.end(), [](const FoundTree& a, const FoundTree& b) {
    return a.tree.number() < b.tree.number();
  });
  return found;
}

}  // namespace sluice

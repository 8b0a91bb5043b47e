#include "control/backup/node_trees.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include <spdlog/spdlog.h>

#include "base/guard.h"
#include "base/status.h"
#include "base/text.h"

namespace sluice {
namespace {

constexpr size_t kMaxNameBytes = 64;

bool is_name_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

}  // namespace

absl::Status check_tree_name(std::string_view name) {
  if (!name.empty() && name.size() <= kMaxNameBytes && name[0] != '.' && name[0] != '-' &&
      std::all_of(name.begin(), name.end(), is_name_byte)) {
    return absl::OkStatus();
  }
  return invalid_argument(
      "'{}' cannot be a tree's name: 1 to {} letters, digits, dots, dashes and underscores, not "
      "beginning with a dot or dash",
      printable(name, kMaxNameBytes), kMaxNameBytes);
}

absl::StatusOr<std::unique_ptr<NodeTrees>> NodeTrees::open(const std::vector<TreeSettings>& trees,
                                                           const std::string& directory,
                                                           uint32_t slot_bits) {
  auto all = std::unique_ptr<NodeTrees>(new NodeTrees(slot_bits));
  std::set<std::string_view> names;
  for (const TreeSettings& settings : trees) {
    SLUICE_RETURN_IF_ERROR(check_tree_name(settings.name));
    if (!names.insert(settings.name).second) {
      return invalid_argument("two trees have the name {}", settings.name);
    }
    auto tree = std::make_unique<Tree>();
    tree->settings = settings;
    tree->scan.one_file_system = settings.one_file_system;
    for (const std::string& pattern : settings.exclude) {
      SLUICE_RETURN_IF_ERROR(with_context(tree->scan.exclude.add(pattern),
                                          fmt::format("tree {}: exclude", settings.name)));
    }
    tree->directory = fmt::format("{}/{}", directory, settings.name);
    SLUICE_ASSIGN_OR_RETURN(tree->catalogue, TreeCatalogue::open(tree->directory, slot_bits));
    all->trees_.push_back(std::move(tree));
  }
  return all;
}

NodeTrees::~NodeTrees() {
  std::list<std::shared_ptr<Look>> all;
  {
    const MutexLock lock(mutex_);
    all.swap(retired_);
    for (const auto& tree : trees_) all.splice(all.end(), tree->looks);
  }
  for (const auto& look : all) look->stop = true;
  for (const auto& look : all) end(*look);
}

void NodeTrees::end(Look& look) {
  if (look.thread.joinable()) look.thread.join();
}

absl::StatusOr<std::unique_ptr<TreeSource>> NodeTrees::open_source(const Tree& tree,
                                                                   uint32_t number) {
  TreeSourceOptions options;
  options.root = tree.settings.path;
  {
    const MutexLock lock(mutex_);
    options.catalogue = tree.catalogue;
  }
  if (options.catalogue == nullptr) return unavailable("the tree's catalogue cannot be opened");
  options.number = number;
  options.slot_bits = slot_bits_;
  options.scan = tree.scan;
  return TreeSource::open(options);
}

absl::Status NodeTrees::look_at(Tree& tree, Look& look, bool rescan, Seen* seen) {
  SLUICE_ASSIGN_OR_RETURN(const auto source, open_source(tree, 1));
  SLUICE_RETURN_IF_ERROR(source->look(rescan, [&look] { return look.stop.load(); }));
  seen->shards = source->shards();
  seen->report = source->report();
  return absl::OkStatus();
}

// Nothing but time is lost with a catalogue.
absl::Status NodeTrees::begin_again(Tree& tree) {
  const MutexLock lock(mutex_);
  if (tree.catalogue.use_count() > 1) {
    return unavailable("the tree's catalogue is damaged, and a backup still reads it");
  }
  tree.catalogue.reset();
  std::error_code error;
  std::filesystem::remove_all(tree.directory, error);
  if (error) return unavailable("remove {}: {}", tree.directory, error.message());
  SLUICE_ASSIGN_OR_RETURN(tree.catalogue, TreeCatalogue::open(tree.directory, slot_bits_));
  return absl::OkStatus();
}

void NodeTrees::run(Tree& tree, Look& look, bool rescan) {
  Seen seen;
  seen.name = tree.settings.name;
  seen.status = guarded("looking at a tree", [&]() -> absl::Status {
    const MutexLock lock(tree.looking);
    const absl::Status looked = look_at(tree, look, rescan, &seen);
    if (!absl::IsDataLoss(looked)) return looked;
    spdlog::warn("tree {}: {}; it is read as a whole", tree.settings.name, message_of(looked));
    SLUICE_RETURN_IF_ERROR(begin_again(tree));
    return look_at(tree, look, true, &seen);
  });
  seen.done = true;
  const MutexLock lock(look.mutex);
  look.seen = std::move(seen);
}

// It ends soon; its thread is waited for when it has.
void NodeTrees::retire(std::shared_ptr<Look> look) {
  look->stop = true;
  retired_.push_back(std::move(look));
  retired_.remove_if([](const std::shared_ptr<Look>& one) {
    {
      const MutexLock lock(one->mutex);
      if (!one->seen.done) return false;
    }
    end(*one);
    return true;
  });
}

std::shared_ptr<NodeTrees::Look> NodeTrees::look_of(Tree& tree, const std::string& backup,
                                                    uint64_t attempt, bool rescan) {
  for (auto at = tree.looks.begin(); at != tree.looks.end(); ++at) {
    if ((*at)->backup != backup) continue;
    if ((*at)->attempt >= attempt) return *at;
    retire(*at);
    tree.looks.erase(at);
    break;
  }
  auto look = std::make_shared<Look>();
  look->backup = backup;
  look->attempt = attempt;
  {
    const MutexLock lock(look->mutex);
    look->seen.name = tree.settings.name;
  }
  look->thread = guarded_thread("looking at a tree",
                                [this, &tree, look, rescan] { run(tree, *look, rescan); });
  tree.looks.push_front(look);
  while (tree.looks.size() > kKeptLooks) {
    retire(tree.looks.back());
    tree.looks.pop_back();
  }
  return look;
}

std::vector<NodeTrees::Seen> NodeTrees::look(const std::string& backup, uint64_t attempt,
                                             const std::vector<std::string>& names, bool rescan) {
  std::vector<std::shared_ptr<Look>> looks;
  {
    const MutexLock lock(mutex_);
    for (const auto& tree : trees_) {
      const bool wanted = names.empty() ||
                          std::find(names.begin(), names.end(), tree->settings.name) != names.end();
      if (wanted) looks.push_back(look_of(*tree, backup, attempt, rescan));
    }
  }
  std::vector<Seen> seen;
  for (const auto& look : looks) {
    const MutexLock lock(look->mutex);
    seen.push_back(look->seen);
  }
  return seen;
}

absl::StatusOr<std::shared_ptr<TreeSource>> NodeTrees::source(std::string_view name,
                                                              uint32_t number) {
  for (const auto& tree : trees_) {
    if (tree->settings.name != name) continue;
    SLUICE_ASSIGN_OR_RETURN(auto source, open_source(*tree, number));
    SLUICE_RETURN_IF_ERROR(source->take_last_look());
    return std::shared_ptr<TreeSource>(std::move(source));
  }
  return not_found("this node has no tree {}", name);
}

}  // namespace sluice

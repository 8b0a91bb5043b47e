#include "tests/simulation/world/archive_damage.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <vector>

#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

constexpr std::string_view kArchives = "/archives/";

// Whose part a file of an archive directory belongs to, by its path on the disk.
std::string backup_of(const std::string& file) {
  return file.substr(kArchives.size(), file.find('/', kArchives.size()) - kArchives.size());
}

}  // namespace

std::set<std::string> backups_of(Host& host) {
  std::set<std::string> backups;
  for (const std::string& file : host.disk().files("/archives")) backups.insert(backup_of(file));
  return backups;
}

void rot(Host& host, Oracle& oracle, Random& random) {
  const std::vector<std::string> files = host.disk().files("/archives");
  if (files.empty()) return;
  const std::string& file = files[random.below(files.size())];
  InodePtr inode;
  if (host.disk().find(host.disk().root(), file, &inode) != 0 || inode->content.size() == 0) return;
  const uint64_t offset = random.below(inode->content.size());
  if (host.disk().flip_bit(file, offset, static_cast<int>(random.below(8))) != 0) return;
  trace(fmt::format("byte {} of {} of {} has changed", offset, file, host.name()));
  oracle.archives_damaged(host, {backup_of(file)});
}

void swap_archives(Host& host, Host& other, Oracle& oracle) {
  const std::set<std::string> here = backups_of(host);
  const std::set<std::string> there = backups_of(other);
  const Disk::Tree archives = host.disk().snapshot("/archives");
  host.disk().restore("/archives", other.disk().snapshot("/archives"));
  other.disk().restore("/archives", archives);
  std::set<std::string> both;
  std::set_intersection(here.begin(), here.end(), there.begin(), there.end(),
                        std::inserter(both, both.end()));
  for (const std::set<std::string>& backups : {here, there}) {
    oracle.archives_damaged(host, backups);
    oracle.archives_damaged(other, backups);
  }
  oracle.parts_exchanged(both);
}

void swap_backups(Host& host, Oracle& oracle) {
  const std::set<std::string> backups = backups_of(host);
  if (backups.size() < 2) return;
  const std::string first = std::string(kArchives) + *backups.begin();
  const std::string last = std::string(kArchives) + *backups.rbegin();
  const Disk::Tree tree = host.disk().snapshot(first);
  host.disk().restore(first, host.disk().snapshot(last));
  host.disk().restore(last, tree);
  const std::set<std::string> exchanged = {*backups.begin(), *backups.rbegin()};
  oracle.archives_damaged(host, exchanged);
  oracle.parts_exchanged(exchanged);
}

}  // namespace sluice::simulation

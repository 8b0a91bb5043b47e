#include "tests/simulation/world/restored.h"

#include <fmt/format.h>

#include <algorithm>

namespace sluice::simulation {

void Restored::begin(const Content* archive) {
  if (archive == nullptr) {
    ++unknown_;
    return;
  }
  for (const auto& [key, record] : *archive) possible_[key].push_back(record);
}

void Restored::end(const std::string& backup, const Content& archive, End end) {
  // One that ends otherwise leaves the lists as they are.
  if (end == End::kCompleted) with_failures_.erase(backup);
  if (end == End::kWithFailures) with_failures_[backup] = archive;
  if (end != End::kCompleted) return;
  for (const auto& [key, record] : archive) {
    const auto [newest, added] = completed_.try_emplace(key, record);
    if (!added && newest->second.version < record.version) newest->second = record;
  }
}

bool Restored::may_hold(const std::string& key, const std::string& value) const {
  const auto found = possible_.find(key);
  if (found == possible_.end()) return is_unknown();
  return is_unknown() || std::any_of(found->second.begin(), found->second.end(),
                                     [&](const Record& record) { return record.value == value; });
}

// A newer record with this value, or a newer deletion.
bool Restored::has_newer(const std::string& key, const Record& than,
                         const std::string* value) const {
  const std::vector<Record>& records = possible_.at(key);
  return std::any_of(records.begin(), records.end(), [&](const Record& record) {
    if (record.version < than.version || record.tombstone != (value == nullptr)) return false;
    return value == nullptr || record.value == *value;
  });
}

std::string Restored::fault_of(const std::map<std::string, std::string>& records) const {
  if (is_unknown()) return "";
  for (const auto& [key, record] : completed_) {
    const auto found = records.find(key);
    const std::string* const value = found == records.end() ? nullptr : &found->second;
    if (has_newer(key, record, value)) continue;
    return fmt::format("{} is {}, a completed restore had {} of stamp {:#x}", key,
                       value == nullptr ? "missing" : value->substr(0, 60),
                       record.tombstone ? "its deletion" : record.value.substr(0, 60),
                       record.version.stamp);
  }
  return "";
}

std::string Restored::fault_of_lists(const std::map<std::string, std::string>& records,
                                     const Listed& listed) const {
  if (is_unknown()) return "";
  for (const auto& [backup, archive] : with_failures_) {
    uint64_t missing = 0;
    for (const auto& [key, record] : archive) {
      const auto found = records.find(key);
      const std::string* const value = found == records.end() ? nullptr : &found->second;
      if (has_newer(key, record, value) || listed.keys.contains(key)) continue;
      if (++missing <= listed.others) continue;
      return fmt::format("{} and {} more of {} were not restored, and are on no list", key,
                         missing - 1, backup);
    }
  }
  return "";
}

}  // namespace sluice::simulation

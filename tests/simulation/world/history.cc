#include "tests/simulation/world/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "tests/simulation/simulation.h"

namespace sluice::simulation {

std::string History::value_of(size_t number) const {
  std::string value = fmt::format("{}:{}", number, writes_[number].key);
  const size_t bytes = std::max(writes_[number].value_bytes, value.size());
  value.resize(bytes, static_cast<char>('a' + number % 26));
  return value;
}

std::string History::begin(std::string_view key, size_t value_bytes, size_t* number) {
  *number = writes_.size();
  writes_.push_back({std::string(key), false, value_bytes, now_ns()});
  by_key_[std::string(key)].push_back(*number);
  return value_of(*number);
}

size_t History::begin_erasure(std::string_view key) {
  writes_.push_back({std::string(key), true, 0, now_ns()});
  by_key_[std::string(key)].push_back(writes_.size() - 1);
  erasures_[&Process::current()] = writes_.size() - 1;
  return writes_.size() - 1;
}

std::string History::begin_behind(size_t before, size_t value_bytes, size_t* number) {
  const std::string key = writes_[before].key;
  std::string value = begin(key, value_bytes, number);
  writes_[before].followed_by = *number;
  return value;
}

void History::acknowledged(size_t number) {
  writes_[number].end_ns = now_ns();
  ++acknowledged_;
}

void History::seen(std::string_view key, std::string_view value) {
  const auto number = write_of(key, value);
  if (!number.has_value() || writes_[*number].seen_ns != INT64_MAX) return;
  writes_[*number].seen_ns = now_ns();
}

std::optional<size_t> History::write_of(std::string_view key, std::string_view value) const {
  size_t number = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
  if (parsed.ec != std::errc() || number >= writes_.size()) return std::nullopt;
  if (writes_[number].key != key || writes_[number].erasure) return std::nullopt;
  if (value_of(number) != value) return std::nullopt;
  return number;
}

void History::restored(std::string_view key, std::string_view value, int64_t begin_ns) {
  const auto number = write_of(key, value);
  if (!number.has_value()) return;
  writes_[*number].restore_begin_ns = begin_ns;
  writes_[*number].restore_end_ns = now_ns();
}

bool History::is_certain(const Write& write, int64_t begin_ns, int64_t end_ns) const {
  return std::none_of(losses_.begin(), losses_.end(), [&](const Loss& loss) {
    const bool is_restored =
        write.restore_end_ns <= begin_ns && loss.until_ns < write.restore_begin_ns;
    return loss.until_ns <= end_ns && write.begin_ns <= loss.until_ns &&
           write.end_ns >= loss.from_ns && !is_restored;
  });
}

std::string History::fault_of(std::string_view key, const std::optional<std::string>& value,
                              int64_t begin_ns, int64_t end_ns) const {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    return value.has_value() ? fmt::format("{} was never written", key) : "";
  }
  // The write that has taken effect and began last: what took effect before it began is over.
  const Write* last = nullptr;
  size_t last_number = 0;
  for (const size_t number : found->second) {
    const Write& write = writes_[number];
    const int64_t effective_ns = gets_settle_ ? write.effective_ns() : write.end_ns;
    if (effective_ns > begin_ns || !is_certain(write, begin_ns, end_ns)) continue;
    if (last == nullptr || write.begin_ns > last->begin_ns) {
      last = &write;
      last_number = number;
    }
  }
  const auto is_over = [&](const Write& write) {
    if (write.followed_by.has_value()) {
      const Write& next = writes_[*write.followed_by];
      if (next.end_ns <= begin_ns && is_certain(next, begin_ns, end_ns)) return true;
    }
    return last != nullptr && write.effective_ns() < last->begin_ns;
  };
  if (value.has_value()) {
    const auto number = write_of(key, *value);
    if (!number.has_value()) {
      return fmt::format("{} has a value that nobody wrote: {}", key, value->substr(0, 60));
    }
    if (!is_over(writes_[*number])) return "";
    const Write& read = writes_[*number];
    return fmt::format(
        "{} has the value of write {} (version {:#x} of {}), acknowledged at {} ns and seen at {} "
        "ns, though write {} ({}, version {:#x} of {}), begun at {} ns, was acknowledged or seen "
        "at "
        "{} ns and the read began at {} ns",
        key, *number, read.version.stamp, read.version.node, read.end_ns, read.seen_ns, last_number,
        last->erasure ? "an erasure" : "a put", last->version.stamp, last->version.node,
        last->begin_ns, last->effective_ns(), begin_ns);
  }
  if (last == nullptr || last->erasure) return "";
  for (const size_t number : found->second) {
    if (writes_[number].erasure && !is_over(writes_[number])) return "";
  }
  return fmt::format("{} is missing: write {}, begun at {} ns, was acknowledged or seen at {} ns",
                     key, last_number, last->begin_ns, last->effective_ns());
}

void History::sent_with(std::string_view key, std::string_view value, bool erasure,
                        const Version& version) {
  if (!erasure) {
    if (const auto number = write_of(key, value)) give_version(writes_[*number], version);
    return;
  }
  const auto began = erasures_.find(&Process::current());
  if (began != erasures_.end() && writes_[began->second].key == key) {
    give_version(writes_[began->second], version);
  }
}

void History::give_version(Write& write, const Version& version) {
  if (write.version.stamp != 0 && write.version != version) {
    fail(fmt::format("I1: a write of {} is sent with two versions", write.key));
  }
  write.version = version;
}

void History::counts_as_of(std::string_view key, const Version& version, uint64_t as_of) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  for (const size_t number : found->second) {
    Write& write = writes_[number];
    if (write.version == version) write.as_of = std::max(write.as_of, as_of);
  }
}

const History::Write* History::newest_at(std::string_view key, uint64_t stamp) const {
  const Write* newest = nullptr;
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  for (const size_t number : found->second) {
    const Write& write = writes_[number];
    if (!write.acknowledged() || !is_certain(write, 0, INT64_MAX)) continue;
    if (write.version.stamp == 0) continue;
    if (std::max(write.version.stamp, write.as_of) > stamp) continue;
    if (newest == nullptr || newest->version < write.version) newest = &write;
  }
  return newest;
}

std::vector<std::string> History::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, writes] : by_key_) keys.push_back(key);
  return keys;
}

}  // namespace sluice::simulation

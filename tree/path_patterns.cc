#include "tree/path_patterns.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "base/text.h"

namespace sluice {
namespace {

constexpr std::string_view kAnyDirectories = "**";

std::vector<std::string> split_names(std::string_view path) {
  std::vector<std::string> names;
  while (true) {
    const size_t slash = path.find('/');
    names.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return names;
    path.remove_prefix(slash + 1);
  }
}

// One element of a pattern's name, from `at` on; moves `at` behind it.
bool element_matches(std::string_view pattern, size_t* at, unsigned char byte) {
  const char kind = pattern[(*at)++];
  if (kind == '?') return true;
  if (kind == '\\' && *at < pattern.size())
    return static_cast<unsigned char>(pattern[(*at)++]) == byte;
  if (kind != '[' || *at == pattern.size()) return static_cast<unsigned char>(kind) == byte;
  const bool negated = pattern[*at] == '!' || pattern[*at] == '^';
  // The first byte of a set may be a ']'. A bracket that is not closed stands for itself.
  const size_t end = pattern.find(']', *at + (negated ? 2 : 1));
  if (end == std::string_view::npos) return byte == '[';
  bool in = false;
  for (size_t i = *at + (negated ? 1 : 0); i < end; ++i) {
    const auto low = static_cast<unsigned char>(pattern[i]);
    auto high = low;
    if (i + 2 < end && pattern[i + 1] == '-') {
      high = static_cast<unsigned char>(pattern[i + 2]);
      i += 2;
    }
    in = in || (low <= byte && byte <= high);
  }
  *at = end + 1;
  return in != negated;
}

}  // namespace

// Goes back to the last '*' alone: one before it could match no more than it does.
bool name_matches(std::string_view pattern, std::string_view name) {
  size_t at = 0;
  size_t star = std::string_view::npos;
  size_t star_name = 0;
  for (size_t i = 0; i < name.size();) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      star_name = i;
      continue;
    }
    if (at < pattern.size() && element_matches(pattern, &at, static_cast<unsigned char>(name[i]))) {
      ++i;
      continue;
    }
    if (star == std::string_view::npos) return false;
    at = star + 1;
    i = ++star_name;
  }
  while (at < pattern.size() && pattern[at] == '*') ++at;
  return at == pattern.size();
}

namespace {

// The same one level up: names for bytes, "**" for '*'.
bool path_matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  size_t at = 0;
  size_t star = pattern.size();
  size_t star_name = 0;
  for (size_t i = 0; i < path.size();) {
    if (at < pattern.size() && pattern[at] == kAnyDirectories) {
      // At the end it stands for what is below, not for the directory itself.
      if (at + 1 == pattern.size()) return true;
      star = at++;
      star_name = i;
      continue;
    }
    if (at < pattern.size() && name_matches(pattern[at], path[i])) {
      ++at;
      ++i;
      continue;
    }
    if (star == pattern.size()) return false;
    at = star + 1;
    i = ++star_name;
  }
  return at == pattern.size();
}

}  // namespace

absl::Status PathPatterns::add(std::string_view text) {
  if (text.size() > kMaxPatternBytes)
    return invalid_argument("a pattern of {} bytes: at most {}", text.size(), kMaxPatternBytes);
  if (patterns_.size() == kMaxPatterns) return invalid_argument("over {} patterns", kMaxPatterns);
  const std::string_view whole = text;
  Pattern pattern;
  if (text.starts_with('!')) {
    pattern.takes = true;
    text.remove_prefix(1);
  }
  while (text.ends_with('/')) {
    pattern.directories_only = true;
    text.remove_suffix(1);
  }
  if (text.starts_with('/')) {
    pattern.anchored = true;
    text.remove_prefix(1);
  }
  pattern.names = split_names(text);
  pattern.anchored = pattern.anchored || pattern.names.size() > 1;
  for (const std::string& name : pattern.names) {
    if (name.empty() || name == "." || name == "..") {
      return invalid_argument("pattern '{}' matches nothing: it has an empty, '.' or '..' name",
                              printable(whole));
    }
  }
  patterns_.push_back(std::move(pattern));
  return absl::OkStatus();
}

bool PathPatterns::excludes(std::string_view path, bool directory) const {
  const std::vector<std::string> names = split_names(path);
  for (auto pattern = patterns_.rbegin(); pattern != patterns_.rend(); ++pattern) {
    if (pattern->directories_only && !directory) continue;
    const bool matches = pattern->anchored ? path_matches(pattern->names, names)
                                           : pattern->names[0] == kAnyDirectories ||
                                                 name_matches(pattern->names[0], names.back());
    if (matches) return !pattern->takes;
  }
  return false;
}

bool PathPatterns::excludes_with_parents(std::string_view path, bool directory) const {
  if (empty() || path == ".") return false;
  for (size_t slash = path.find('/'); slash != std::string_view::npos;
       slash = path.find('/', slash + 1)) {
    if (excludes(path.substr(0, slash), true)) return true;
  }
  return excludes(path, directory);
}

}  // namespace sluice

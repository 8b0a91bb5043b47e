#include "control/cluster_block/cluster_block.h"

#include <algorithm>

#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/checks.h"
#include "control/cluster_block/sqlite_cluster_block.h"

namespace sluice {
namespace {

constexpr std::string_view kForms = "sqlite:PATH or etcd://HOST:PORT[,HOST:PORT...]/PREFIX";

absl::Status bad_url(std::string_view url, std::string_view why) {
  return invalid_argument("cluster URL '{}': {}; it has the form {}", printable(url), why, kForms);
}

bool is_host_and_port(std::string_view endpoint) {
  const size_t colon = endpoint.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view host = endpoint.substr(0, colon);
  const std::string_view port = endpoint.substr(colon + 1);
  const bool bracketed = host.starts_with('[') && host.ends_with(']') && host.size() > 2;
  if (!bracketed && host.find_first_of(":[] ") != std::string_view::npos) return false;
  if (port.empty() || port.size() > 5) return false;
  uint32_t number = 0;
  for (const char c : port) {
    if (c < '0' || c > '9') return false;
    number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  return number >= 1 && number <= 65535;
}

absl::StatusOr<ClusterUrl> parse_etcd(std::string_view url, std::string_view rest) {
  ClusterUrl parsed;
  parsed.kind = ClusterUrl::Kind::kEtcd;
  const size_t slash = rest.find('/');
  if (slash == std::string_view::npos || slash + 1 == rest.size()) {
    return bad_url(url, "it has no /PREFIX");
  }
  parsed.prefix = rest.substr(slash + 1);
  std::string_view endpoints = rest.substr(0, slash);
  for (;;) {
    const size_t comma = endpoints.find(',');
    const std::string_view endpoint = endpoints.substr(0, comma);
    if (!is_host_and_port(endpoint)) {
      return bad_url(url, fmt::format("'{}' is not HOST:PORT", printable(endpoint)));
    }
    parsed.endpoints.emplace_back(endpoint);
    if (comma == std::string_view::npos) break;
    endpoints.remove_prefix(comma + 1);
  }
  return parsed;
}

}  // namespace

absl::StatusOr<Revision> ClusterBlock::compare_and_swap(std::string_view key,
                                                        std::string_view value, Revision expected,
                                                        LeaseId lease) {
  return commit({ClusterOp::put(std::string(key), std::string(value), expected, lease)});
}

absl::StatusOr<Revision> ClusterBlock::put(std::string_view key, std::string_view value,
                                           LeaseId lease) {
  return commit({ClusterOp::put(std::string(key), std::string(value), {}, lease)});
}

absl::Status ClusterBlock::erase(std::string_view key, std::optional<Revision> expected) {
  return commit({ClusterOp::erase(std::string(key), expected)}).status();
}

absl::StatusOr<ClusterUrl> parse_cluster_url(std::string_view url) {
  constexpr std::string_view kSqlite = "sqlite:";
  constexpr std::string_view kEtcd = "etcd://";
  if (url.find('\0') != std::string_view::npos) return bad_url(url, "it has a zero byte");
  if (url.starts_with(kSqlite)) {
    if (url.size() == kSqlite.size()) return bad_url(url, "it has no PATH");
    ClusterUrl parsed;
    parsed.kind = ClusterUrl::Kind::kSqlite;
    parsed.path = url.substr(kSqlite.size());
    return parsed;
  }
  if (url.starts_with(kEtcd)) return parse_etcd(url, url.substr(kEtcd.size()));
  return bad_url(url, url.empty() ? "it is empty" : "its scheme is unknown");
}

absl::StatusOr<std::unique_ptr<ClusterBlock>> open_cluster_block(
    std::string_view url, const OpenClusterOptions& options) {
  SLUICE_ASSIGN_OR_RETURN(const ClusterUrl parsed, parse_cluster_url(url));
  if (parsed.kind == ClusterUrl::Kind::kEtcd) {
    return failed_precondition(
        "cluster URL '{}': this build has no etcd cluster block; use sqlite:PATH, which serves all "
        "nodes of one machine",
        url);
  }
  SqliteClusterBlockOptions sqlite;
  sqlite.path = parsed.path;
  sqlite.create = options.create;
  sqlite.clock = options.clock;
  return open_sqlite_cluster_block(sqlite);
}

}  // namespace sluice

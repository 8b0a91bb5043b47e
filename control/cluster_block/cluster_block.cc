#include "control/cluster_block/cluster_block.h"

#include <algorithm>

#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/checks.h"
#include "control/cluster_block/etcd_access.h"
#include "control/cluster_block/etcd_cluster_block.h"
#include "control/cluster_block/etcd_keys.h"
#include "control/cluster_block/sqlite_cluster_block.h"

namespace sluice {
namespace {

constexpr std::string_view kForms = "sqlite:PATH or etcd://HOST:PORT[,HOST:PORT...]/PREFIX";

// What may hold a password is not named.
absl::Status bad_url(std::string_view url, std::string_view why) {
  if (url.find('@') != std::string_view::npos && !url.starts_with("sqlite:")) {
    return invalid_argument(
        "the cluster URL, which is not shown because its '@' may follow a password, has not the "
        "form {}; a user of etcd is named by SLUICE_ETCD_USER",
        kForms);
  }
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

// Why it cannot be the prefix of a cluster's keys; empty when it can.
std::string fault_of_prefix(std::string_view prefix) {
  using cluster_block::EtcdKeys;
  if (prefix.empty()) return "it has no /PREFIX";
  if (prefix.size() > kMaxPrefixBytes) {
    return fmt::format("its PREFIX has {} bytes; at most {}", prefix.size(), kMaxPrefixBytes);
  }
  for (size_t begin = 0; begin <= prefix.size();) {
    const size_t end = std::min(prefix.find('/', begin), prefix.size());
    const std::string_view part = prefix.substr(begin, end - begin);
    if (part.empty()) return "a part of its PREFIX is empty";
    if (part == EtcdKeys::kDocuments || part == EtcdKeys::kMarks) {
      return fmt::format("a part of its PREFIX is '{}', which names what is below a PREFIX", part);
    }
    begin = end + 1;
  }
  return "";
}

absl::StatusOr<ClusterUrl> parse_etcd(std::string_view url, std::string_view rest) {
  ClusterUrl parsed;
  parsed.kind = ClusterUrl::Kind::kEtcd;
  const size_t slash = rest.find('/');
  if (rest.substr(0, slash).find('@') != std::string_view::npos) {
    return invalid_argument(
        "a cluster URL of etcd names no user: set SLUICE_ETCD_USER and SLUICE_ETCD_PASSWORD_FILE; "
        "it has the form {}",
        kForms);
  }
  if (slash == std::string_view::npos) return bad_url(url, "it has no /PREFIX");
  std::string_view prefix = rest.substr(slash + 1);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (const std::string fault = fault_of_prefix(prefix); !fault.empty()) return bad_url(url, fault);
  parsed.prefix = prefix;
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
    EtcdClusterBlockOptions etcd;
    etcd.endpoints = parsed.endpoints;
    etcd.prefix = parsed.prefix;
    etcd.call_ms = options.call_ms;
    SLUICE_ASSIGN_OR_RETURN(etcd.access, cluster_block::etcd_access_from_environment());
    return open_etcd_cluster_block(etcd);
  }
  SqliteClusterBlockOptions sqlite;
  sqlite.path = parsed.path;
  sqlite.create = options.create;
  sqlite.clock = options.clock;
  return open_sqlite_cluster_block(sqlite);
}

}  // namespace sluice

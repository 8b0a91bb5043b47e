#include "control/cluster_block/etcd_access.h"

#include <cstdlib>
#include <string_view>

#include "base/file.h"
#include "base/status.h"

namespace sluice::cluster_block {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 20;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<std::string> content_of(const char* name) {
  const std::string path = variable(name);
  if (path.empty()) return std::string();
  auto content = read_file(path, kMaxFileBytes);
  if (!content.ok()) return with_context(content.status(), name);
  return content;
}

absl::Status read_user(EtcdAccess& access) {
  access.user = variable("SLUICE_ETCD_USER");
  SLUICE_ASSIGN_OR_RETURN(access.password, content_of("SLUICE_ETCD_PASSWORD_FILE"));
  if (!variable("SLUICE_ETCD_PASSWORD_FILE").empty()) {
    if (access.user.empty()) {
      return invalid_argument("SLUICE_ETCD_PASSWORD_FILE is set, but SLUICE_ETCD_USER is not");
    }
    while (access.password.ends_with('\n') || access.password.ends_with('\r')) {
      access.password.pop_back();
    }
    return absl::OkStatus();
  }
  if (access.user.empty()) return absl::OkStatus();
  const size_t colon = access.user.find(':');
  if (colon == std::string::npos || colon == 0) {
    return invalid_argument(
        "SLUICE_ETCD_USER names no password: set SLUICE_ETCD_PASSWORD_FILE to a file that holds "
        "it, or give both as USER:PASSWORD");
  }
  access.password = access.user.substr(colon + 1);
  access.user.resize(colon);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EtcdAccess> etcd_access_from_environment() {
  EtcdAccess access;
  SLUICE_RETURN_IF_ERROR(read_user(access));
  SLUICE_ASSIGN_OR_RETURN(access.authorities, content_of("SLUICE_ETCD_CA"));
  SLUICE_ASSIGN_OR_RETURN(access.certificate, content_of("SLUICE_ETCD_CERT"));
  SLUICE_ASSIGN_OR_RETURN(access.key, content_of("SLUICE_ETCD_KEY"));
  if (access.certificate.empty() != access.key.empty()) {
    return invalid_argument("SLUICE_ETCD_CERT and SLUICE_ETCD_KEY are set together or not at all");
  }
  if (!access.certificate.empty() && access.authorities.empty()) {
    return invalid_argument(
        "SLUICE_ETCD_CERT is set, but SLUICE_ETCD_CA is not: it names who signed etcd's own "
        "certificate");
  }
  return access;
}

}  // namespace sluice::cluster_block

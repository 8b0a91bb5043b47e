// Who we are to etcd, and how its certificate is checked. Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_ACCESS_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_ACCESS_H_

#include <string>

#include "absl/status/statusor.h"

namespace sluice::cluster_block {

struct EtcdAccess {
  std::string user;  // empty: none
  std::string password;
  // PEM. Empty: plain text.
  std::string authorities;
  std::string certificate;  // of this client; empty: none
  std::string key;
};

// From the environment, which other users of the machine cannot read, unlike a command line:
//   SLUICE_ETCD_USER            USER, or USER:PASSWORD
//   SLUICE_ETCD_PASSWORD_FILE   a file that holds the password; what the user is called may have
//                               colons then
//   SLUICE_ETCD_CA              a file of PEM certificates: TLS, and etcd's must be signed by one
//   SLUICE_ETCD_CERT, SLUICE_ETCD_KEY   files of PEM: this client's own, together
// INVALID_ARGUMENT, naming the variable, for what does not go together; the error of a file that
// cannot be read.
absl::StatusOr<EtcdAccess> etcd_access_from_environment();

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_ACCESS_H_

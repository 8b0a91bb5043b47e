#include "control/peers/cluster_connection.h"

#include <utility>

#include "base/status.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<ClusterConnection>> ClusterConnection::open(std::string_view url,
                                                                           const Options& options) {
  SLUICE_ASSIGN_OR_RETURN(auto block,
                          options.open_block ? options.open_block(url) : open_cluster_block(url));
  SLUICE_ASSIGN_OR_RETURN(auto directory, Directory::open(*block));
  ClusterBlock& reference = *block;
  return std::unique_ptr<ClusterConnection>(
      new ClusterConnection(std::move(block), reference, url, std::move(directory), options));
}

absl::StatusOr<std::unique_ptr<ClusterConnection>> ClusterConnection::open(ClusterBlock& block,
                                                                           std::string_view url,
                                                                           const Options& options) {
  SLUICE_ASSIGN_OR_RETURN(auto directory, Directory::open(block));
  return std::unique_ptr<ClusterConnection>(
      new ClusterConnection(nullptr, block, url, std::move(directory), options));
}

ClusterConnection::ClusterConnection(std::unique_ptr<ClusterBlock> owned, ClusterBlock& block,
                                     std::string_view url, std::unique_ptr<Directory> directory,
                                     const Options& options)
    : owned_(std::move(owned)),
      block_(block),
      url_(url),
      options_(options),
      clock_(options.clock == nullptr ? system_clock() : *options.clock),
      directory_(std::move(directory)),
      peers_(*directory_, clock_, options.dialer == nullptr ? grpc_dialer() : *options.dialer) {}

Patience ClusterConnection::patience() const {
  Patience patience;
  patience.limit_ms = options_.idle_timeout_ms;
  return patience;
}

}  // namespace sluice

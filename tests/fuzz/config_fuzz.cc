// Feeds the reader of a node's configuration anything.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "control/node/config.h"
#include "tests/fuzz/oracle.h"

using namespace sluice;
using sluice::testing::require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config =
      parse_node_config({reinterpret_cast<const char*>(data), size}, "/etc/sluice/n1.toml");
  sluice::testing::require_names(config.status(), "/etc/sluice/n1.toml");
  if (!config.ok()) {
    require(config.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  require(!config->name.empty() && config->name.size() <= 63);
  require(!config->cluster.empty() && !config->data_folder.empty() &&
          !config->archive_folder.empty() && config->data_folder != config->archive_folder);
  require(!config->weight || (std::isfinite(*config->weight) && *config->weight > 0));
  require(config->arena_bytes >= uint64_t{48} << 20);
  require(config->lease_ms >= 200 && config->lease_ms <= 600'000);
  require(config->rebalance_after_ms >= 0);
  require(config->bytes_per_second == 0 || config->bytes_per_second >= kLeastBytesPerSecond);
  return 0;
}

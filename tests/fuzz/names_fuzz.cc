// Feeds the readers of what names and measures things on a command line anything: cluster URLs,
// names of nodes and backups, weights and rates. The first byte chooses the reader.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "control/backup/documents.h"
#include "control/cli/command.h"
#include "control/cluster_block/cluster_block.h"
#include "control/membership/documents.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

void read_url(std::string_view text) {
  const auto url = parse_cluster_url(text);
  require_readable(url.status());
  if (!url.ok()) return;
  if (url->kind == ClusterUrl::Kind::kSqlite) {
    require(!url->path.empty());
    return;
  }
  require(!url->endpoints.empty() && !url->prefix.empty() &&
          url->prefix.size() <= kMaxPrefixBytes && !url->prefix.ends_with('/'));
}

void read_names(std::string_view text) {
  require_readable(check_node_name(text));
  require_readable(check_backup_name(text));
}

void read_amounts(const std::string& text) {
  double weight = 0;
  if (parse_weight(text, &weight)) require(std::isfinite(weight) && weight > 0);
  uint64_t rate = 0;
  if (parse_rate(text, &rate)) require(rate >= 1 && rate <= uint64_t{1'000'000'000'000'000});
  std::string name;
  std::string value;
  if (split_assignment(text, &name, &value)) require(name + "=" + value == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      read_url(text);
      break;
    case 1:
      read_names(text);
      break;
    default:
      read_amounts(text);
      break;
  }
  return 0;
}

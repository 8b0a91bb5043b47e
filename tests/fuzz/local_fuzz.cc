// Feeds the reader of a local cluster's description anything. What it accepts becomes paths and
// configuration files.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "control/local/description.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

void require_node(const LocalNode& node) {
  require(!node.name.empty() && node.name.front() != '.' &&
          node.name.find_first_of(std::string_view("/\0", 2)) == std::string::npos);
  require(std::isfinite(node.weight) && node.weight >= 0);
  require(!node.control_address.empty() && !node.data_address.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto description =
      parse_description(std::string_view(reinterpret_cast<const char*>(data), size));
  require_readable(description.status());
  if (!description.ok()) return 0;
  require(!description->nodes.empty() && description->replicas > 0 && description->slots > 1);
  for (const LocalNode& node : description->nodes) require_node(node);
  const auto again = parse_description(to_json(*description));
  require(again.ok() && *again == *description);
  return 0;
}

// Feeds the decoder of distribution tables anything: as it is, and with the right digest at its
// end.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/checksum.h"
#include "control/table/table.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;

void read_table(const std::string& document) {
  const auto table = DistributionTable::decode(document);
  sluice::testing::require_readable(table.status());
  if (!table.ok()) return;
  require(table->encode() == document);
  require(table->epoch() > 0 && table->replicas() <= table->members().size());
  for (const TableMember& member : table->members()) {
    require(member.number > 0 && !member.name.empty() && std::isfinite(member.weight) &&
            member.weight > 0);
  }
  for (uint32_t slot = 0; slot < table->slots(); ++slot) {
    const auto replicas = table->replicas_of(slot);
    require(replicas.size() == table->replicas());
    for (const uint16_t member : replicas) require(member < table->members().size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string document(reinterpret_cast<const char*>(data), size);
  read_table(document);
  if (size < 16) return 0;
  const Digest128 digest = xxh3_128(document.data(), size - 16);
  store_le(document.data() + size - 16, digest.low);
  store_le(document.data() + size - 8, digest.high);
  read_table(document);
  return 0;
}

#include "dataplane/source/slot_source.h"

#include "base/status.h"

namespace sluice {

absl::StatusOr<std::string> SlotScan::value(const Item& item) {
  std::string bytes(item.summary.value_bytes, '\0');
  SLUICE_RETURN_IF_ERROR(read_value(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return bytes;
}

}  // namespace sluice

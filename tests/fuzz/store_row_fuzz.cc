// Feeds the decoders of a store's rows anything: a damaged database must not be taken for a whole
// one.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dataplane/store/store_format.h"
#include "tests/fuzz/oracle.h"

using namespace sluice;
using sluice::testing::require;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view row(reinterpret_cast<const char*>(data), size);
  if (StoredRecord stored; decode_stored(row, &stored)) {
    const RecordSummary& summary = stored.summary;
    require(summary.value_bytes <= kMaxValueBytes);
    require(!summary.tombstone || summary.value_bytes == 0);
    require(stored.fragmented || stored.inline_value.size() == summary.value_bytes);
    require(
        encode_stored_head(summary, stored.fragmented, stored.set).append(stored.inline_value) ==
        row);
  }
  if (uint64_t value = 0; decode_u64(row, &value)) require(encode_u64(value) == row);
  if (SlotDigest digest; decode_digest(row, &digest)) require(encode_digest(digest) == row);
  if (CutInfo cut; decode_cut("backup", row, &cut)) {
    require(cut.backup == "backup" && encode_cut(cut) == row);
  }
  if (Store::Found found; decode_found(row, &found)) require(encode_found(found) == row);
  // What another format says behind its number is not read.
  if (StoreIdentity identity;
      decode_identity(row, &identity) && identity.format == StoreIdentity::kFormat) {
    require(encode_identity(identity) == row);
  }
  return 0;
}

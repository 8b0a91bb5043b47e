// Feeds anything to the readers of an archive's small files: manifest, part, index, journal. As it
// is, and with the right digest written at its end.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/checksum.h"
#include "dataplane/archive/frame.h"
#include "dataplane/archive/journal.h"
#include "dataplane/archive/manifest.h"
#include "dataplane/archive/runs.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

// What can be read can be written, and is the same bytes.
void read_all(const std::string& bytes) {
  const auto manifest = Manifest::decode(bytes);
  require_readable(manifest.status());
  if (manifest.ok()) {
    require(manifest->encode() == bytes);
    (void)manifest->records();
    (void)manifest->bytes();
  }
  const auto part = PartManifest::decode(bytes);
  require_readable(part.status());
  require(!part.ok() || part->encode() == bytes);
  auto index = SegmentIndex::decode(bytes);
  require_readable(index.status());
  if (index.ok()) {
    require(index->encode() == bytes);
    require_readable(order_runs(std::move(index->blocks)).status());
  }
  const auto journal = JournalContent::decode(bytes);
  require_readable(journal.status());
  require(!journal.ok() || journal->whole_bytes <= bytes.size());
}

void redo_frame(std::string& bytes, size_t begin, size_t end) {
  const Digest128 digest = xxh3_128(bytes.data() + begin, end - 16 - begin);
  store_le(bytes.data() + end - 16, digest.low);
  store_le(bytes.data() + end - 8, digest.high);
}

// A journal's header frame and its first entry.
void redo_journal(std::string& bytes) {
  const size_t end = size_t{4} + load_le<uint32_t>(bytes.data());
  if (end > bytes.size() || end < 4 + kFrameBytes) return;
  redo_frame(bytes, 4, end);
  if (bytes.size() - end < 12) return;
  const size_t covered = size_t{4} + load_le<uint32_t>(bytes.data() + end + 8);
  if (covered > bytes.size() - end - 8) return;
  store_le(bytes.data() + end, xxh3_64(bytes.data() + end + 8, covered));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string input(reinterpret_cast<const char*>(data), size);
  read_all(input);
  if (size < kFrameBytes) return 0;
  std::string framed = input;
  redo_frame(framed, 0, framed.size());
  read_all(framed);
  redo_journal(input);
  read_all(input);
  return 0;
}

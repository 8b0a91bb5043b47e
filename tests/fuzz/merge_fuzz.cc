// Feeds the readers of summaries and of lists of wanted records anything: what they hand out must
// keep the formats' promises.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/arena.h"
#include "dataplane/pipeline/merge_lists.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_readable;

constexpr uint32_t kSlot = 1;
constexpr uint32_t kSlotBits = 1;
// Nobody follows a list further than this.
constexpr uint64_t kMaxSteps = 100'000;

void read_summaries(std::string_view page) {
  SummaryPageReader reader(page, kSlot, kSlotBits);
  std::string again(page.size() + SummaryPageBuilder::kMaxEntryBytes, '\0');
  SummaryPageBuilder builder;
  builder.begin({reinterpret_cast<uint8_t*>(again.data()), again.size()});
  std::string last;
  bool fits = true;
  for (;;) {
    const auto more = reader.next();
    require_readable(more.status());
    if (!more.ok()) return;
    if (!*more) break;
    require(!reader.key().empty() && reader.key().size() <= kMaxKeyBytes && reader.key() > last);
    require(slot_of(reader.key(), kSlotBits) == kSlot);
    require(reader.summary().value_bytes <= kMaxValueBytes);
    require(!reader.summary().tombstone || reader.summary().value_bytes == 0);
    last = reader.key();
    fits = fits && builder.add(reader.key(), reader.summary());
  }
  // There is one encoding of what was read.
  require(!fits ||
          (builder.bytes() == page.size() && std::string_view(again.data(), page.size()) == page));
}

void read_list(std::string_view bytes) {
  auto list = RunList::decode(bytes);
  require_readable(list.status());
  if (!list.ok()) return;
  RunListBuilder builder;
  builder.begin(0);
  uint64_t steps = 0;
  for (; !list->done() && steps < kMaxSteps; ++steps) builder.add(list->next());
  require(!list->done() || builder.encode() == bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > kMaxBlockBytes) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  read_summaries(input);
  read_list(input);
  const auto request = SummaryRequest::decode(input);
  require_readable(request.status());
  require(!request.ok() || (!request->slots.empty() && request->encode() == input));
  MergeSectionReader sections({data, size});
  MergeSection section;
  for (;;) {
    const auto more = sections.next(&section);
    if (!more.ok() || !*more) break;
    read_summaries(section.bytes);
    read_list(section.bytes);
  }
  return 0;
}

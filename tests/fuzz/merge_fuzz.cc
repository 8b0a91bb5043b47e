// Feeds the readers of summaries and of lists of wanted records anything: what they hand out must
// keep the formats' promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/arena.h"
#include "dataplane/pipeline/merge_lists.h"

namespace {

using namespace sluice;

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
    if (!more.ok()) return;
    if (!*more) break;
    if (reader.key().empty() || reader.key().size() > kMaxKeyBytes ||
        (!last.empty() && reader.key() <= last) || slot_of(reader.key(), kSlotBits) != kSlot ||
        reader.summary().value_bytes > kMaxValueBytes ||
        (reader.summary().tombstone && reader.summary().value_bytes > 0)) {
      std::abort();
    }
    last = reader.key();
    fits = fits && builder.add(reader.key(), reader.summary());
  }
  // There is one encoding of what was read.
  if (fits &&
      (builder.bytes() != page.size() || std::string_view(again.data(), page.size()) != page)) {
    std::abort();
  }
}

void read_list(std::string_view bytes) {
  auto list = RunList::decode(bytes);
  if (!list.ok()) return;
  RunListBuilder builder;
  builder.begin(0);
  uint64_t steps = 0;
  for (; !list->done() && steps < kMaxSteps; ++steps) builder.add(list->next());
  if (list->done() && builder.encode() != bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > kMaxBlockBytes) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  read_summaries(input);
  read_list(input);
  if (const auto request = SummaryRequest::decode(input); request.ok()) {
    if (request->slots.empty() || request->encode() != input) std::abort();
  }
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

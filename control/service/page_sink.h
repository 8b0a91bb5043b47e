// Where the answer of a streaming call goes, page by page. Confined to one thread.
#ifndef SLUICE_CONTROL_SERVICE_PAGE_SINK_H_
#define SLUICE_CONTROL_SERVICE_PAGE_SINK_H_

#include <cstdint>

#include "absl/status/status.h"

namespace sluice {

// How long one page may take to be read. A reader that goes on later asks again, for what follows
// the last record it has.
inline constexpr int64_t kReaderStallMs = 30'000;

template <typename Paged>
class PageSink {
 public:
  using Page = Paged;
  virtual ~PageSink() = default;
  // Waits for room. CANCELLED when the reader went away, or took nothing for kReaderStallMs: it is
  // cut off then, so that it does not keep a thread of this node for ever.
  virtual absl::Status write(const Page& page) = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_PAGE_SINK_H_

#include "dataplane/pipeline/divergence.h"

#include <algorithm>

namespace sluice {

void DivergenceReport::merge(const DivergenceReport& other) {
  stale += other.stale;
  missing += other.missing;
  conflicting += other.conflicting;
  records_differing += other.records_differing;
  const size_t room = kMaxExamples - std::min(kMaxExamples, examples.size());
  examples.insert(
      examples.end(), other.examples.begin(),
      other.examples.begin() + static_cast<std::ptrdiff_t>(std::min(room, other.examples.size())));
}

}  // namespace sluice

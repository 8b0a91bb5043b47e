// How the replicas of divergent slots differ.
#ifndef SLUICE_DATAPLANE_PIPELINE_DIVERGENCE_H_
#define SLUICE_DATAPLANE_PIPELINE_DIVERGENCE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

enum class DivergenceKind : uint8_t { kStale, kMissing, kConflicting };

struct DivergenceReport {
  static constexpr size_t kMaxExamples = 100;

  // Per replica copy of a record that is not the winner's:
  uint64_t stale = 0;              // an older version
  uint64_t missing = 0;            // no record at all, although another reading replica has one
  uint64_t conflicting = 0;        // the same version with another value or flag
  uint64_t records_differing = 0;  // distinct keys with at least one of these

  struct Example {
    uint32_t slot = 0;
    std::string key;
    std::string node;  // whose copy it is
    DivergenceKind kind = DivergenceKind::kStale;
  };
  std::vector<Example> examples;  // the first ones

  void merge(const DivergenceReport& other);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_DIVERGENCE_H_

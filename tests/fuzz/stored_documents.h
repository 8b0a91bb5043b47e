// A cluster block that has a document of every kind.
#ifndef SLUICE_TESTS_FUZZ_STORED_DOCUMENTS_H_
#define SLUICE_TESTS_FUZZ_STORED_DOCUMENTS_H_

#include <memory>

#include "control/cluster_block/cluster_block.h"
#include "control/schedule/planner.h"

namespace sluice::testing {

inline constexpr char kStoredBackup[] = "00000000-0000-4000-8000-000000000001";
inline constexpr char kStoredBackupName[] = "nightly";
inline constexpr char kStoredRestore[] = "00000000-0000-4000-8000-000000000002";
inline constexpr char kStoredNode[] = "n1";
// Of the restore's retry list.
inline constexpr char kStoredPart[] = "n1";

// Two targets, six slots of which two are divergent.
Plan some_plan();

std::unique_ptr<ClusterBlock> make_stored_documents();

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_FUZZ_STORED_DOCUMENTS_H_

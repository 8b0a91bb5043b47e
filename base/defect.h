// Defects that can be put back, one at a time, to see whether the simulation of whole clusters
// (tests/simulation/world) finds them. Each is one that Sluice had once, or that one of its rules
// is there to prevent. A place in the product that a defect changes asks defect(); in every build
// but the preset "simulation" (SLUICE_DEFECTS) the answer is false at compile time, and nothing of
// it is in the program. Programs of that preset are for tests alone.
//
// Chosen for the whole process, before its threads begin.
#ifndef SLUICE_BASE_DEFECT_H_
#define SLUICE_BASE_DEFECT_H_

#include <cstdint>

namespace sluice {

// Where a second safety net would hide a defect, its line says which one goes with it.
// clang-format off
#define SLUICE_DEFECT_LIST(DEFECT) \
  DEFECT(kVersionsOfOneClock, "a version is above the clock of one node alone") \
  DEFECT(kReadsLeaveDifferences, "a read leaves replicas that differ as they are") \
  DEFECT(kAfterCutCounts, "a write that came too late for the cut counts as written before it") \
  DEFECT(kAckBeforeSync, "a replica answers before the record is durable") \
  DEFECT(kSyncCoversLater, "a sync counts for what was committed while it ran") \
  DEFECT(kRepeatWaitsForNothing, "an answer that changes nothing does not wait until the record is durable") \
  DEFECT(kReadsWaitForNothing, "a read returns a record that is not durable yet") \
  DEFECT(kAnyCalleeAnswers, "whichever node has an address answers calls meant for another one") \
  DEFECT(kReadsAskOne, "reads and exports ask one replica") \
  DEFECT(kImportForgetsOrder, "an import's groups that share a key are in flight together") \
  DEFECT(kCeilingIsNotKept, "a clock's ceiling is not stored before it is used, nor taken from the cluster") \
  DEFECT(kStampsAheadAreRefused, "a replica refuses stamps ahead of its wall clock") \
  DEFECT(kDigestCommittedApart, "a slot's digest is committed after its records") \
  DEFECT(kWritePassesTheCut, "a write stamped after an armed cut is applied before the cut is taken") \
  DEFECT(kArmedTooLate, "a cut is armed though the clock has passed it") \
  DEFECT(kCheckpointIsNotSynced, "a cut counts as taken before its files are durable") \
  DEFECT(kLastCutIsForgotten, "a restarted node does not know its last cut") \
  DEFECT(kOneDigestIsEnough, "a backup reads slots of which one replica answers") \
  DEFECT(kMergeTakesTheFirst, "a merge takes the first copy of a record, not the newest") \
  DEFECT(kEarlierDataJoins, "a node joins with an earlier state of its data directory") \
  DEFECT(kPeersAreNotAsked, "a joining node does not ask its peers what they know of its data") \
  DEFECT(kServesBeforeJoining, "a node serves before it has joined") \
  DEFECT(kCopyTakesTheName, "a copy of a live node's data directory takes its name over") \
  DEFECT(kLapsedNodeReturns, "a node whose lease has ended returns although another process joined meanwhile, and publishes over it") \
  DEFECT(kNamesakesOverlap, "a node answers however long it stood still, and nobody who takes its name waits for that") \
  DEFECT(kJoinIsNotConfirmed, "a node does not store that it has joined") \
  DEFECT(kLostJoinIsAnothers, "a node takes its own join, whose answer was lost, for another process's") \
  DEFECT(kMissedChangeStays, "a change of members or table is forgotten when reading it fails") \
  DEFECT(kLowerAttemptPasses, "a node carries out calls of an attempt that is over") \
  DEFECT(kTakeoverKeepsAttempt, "whoever takes a backup over keeps its attempt") \
  DEFECT(kRestoreIsNotFenced, "a restore's commits do not compare its head's revision") \
  DEFECT(kDeadTargetIsDone, "the slots of a dead target count as done; the manifest is not checked against the plan") \
  DEFECT(kMergePutsBackAll, "a merge that fails puts back the slots that it has finished") \
  DEFECT(kOneManifestIsEnough, "a backup is completed once one target has stored the manifest") \
  DEFECT(kSegmentsAreNotSynced, "an archive's segments are not synced") \
  DEFECT(kRenamedBeforeSync, "a file is renamed into place before its content is durable") \
  DEFECT(kNamesAreNotSynced, "a directory is not synced after a name in it has changed") \
  DEFECT(kFoundDirectoryIsDurable, "a directory that is there counts as durable") \
  DEFECT(kIngestsOverWrites, "a table is ingested over what was written to the slot meanwhile") \
  DEFECT(kComparedIsNotSynced, "compared records of a restore are confirmed before they are durable") \
  DEFECT(kUnplannedSlotsStay, "a part keeps slots that the plan gives to another target") \
  DEFECT(kTornEntryStays, "a torn entry stays in the journal, before those that follow") \
  DEFECT(kPartsGoFirst, "a deletion removes parts before it marks the backup") \
  DEFECT(kAnyNameIsErased, "a deletion erases the backup's name though it is another one's by now") \
  DEFECT(kPartGoesWhileRead, "a part that is being read is removed") \
  DEFECT(kFinishedPartsAreTidied, "a part of a completed backup counts as left over") \
  DEFECT(kSwappedPartIsBelieved, "whatever stands in a backup's directory is its part") \
  DEFECT(kProgressBySlot, "a restore passes over slots that a replaced store had; no proof is asked for") \
  DEFECT(kCancelledRetryLosesList, "a retry that is cancelled replaces the list") \
  DEFECT(kListsGoAtTheBeginning, "a restore that begins again drops the lists of the last attempt")
// clang-format on

#define SLUICE_DEFECT_NAME(name, line) name,
enum class Defect : uint8_t { kNone, SLUICE_DEFECT_LIST(SLUICE_DEFECT_NAME) };
#undef SLUICE_DEFECT_NAME

#ifdef SLUICE_DEFECTS
inline constexpr bool kHasDefects = true;
inline Defect seeded_defect = Defect::kNone;
inline bool defect(Defect which) { return seeded_defect == which; }
inline void put_back(Defect which) { seeded_defect = which; }
#else
inline constexpr bool kHasDefects = false;
constexpr bool defect(Defect) { return false; }
constexpr void put_back(Defect) {}
#endif

}  // namespace sluice

#endif  // SLUICE_BASE_DEFECT_H_
